/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of contexts for which the driver takes memory: the heap of kernels, the buffer of what they print, their
 * stacks. What a program asks for beyond what its context began with counts against the slice, as long as the context
 * lives.
 */
#include "ledger.h"
#include "reserve.h"

#include <stdlib.h>

struct bf_limit {
	struct bf_limit *next;
	uint32_t context, device;
	CUlimit limit;
	uint64_t first, counted; /* bytes */
};

void bf_limits_init(struct bf_session *session)
{
	pthread_mutex_init(&session->limits.lock, NULL);
}

/* Every thread that the device can run has a stack. */
static uint64_t threads_of(struct bf_session *session, int device)
{
	int processors = 0, threads = 0;
	CUdevice ordinal = session->ordinal[device];
	session->driver->cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, ordinal);
	session->driver->cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, ordinal);
	return processors > 0 && threads > 0 ? (uint64_t)processors * (uint64_t)threads : 0;
}

static uint64_t bytes_of(struct bf_session *session, int device, CUlimit limit, uint64_t value)
{
	uint64_t bytes;
	if (limit != CU_LIMIT_STACK_SIZE)
		return value;
	return __builtin_mul_overflow(value, threads_of(session, device), &bytes) ? UINT64_MAX : bytes;
}

/* NULL without memory for it. With the lock held. */
static struct bf_limit *limit_of(struct bf_limits *limits, const struct bf_limit *wanted)
{
	struct bf_limit *found = limits->first;
	while (found && (found->context != wanted->context || found->limit != wanted->limit))
		found = found->next;
	if (found)
		return found;
	found = malloc(sizeof(*found));
	if (!found)
		return NULL;
	*found = *wanted;
	found->next = limits->first;
	limits->first = found;
	return found;
}

/* Counts so many bytes; whatever they are where the driver has taken them already. */
static CUresult count(struct bf_session *session, const struct bf_limit *wanted, uint64_t bytes, bool taken)
{
	const uint32_t slot = session->options.slot;
	CUresult status = CUDA_SUCCESS;
	pthread_mutex_lock(&session->limits.lock);
	struct bf_limit *known = limit_of(&session->limits, wanted);
	uint64_t now = known && bytes > known->first ? bytes - known->first : 0;
	if (!known)
		status = CUDA_ERROR_OUT_OF_MEMORY;
	else if (now > known->counted && taken)
		bf_ledger_take(session->ledger, slot, known->device, now - known->counted);
	else if (now > known->counted)
		status = bf_memory_reserve(session, known->device, now - known->counted);
	else if (taken)
		bf_ledger_release(session->ledger, slot, known->device, known->counted - now);
	if (status == CUDA_SUCCESS && (taken || now > known->counted))
		known->counted = now;
	pthread_mutex_unlock(&session->limits.lock);
	return status;
}

/* More than there is: the driver has its own words for that. */
static bool is_absurd(struct bf_session *session, int device, uint64_t bytes)
{
	size_t total;
	return session->driver->cuCtxSetLimit &&
	       session->driver->cuDeviceTotalMem_v2(&total, session->ordinal[device]) == CUDA_SUCCESS && bytes > total;
}

static CUresult set_counted(struct bf_session *session, struct bf_frame *frame, int device, size_t value)
{
	CUlimit limit = (CUlimit)frame->argument[0];
	const struct bf_limit wanted = { .context = bf_context_index(),
					 .device = (uint32_t)device,
					 .limit = limit,
					 .first = bytes_of(session, device, limit, value) };
	uint64_t bytes = bytes_of(session, device, limit, frame->argument[1]);
	CUresult status = count(session, &wanted, bytes, false);
	if (status != CUDA_SUCCESS && !is_absurd(session, device, bytes))
		return status;
	CUresult reserved = status;
	status = bf_invoke(frame);
	if (status == CUDA_SUCCESS && reserved != CUDA_SUCCESS) {
		session->driver->cuCtxSetLimit(limit, value);
		status = reserved;
	}
	/* as it was after a failure, and perhaps another one than was asked for */
	if (session->driver->cuCtxGetLimit(&value, limit) == CUDA_SUCCESS)
		count(session, &wanted, bytes_of(session, device, limit, value), true);
	return status;
}

/* (CUlimit limit, size_t value) */
CUresult bf_limit_set(struct bf_session *session, struct bf_frame *frame)
{
	CUlimit limit = (CUlimit)frame->argument[0];
	bool takes = limit == CU_LIMIT_STACK_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE ||
		     limit == CU_LIMIT_MALLOC_HEAP_SIZE;
	size_t value;
	int device;
	if (!takes || !session->driver->cuCtxGetLimit || bf_context_device(session, &device) != CUDA_SUCCESS ||
	    !bf_memory_limited(session, (uint32_t)device) ||
	    session->driver->cuCtxGetLimit(&value, limit) != CUDA_SUCCESS)
		return bf_invoke(frame);
	return set_counted(session, frame, device, value);
}

void bf_limits_end_context(struct bf_session *session, uint32_t context)
{
	pthread_mutex_lock(&session->limits.lock);
	for (struct bf_limit **link = &session->limits.first, *limit; (limit = *link);) {
		if (limit->context != context) {
			link = &limit->next;
			continue;
		}
		*link = limit->next;
		bf_memory_refund(session, (int)limit->device, limit->counted);
		free(limit);
	}
	pthread_mutex_unlock(&session->limits.lock);
}
