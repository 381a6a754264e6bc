/* SPDX-License-Identifier: Apache-2.0
 *
 * Address ranges, sorted by base. Writers take a lock and count up before and after; readers search and look at the
 * count again. Arrays that were outgrown stay until the end, as somebody may be reading them.
 */
#include <sched.h>
#include <stdlib.h>

#include "internal.h"

struct range {
	_Atomic uint64_t base, size;
};

struct sg_space {
	pthread_mutex_t lock;
	_Atomic uint64_t version; /* odd while it changes */
	_Atomic uint32_t count;
	struct range *_Atomic ranges;
	uint32_t room, old_count;
	struct range *old[32]; /* each half as large as the next */
};

struct sg_space *sg_space_create(void)
{
	struct sg_space *space = calloc(1, sizeof(*space));

	if (!space)
		return NULL;
	space->room = 64;
	atomic_init(&space->ranges, calloc(space->room, sizeof(struct range)));
	if (!atomic_load(&space->ranges)) {
		free(space);
		return NULL;
	}
	pthread_mutex_init(&space->lock, NULL);
	return space;
}

void sg_space_destroy(struct sg_space *space)
{
	if (!space)
		return;
	for (uint32_t k = 0; k < space->old_count; k++)
		free(space->old[k]);
	free(atomic_load(&space->ranges));
	pthread_mutex_destroy(&space->lock);
	free(space);
}

#define LOAD(x) atomic_load_explicit(&(x), memory_order_acquire)
#define STORE(x, value) atomic_store_explicit(&(x), value, memory_order_release)

/* Index of the first range whose base is above address. */
static uint32_t above(struct range *ranges, uint32_t count, uint64_t address)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (LOAD(ranges[middle].base) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool grow(struct sg_space *space)
{
	struct range *old = atomic_load(&space->ranges), *made;

	if (atomic_load(&space->count) < space->room)
		return true;
	if (space->old_count == 32)
		return false;
	made = calloc(space->room, 2 * sizeof(*made));
	if (!made)
		return false;
	for (uint32_t k = 0; k < space->room; k++) {
		STORE(made[k].base, LOAD(old[k].base));
		STORE(made[k].size, LOAD(old[k].size));
	}
	space->old[space->old_count++] = old;
	space->room *= 2;
	atomic_store(&space->ranges, made);
	return true;
}

static void begin(struct sg_space *space)
{
	atomic_fetch_add(&space->version, 1); /* the stores that follow release it to whoever sees them */
}

static void end(struct sg_space *space)
{
	atomic_fetch_add_explicit(&space->version, 1, memory_order_release);
}

static void insert(struct sg_space *space, uint32_t at, uint64_t base, uint64_t size)
{
	struct range *ranges = atomic_load(&space->ranges);
	const uint32_t count = atomic_load(&space->count);

	begin(space);
	for (uint32_t k = count; k > at; k--) {
		STORE(ranges[k].base, LOAD(ranges[k - 1].base));
		STORE(ranges[k].size, LOAD(ranges[k - 1].size));
	}
	STORE(ranges[at].base, base);
	STORE(ranges[at].size, size);
	atomic_store(&space->count, count + 1);
	end(space);
}

int sg_space_add(struct sg_space *space, uint64_t base, uint64_t size)
{
	struct range *ranges;
	uint32_t at;
	int answer = -1;

	if (!size || base + size < base)
		return -1;
	pthread_mutex_lock(&space->lock);
	if (!grow(space))
		goto out;
	ranges = atomic_load(&space->ranges);
	at = above(ranges, atomic_load(&space->count), base);
	if (at && base - LOAD(ranges[at - 1].base) < LOAD(ranges[at - 1].size))
		goto out;
	if (at < atomic_load(&space->count) && LOAD(ranges[at].base) - base < size)
		goto out;
	insert(space, at, base, size);
	answer = 0;
out:
	pthread_mutex_unlock(&space->lock);
	return answer;
}

int sg_space_remove(struct sg_space *space, uint64_t base)
{
	struct range *ranges;
	uint32_t at, count;
	int answer = -1;

	pthread_mutex_lock(&space->lock);
	ranges = atomic_load(&space->ranges);
	count = atomic_load(&space->count);
	at = above(ranges, count, base);
	if (at && LOAD(ranges[at - 1].base) == base) {
		begin(space);
		for (uint32_t k = at; k < count; k++) {
			STORE(ranges[k - 1].base, LOAD(ranges[k].base));
			STORE(ranges[k - 1].size, LOAD(ranges[k].size));
		}
		atomic_store(&space->count, count - 1);
		end(space);
		answer = 0;
	}
	pthread_mutex_unlock(&space->lock);
	return answer;
}

bool sg_space_lookup(struct sg_space *space, uint64_t address, uint64_t *base, uint64_t *size)
{
	for (;;) {
		const uint64_t version = atomic_load_explicit(&space->version, memory_order_acquire);
		struct range *ranges;
		uint32_t count, at;

		/* A count read before the array never exceeds the array's room: it grows before the count does. */
		if (version & 1) { /* by whoever changes it, who may be waiting for this CPU */
			sched_yield();
			continue;
		}
		count = LOAD(space->count);
		ranges = atomic_load(&space->ranges);
		at = above(ranges, count, address);
		*base = at ? LOAD(ranges[at - 1].base) : 0;
		*size = at ? LOAD(ranges[at - 1].size) : 0;
		if (LOAD(space->version) == version)
			return at && address - *base < *size;
	}
}

int sg_space_find(struct sg_space *space, uint64_t address, uint64_t *base, uint64_t *size)
{
	return sg_space_lookup(space, address, base, size);
}

uint64_t sg_space_version(struct sg_space *space)
{
	return atomic_load(&space->version);
}
