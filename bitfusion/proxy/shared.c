/* SPDX-License-Identifier: Apache-2.0
 *
 * When the two sides of shared memory agree: before work, around waits and host functions, and never in between.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bf_twin *twins;
_Atomic bool bf_shared_used;
static _Atomic unsigned twin_count;

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
	twin->next = twins;
	twins = twin;
	bf_map_set_twin(BF_ARG(twin->host), twin);
	if (twin->allocated)
		bf_map_set_twin(twin->device, twin);
	atomic_fetch_add(&twin_count, 1);
	atomic_store(&bf_shared_used, true);
}

static void forget(struct bf_twin *twin)
{
	struct bf_twin **link = &twins;

	while (*link && *link != twin)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = twin->next;
	bf_map_set_twin(BF_ARG(twin->host), NULL);
	if (twin->allocated)
		bf_map_set_twin(twin->device, NULL);
	atomic_fetch_sub(&twin_count, 1);
}

static bool can_have_one(const struct bf_range *range)
{
	return bf_range_is_host(range) || range->kind == BF_RANGE_MANAGED;
}

/* Copies that are still writing the memory are no change of the program's: they come first. */
CUresult bf_shared_touch(uint64_t address)
{
	CUresult status = CUDA_SUCCESS;
	struct bf_twin *twin = NULL;
	struct bf_range range;
	bool first;

	if (!bf_map_find(address, &range) || !can_have_one(&range))
		return CUDA_ERROR_INVALID_VALUE;
	if (range.twin)
		return CUDA_SUCCESS;
	status = bf_host_settle((const void *)(uintptr_t)range.base, range.size);
	if (status)
		return status;
	pthread_mutex_lock(&lock);
	first = !twins;
	if (bf_map_find(address, &range) && !range.twin) { /* two threads may launch with it */
		status = bf_twin_make(&range, &twin);
		if (!status)
			add(twin);
	}
	pthread_mutex_unlock(&lock);
	if (!status && first && range.usable) /* kernels of before may be changing it */
		bf_inherit_all();
	if (status)
		bf_debug("no memory of the server's for %llu bytes of shared memory: error %d",
			 (unsigned long long)range.size, status);
	else
		bf_debug("%llu bytes at %#llx are shared now", (unsigned long long)range.size,
			 (unsigned long long)range.base);
	return status;
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
	uint64_t address = BF_ARG(memory), offset;
	struct bf_range range;
	bool found;

	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&lock);
	found = bf_map_find(address, &range) && range.twin;
	offset = address - range.base;
	found = found && size <= range.size - offset;
	if (found)
		*device = range.twin->device + offset;
	pthread_mutex_unlock(&lock);
	return found;
}

/* Is work under way? */
static bool is_busy(void)
{
	bool busy;

	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&lock);
	busy = !bf_flight_none();
	pthread_mutex_unlock(&lock);
	return busy;
}

/* ------------------------------------------------------------------ before work, and after it has been sent */

static CUresult send_all(void)
{
	bool alone = bf_flight_none();
	CUresult status = CUDA_SUCCESS;

	for (struct bf_twin *twin = twins; twin && !status; twin = twin->next)
		status = bf_twin_send(twin, alone);
	return status;
}

/* The carrier after this one (NULL: the first) as it is now. False: there is none. */
static bool next_carrier(struct bf_carrier **carrier, struct bf_carrier *now)
{
	pthread_mutex_lock(&lock);
	*carrier = *carrier ? (*carrier)->next : bf_carriers();
	if (*carrier)
		*now = **carrier;
	pthread_mutex_unlock(&lock);
	return *carrier;
}

static void note_order(struct bf_carrier *carrier, const struct bf_carrier *then, uint64_t stream)
{
	pthread_mutex_lock(&lock);
	carrier->ordered = then->sent;
	carrier->ordered_stream = stream;
	pthread_mutex_unlock(&lock);
}

/* Behind all uploads. Without the lock: a full stream makes who fills it wait, and nobody else. */
static CUresult order(CUstream stream)
{
	uint64_t number = bf_stream_number(stream);
	struct bf_carrier *carrier = NULL, now;
	CUresult status = CUDA_SUCCESS;

	while (!status && next_carrier(&carrier, &now)) {
		if (!now.stream || now.sent == now.arrived || (now.ordered == now.sent && now.ordered_stream == number))
			continue;
		status = BF_CALL(cuStreamWaitEvent, BF_ARG(stream), BF_ARG(now.sent_event), 0);
		if (!status)
			note_order(carrier, &now, number);
	}
	return status;
}

