/* SPDX-License-Identifier: Apache-2.0
 *
 * What handles point to lies in one reserved range of addresses and never becomes anything else, so that any
 * bit pattern a program passes as a handle can be checked without following it into the unknown.
 */
#include "driver.h"

#include <string.h>
#include <sys/mman.h>

enum { SMALLEST = 64, CLASSES = 10, REGION = 1 << 28 };

static struct {
	pthread_mutex_t lock;
	_Atomic uintptr_t base;
	_Atomic size_t used;
	void *unused[CLASSES]; /* chained through the bytes after struct object */
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void **chain(void *object)
{
	return (void **)((char *)object + sizeof(struct object));
}

static int reserve(void)
{
	if (table.base)
		return 1;
	void *base = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return 0;
	table.base = (uintptr_t)base;
	return 1;
}

static void *take(unsigned class)
{
	size_t size = (size_t)SMALLEST << class;
	void *object = table.unused[class];
	if (object) {
		table.unused[class] = *chain(object);
		memset(chain(object), 0, size - sizeof(struct object));
		return object;
	}
	/* aligned to its own size, so that object_get can tell a handle from a pointer into one */
	size_t offset = (table.used + size - 1) & ~(size - 1);
	if (!reserve() || offset + size > REGION)
		return NULL;
	table.used = offset + size;
	return (void *)(table.base + offset);
}

void *object_new(enum object_kind kind, size_t size)
{
	unsigned class = 0;
	while (((size_t)SMALLEST << class) < size)
		class++;
	if (class >= CLASSES)
		return NULL;
	pthread_mutex_lock(&table.lock);
	struct object *object = take(class);
	pthread_mutex_unlock(&table.lock);
	if (!object)
		return NULL;
	object->size_class = class;
	atomic_store_explicit(&object->kind, kind, memory_order_release);
	return object;
}

void object_retire(void *object)
{
	atomic_store(&((struct object *)object)->kind, OBJECT_FREE);
}

void object_free(void *object)
{
	struct object *header = object;
	if (!header)
		return;
	object_retire(header);
	pthread_mutex_lock(&table.lock);
	*chain(header) = table.unused[header->size_class];
	table.unused[header->size_class] = header;
	pthread_mutex_unlock(&table.lock);
}

enum object_kind object_kind_of(const void *handle)
{
	uintptr_t base = table.base, address = (uintptr_t)handle;
	if (!base || address < base || address - base >= table.used || (address - base) % SMALLEST)
		return OBJECT_FREE;
	return atomic_load_explicit(&((struct object *)address)->kind, memory_order_acquire);
}

void *object_get(const void *handle, enum object_kind kind)
{
	return object_kind_of(handle) == kind ? (void *)handle : NULL;
}
