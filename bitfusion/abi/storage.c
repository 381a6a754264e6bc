/* SPDX-License-Identifier: Apache-2.0
 *
 * Context-local storage: what a runtime hangs on a context, by (context, key).
 *
 * cudart looks its own entry up in nearly every call, so a look-up takes no lock: it reads a fixed table under
 * a sequence count that is odd while a writer is at work, and tries again when the count moved.
 */
#include "tables.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 4096 }; /* contexts times runtimes in the process; a power of two */

static const uintptr_t DELETED = 1; /* a slot that was used: the probe goes on past it */

struct slot {
	_Atomic uintptr_t context; /* 0: never used */
	_Atomic uintptr_t key, value;
	_Atomic uintptr_t destructor;
};

static struct slot slots[SLOTS];
static _Atomic unsigned sequence;
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;

static uintptr_t resolve(CUcontext context)
{
	if (!context || context == (CUcontext)(intptr_t)-1)
		context = abi_host.current_context();
	return (uintptr_t)context;
}

static unsigned first_slot(uintptr_t context, uintptr_t key)
{
	uint64_t mixed = (context ^ key * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;

	return (unsigned)(mixed >> 40) % SLOTS;
}

/* The slot of (context, key), or NULL. */
static struct slot *find(uintptr_t context, uintptr_t key)
{
	unsigned at = first_slot(context, key);

	for (unsigned tried = 0; tried < SLOTS; tried++, at = (at + 1) % SLOTS) {
		struct slot *slot = &slots[at];
		uintptr_t used = atomic_load_explicit(&slot->context, memory_order_acquire);

		if (!used)
			return NULL;
		if (used == context && atomic_load_explicit(&slot->key, memory_order_acquire) == key)
			return slot;
	}
	return NULL;
}

static struct slot *find_free(uintptr_t context, uintptr_t key)
{
	unsigned at = first_slot(context, key);

	for (unsigned tried = 0; tried < SLOTS; tried++, at = (at + 1) % SLOTS)
		if (atomic_load(&slots[at].context) <= DELETED)
			return &slots[at];
	return NULL;
}

static void begin_write(void)
{
	pthread_mutex_lock(&writers);
	atomic_fetch_add(&sequence, 1);
}

static void end_write(void)
{
	atomic_fetch_add(&sequence, 1);
	pthread_mutex_unlock(&writers);
}

CUresult abi_storage_put(CUcontext context, void *key, void *value, abi_storage_destructor destructor)
{
	uintptr_t owner = resolve(context);
	struct slot *slot;

	if (!owner)
		return CUDA_ERROR_INVALID_CONTEXT;
	begin_write();
	slot = find(owner, (uintptr_t)key);
	if (!slot)
		slot = find_free(owner, (uintptr_t)key);
	if (slot) {
		atomic_store(&slot->key, (uintptr_t)key);
		atomic_store(&slot->value, (uintptr_t)value);
		atomic_store(&slot->destructor, (uintptr_t)destructor);
		atomic_store(&slot->context, owner);
	}
	end_write();
	return slot ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult abi_storage_delete(CUcontext context, void *key)
{
	uintptr_t owner = resolve(context);
	struct slot *slot;

	begin_write();
	slot = owner ? find(owner, (uintptr_t)key) : NULL;
	if (slot)
		atomic_store(&slot->context, DELETED);
	end_write();
	return slot ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult abi_storage_get(void **value, CUcontext context, void *key)
{
	uintptr_t owner = resolve(context), found = 0;
	const struct slot *slot;
	unsigned before;

	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	*value = NULL;
	if (!owner)
		return CUDA_ERROR_INVALID_CONTEXT;
	do {
		before = atomic_load_explicit(&sequence, memory_order_acquire);
		slot = find(owner, (uintptr_t)key);
		if (slot)
			found = atomic_load_explicit(&slot->value, memory_order_acquire);
	} while (before & 1 || atomic_load_explicit(&sequence, memory_order_acquire) != before);
	if (!slot)
		return CUDA_ERROR_INVALID_HANDLE;
	*value = (void *)found;
	return CUDA_SUCCESS;
}

/* Takes one entry of the context out of the table. The destructor runs outside the lock: it calls the driver. */
static int take_one(uintptr_t owner, uintptr_t *key, uintptr_t *value, abi_storage_destructor *destructor)
{
	int taken = 0;

	begin_write();
	for (unsigned at = 0; at < SLOTS && !taken; at++) {
		if (atomic_load(&slots[at].context) != owner)
			continue;
		*key = atomic_load(&slots[at].key);
		*value = atomic_load(&slots[at].value);
		*destructor = (abi_storage_destructor)atomic_load(&slots[at].destructor);
		atomic_store(&slots[at].context, DELETED);
		taken = 1;
	}
	end_write();
	return taken;
}

void abi_context_storage_clear(CUcontext context)
{
	abi_storage_destructor destructor;
	uintptr_t key, value;

	if (!context)
		return;
	while (take_one((uintptr_t)context, &key, &value, &destructor))
		if (destructor)
			destructor(context, (void *)key, (void *)value);
}
