/* SPDX-License-Identifier: Apache-2.0
 *
 * Which memory has a twin: how it gets one, and when that goes.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

#include <string.h>
#include <sys/mman.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct bf_twin *bf_twins;
_Atomic bool bf_shared_used;
_Atomic unsigned bf_twin_count;

void bf_shared_lock(void)
{
	pthread_mutex_lock(&lock);
}

void bf_shared_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------ which memory has one */

static void add(struct bf_twin *twin)
{
	twin->next = bf_twins;
	bf_twins = twin;
	bf_map_set_twin(BF_ARG(twin->host), twin, false);
	if (twin->allocated)
		bf_map_set_twin(twin->device, twin, true);
	atomic_fetch_add(&bf_twin_count, 1);
	atomic_store(&bf_shared_used, true);
}

static void forget(struct bf_twin *twin)
{
	struct bf_twin **link = &bf_twins;

	while (*link && *link != twin)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = twin->next;
	bf_map_set_twin(BF_ARG(twin->host), NULL, false);
	if (twin->allocated)
		bf_map_set_twin(twin->device, NULL, false);
	atomic_fetch_sub(&bf_twin_count, 1);
}

static bool can_have_one(const struct bf_range *range)
{
	return bf_range_is_host(range) || range->kind == BF_RANGE_MANAGED;
}

static CUresult give_twin(struct bf_range *range)
{
	CUresult status = CUDA_SUCCESS;
	struct bf_twin *twin = NULL;
	bool first;

	pthread_mutex_lock(&lock);
	first = !bf_twins;
	if (first)
		bf_inherit_begin();
	if (bf_map_find(range->base, range) && !range->twin) { /* two threads may launch with it */
		status = bf_twin_make(range, &twin);
		if (!status)
			add(twin);
	}
	pthread_mutex_unlock(&lock);
	if (status)
		bf_debug("no memory of the server's for %llu bytes of shared memory: error %d",
			 (unsigned long long)range->size, status);
	else
		bf_debug("%llu bytes at %#llx are shared now", (unsigned long long)range->size,
			 (unsigned long long)range->base);
	if (!status && first && range->usable) /* kernels of before may be changing it */
		bf_inherit_all();
	if (first)
		bf_inherit_end();
	return status;
}

/* Copies that are still writing the memory are no change of the program's: they come first, also those that another
 * thread began before it could see the twin. */
static CUresult give_settled_twin(struct bf_range *range)
{
	const void *memory = (const void *)(uintptr_t)range->base;
	CUresult status = bf_host_settle(memory, range->size);

	if (!status && !range->twin)
		status = give_twin(range);
	if (!status)
		status = bf_host_settle(memory, range->size);
	if (status)
		return status;
	pthread_mutex_lock(&lock);
	if (bf_map_find(range->base, range) && range->twin)
		bf_map_set_twin(range->base, range->twin, true);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

/* Here the copy is known and then a twin looked for, there it is the other way round: one of the two sees the other. */
CUresult bf_shared_copying(const void *memory, size_t size)
{
	CUdeviceptr device;

	if (!atomic_load(&bf_twin_count))
		return CUDA_SUCCESS;
	return bf_shared_find(memory, size, &device) ? bf_host_settle(memory, size) : CUDA_SUCCESS;
}

CUresult bf_shared_touch(uint64_t address)
{
	struct bf_range range;

	if (!bf_map_find(address, &range) || !can_have_one(&range))
		return CUDA_ERROR_INVALID_VALUE;
	return range.settled ? CUDA_SUCCESS : give_settled_twin(&range);
}

CUresult bf_shared_touch_words(const void *words, size_t size)
{
	CUresult status = CUDA_SUCCESS;
	struct bf_range range;

	for (size_t at = 0; size - at >= 8 && !status; at += 8) {
		uint64_t word;

		memcpy(&word, (const uint8_t *)words + at, 8);
		if (BF_UNLIKELY(bf_arena_may_hold(word)) && bf_map_find(word, &range) && can_have_one(&range))
			status = bf_shared_touch(word);
	}
	return status;
}

bool bf_shared_find(const void *memory, size_t size, CUdeviceptr *device)
{
	uint64_t address = BF_ARG(memory);
	struct bf_range range;
	bool found;

	if (!bf_twins_exist())
		return false;
	pthread_mutex_lock(&lock);
	found = bf_map_find(address, &range) && range.twin && size <= range.base + range.size - address;
	if (found)
		*device = range.twin->device + (address - range.base);
	pthread_mutex_unlock(&lock);
	return found;
}

/* ------------------------------------------------------------------ the end of it */

/* Work may still use the memory: as in CUDA, who frees it waits. */
void bf_shared_drop(const struct bf_range *range)
{
	uint32_t before = bf_self.current;

	bf_shared_wait_for_all();
	if (!range->twin)
		return;
	bf_self.current = range->twin->carrier->context;
	pthread_mutex_lock(&lock);
	forget(range->twin);
	bf_twin_free(range->twin, true);
	pthread_mutex_unlock(&lock);
	bf_self.current = before;
}

void bf_shared_drop_variables(uint64_t parent)
{
	struct bf_twin *twin, *next;

	pthread_mutex_lock(&lock);
	for (twin = bf_twins; twin && twin->parent != parent; twin = twin->next)
		;
	pthread_mutex_unlock(&lock);
	if (!twin)
		return;
	bf_shared_wait_for_all();
	pthread_mutex_lock(&lock);
	for (twin = bf_twins; twin; twin = next) {
		next = twin->next;
		if (twin->parent != parent)
			continue;
		forget(twin);
		if (twin->allocated)
			munmap(twin->host, twin->size);
		bf_twin_free(twin, true);
	}
	pthread_mutex_unlock(&lock);
}

uint64_t bf_shared_variable(uint64_t parent, CUdeviceptr address)
{
	const struct bf_twin *twin;
	uint64_t found;

	pthread_mutex_lock(&lock);
	for (twin = bf_twins; twin && (twin->parent != parent || twin->device != address); twin = twin->next)
		;
	found = twin ? BF_ARG(twin->host) : 0;
	pthread_mutex_unlock(&lock);
	return found;
}

/* A library's variable has no more to do with this context than with another. */
static void end_twin(struct bf_twin *twin)
{
	if (twin->parent && !twin->managed) {
		twin->carrier = NULL;
		return;
	}
	forget(twin);
	if (twin->managed) { /* other memory of the program's lives on */
		bf_map_remove(BF_ARG(twin->host), 1u << BF_RANGE_MANAGED, NULL);
		if (!twin->parent)
			bf_arena_give(twin->host, twin->size);
	}
	bf_twin_free(twin, false);
}

/* Unmapping waits for work, which may wait for a host function, which may wait for the lock: so it waits first. */
void bf_shared_end_context(uint32_t context)
{
	struct bf_twin *next;

	bf_shared_wait_for_all();
	pthread_mutex_lock(&lock);
	for (struct bf_twin *twin = bf_twins; twin; twin = next) {
		next = twin->next;
		if (twin->carrier && twin->carrier->context == context)
			end_twin(twin);
	}
	bf_carriers_end(context);
	bf_flight_settle(0, context, UINT64_MAX);
	pthread_mutex_unlock(&lock);
}
