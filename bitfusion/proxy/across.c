/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies that have to do with another GPU than the calling thread's, or with another context of it. CUDA puts one
 * that is not asynchronous behind all work of each of them, and all that they are given later behind it. A driver
 * would wait in the worker's issue thread, with every other thread's commands behind it; so the calling thread waits,
 * for each context and then for the copy.
 */
#define _GNU_SOURCE
#include "box.h"

static uint32_t alive(CUcontext context)
{
	return bf_context_find(context) ? BF_HANDLE_INDEX(BF_ARG(context)) : 0;
}

static CUcontext primary_of(CUdevice device)
{
	return bf_context_handle(bf_device_index(device) + 1);
}

/* Index of the context that has this memory; 0: it is the host's, or no one GPU's. */
static uint32_t owner(uint64_t address)
{
	struct bf_range range;

	if (!bf_map_find(address, &range) || bf_range_is_host(&range) || range.kind == BF_RANGE_MANAGED)
		return 0;
	return alive(range.context ? bf_context_handle(range.context) : primary_of(range.device));
}

static bool is_in_use(uint32_t index)
{
	const struct bf_context *context = bf_context_at(index);

	return context && bf_is_alive(&context->entry) &&
	       (!context->primary || atomic_load_explicit(&context->active, memory_order_relaxed));
}

static CUresult wait_for_both(uint32_t one, uint32_t other, bool *across)
{
	const uint32_t all[] = { bf_self.current, one, other };
	CUresult status = CUDA_SUCCESS;

	*across = (one && one != all[0]) || (other && other != all[0]);
	for (int i = 0; *across && i < 3 && !status; i++) {
		if ((i > 0 && all[i] == all[0]) || (i > 1 && all[i] == all[1]) || !is_in_use(all[i]))
			continue;
		status = cuCtxSynchronize_v2(bf_context_handle(all[i]));
	}
	return status;
}

/* One GPU and its primary context are all there is. */
static bool is_alone(void)
{
	return bf_device_count() < 2 && !bf_handle_count(BF_CONTEXT); /* of those that were created */
}

CUresult bf_across_begin(uint64_t to, uint64_t from, bool async, bool *across)
{
	*across = false;
	return async || is_alone() ? CUDA_SUCCESS : wait_for_both(owner(to), owner(from), across);
}

CUresult bf_across_begin_named(CUcontext to, CUcontext from, bool async, bool *across)
{
	uint32_t one = alive(to), other = alive(from);

	*across = false;
	if (!one || !other)
		return CUDA_ERROR_INVALID_CONTEXT;
	return async ? CUDA_SUCCESS : wait_for_both(one, other, across);
}

static uint32_t side_owner(const struct bf_side *side)
{
	const struct bf_entry *array = NULL;

	if (side->type != CU_MEMORYTYPE_ARRAY)
		return owner(BF_ARG(side->at));
	array = bf_handle_find(BF_ARRAY, BF_ARG(side->array));
	return array ? array->context : 0;
}

CUresult bf_across_begin_box(const struct bf_box *box, bool async, bool *across)
{
	*across = false;
	if (async || is_alone())
		return CUDA_SUCCESS;
	return wait_for_both(side_owner(&box->to), side_owner(&box->from), across);
}

CUresult bf_across_end(bool across, CUresult status, CUstream stream)
{
	return status || !across ? status : bf_stream_wait(stream);
}