/* What is captured runs when its graph is launched. */
CUresult bf_shared_before(CUstream stream, bool writes)
{
	bool started = false;
	uint64_t capture = 0;
	CUresult status;

	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return CUDA_SUCCESS;
	status = bf_capture_find(stream, &capture);
	if (status || capture)
		return status;
	pthread_mutex_lock(&lock);
	status = send_all();
	if (!status && writes) {
		status = bf_flight_start(stream);
		started = !status;
	}
	pthread_mutex_unlock(&lock);
	if (!status)
		status = order(stream);
	if (status && started)
		bf_shared_after(stream);
	return status;
}

void bf_shared_after(CUstream stream)
{
	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return;
	pthread_mutex_lock(&lock);
	bf_flight_sent(stream);
	pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------ around a wait */

CUresult bf_shared_before_wait(void)
{
	CUresult status;

	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	status = bf_flight_none() ? CUDA_SUCCESS : send_all();
	pthread_mutex_unlock(&lock);
	return status;
}

static CUresult fetch(uint64_t stream, uint32_t context, uint64_t sequence)
{
	CUresult status = CUDA_SUCCESS;

	if (!atomic_load_explicit(&twin_count, memory_order_relaxed))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	if (!bf_flight_none()) {
		bf_flight_ask_heirs();
		status = bf_twins_fetch(twins);
	}
	if (!status) {
		bf_flight_settle(stream, context, sequence);
		bf_flight_settle_heirs();
	}
	pthread_mutex_unlock(&lock);
	return status;
}

CUresult bf_shared_waited(uint64_t stream_number, uint64_t sequence)
{
	return fetch(stream_number, 0, sequence);
}

CUresult bf_shared_waited_context(uint32_t context, uint64_t sequence)
{
	return fetch(0, context, sequence);
}

/* The copy is one that CUDA has finished, with all before it, when it returns. */
CUresult bf_shared_finish(CUstream stream)
{
	return is_busy() ? bf_stream_wait(stream) : CUDA_SUCCESS;
}

static void wait_for(bool heirs)
{
	uint32_t before = bf_self.current;
	struct bf_flight *flights;
	size_t count;

	pthread_mutex_lock(&lock);
	flights = bf_flights_now(&count);
	pthread_mutex_unlock(&lock);
	if (count && !flights)
		bf_fail_later(CUDA_ERROR_OUT_OF_MEMORY);
	for (size_t i = 0; flights && i < count; i++)
		if (flights[i].heir == heirs)
			bf_fail_later(bf_flight_wait(&flights[i]));
	free(flights);
	bf_self.current = before;
}

/* Another thread may be destroying a stream: its heir comes last. */
void bf_shared_wait_for_all(void)
{
	if (!is_busy())
		return;
	wait_for(false);
	wait_for(true);
}

/* ------------------------------------------------------------------ around a host function
 *
 * It runs behind work of its stream and before work that was sent long ago. The program's next wait tells a failure.
 */

void bf_shared_enter_function(void)
{
	pthread_mutex_lock(&lock);
	if (!bf_flight_none())
		bf_fail_later(bf_twins_fetch(twins));
	pthread_mutex_unlock(&lock);
}

void bf_shared_leave_function(void)
{
	CUresult status = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	if (twins)
		status = send_all();
	if (twins && !status)
		status = bf_twins_arrive();
	pthread_mutex_unlock(&lock);
	bf_fail_later(status);
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
	for (twin = twins; twin && twin->parent != parent; twin = twin->next)
		;
	pthread_mutex_unlock(&lock);
	if (!twin)
		return;
	bf_shared_wait_for_all();
	pthread_mutex_lock(&lock);
	for (twin = twins; twin; twin = next) {
		next = twin->next;
		if (twin->parent != parent)
			continue;
		forget(twin);
		bf_twin_free(twin, true);
	}
	pthread_mutex_unlock(&lock);
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
	for (struct bf_twin *twin = twins; twin; twin = next) {
		next = twin->next;
		if (twin->carrier && twin->carrier->context == context)
			end_twin(twin);
	}
	bf_carriers_end(context);
	bf_flight_settle(0, context, UINT64_MAX);
	pthread_mutex_unlock(&lock);
}
