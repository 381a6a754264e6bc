/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory that code takes for its variables counts against the slice as well. No call of the driver names it, so it is
 * the difference in what this process uses around the call that loads the code, less what it allocated or freed
 * meanwhile. Where that cannot be known (process_memory.c), or while something is being given back (reaper.c, freed.c), nothing
 * is counted: better that than to charge a session for its neighbours.
 */
#include "core.h"

/* Drivers load kernels into arenas of their own, in steps; what is smaller is not the program's variables. */
enum { LEAST = 1 << 20 };

/* What this worker has allocated by the client's calls. */
static uint64_t allocated(struct bf_session *session, int device)
{
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	bf_ledger_used(session->ledger, (int32_t)session->options.slot, used, BF_MAX_DEVICES);
	return used[device];
}

void bf_code_measure(struct bf_session *session, struct bf_code_memory *before)
{
	before->device = -1;
	bf_freed_look(session);
	if (session->ledger && !bf_memory_coming(session))
		bf_context_device(session, &before->device);
	if (before->device < 0)
		return;
	before->allocated = allocated(session, before->device);
	if (!bf_process_memory(session, before->device, &before->used))
		before->device = -1;
}

static uint64_t taken(struct bf_session *session, const struct bf_code_memory *before)
{
	uint64_t used;
	if (!bf_process_memory(session, before->device, &used))
		return 0;
	int64_t more = (int64_t)(used - before->used);
	int64_t ours = (int64_t)(allocated(session, before->device) - before->allocated);
	return more - ours >= LEAST ? (uint64_t)(more - ours) : 0;
}

CUresult bf_code_charge(struct bf_session *session, const struct bf_code_memory *before, uint64_t handle,
			uint32_t context)
{
	uint64_t size = before->device < 0 || bf_memory_coming(session) ? 0 : taken(session, before);
	struct bf_allocation known = { handle, 0, (uint32_t)before->device, context };
	if (!size)
		return CUDA_SUCCESS;
	if (bf_ledger_reserve(session->ledger, session->options.slot, known.device, size) != 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	bf_memory_remove(session, handle, &known); /* a library takes memory in each context that uses it */
	known.size += size;
	if (bf_memory_add(session, &known))
		return CUDA_SUCCESS;
	bf_memory_refund(session, (int)known.device, known.size);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

void bf_code_refund(struct bf_session *session, uint64_t handle)
{
	struct bf_allocation known;
	if (bf_memory_remove(session, handle, &known))
		bf_memory_refund(session, (int)known.device, known.size);
}
