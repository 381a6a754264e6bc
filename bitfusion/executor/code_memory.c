/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory that code takes for its variables counts against the slice as well. No call of the driver names it, so it is
 * the difference in what this process uses around the call that loads the code, less what it allocated or freed
 * meanwhile. Where that cannot be known (process_memory.c), or while something is being given back (reaper.c), nothing
 * is counted: better that than to charge a session for its neighbours. What streams have yet to free (freed.c), and what
 * pools keep of it (reserve.c), counts, so it may come and go meanwhile.
 */
#include "core.h"

/* Drivers load kernels into arenas of their own, in steps; what is smaller is not the program's variables. */
enum { LEAST = 1 << 20, MOST_TRIES = 4 };

/* What this worker has allocated by the client's calls. */
static uint64_t allocated(struct bf_session *session, int device)
{
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	bf_ledger_used(session->ledger, (int32_t)session->options.slot, used, BF_MAX_DEVICES);
	return used[device];
}

/* Both at one moment, as others allocate and wait meanwhile; false: there was none. */
static bool measure(struct bf_session *session, struct bf_code_memory *now)
{
	for (int tries = 0; tries < MOST_TRIES; tries++) {
		bf_freed_look(session);
		if (bf_reap_pending(session) || !bf_reserve_exact(session, (uint32_t)now->device))
			return false;
		now->allocated = allocated(session, now->device);
		if (!bf_process_memory(session, now->device, &now->used))
			return false;
		bf_reserve_update(session);
		if (allocated(session, now->device) == now->allocated)
			return true;
	}
	return false;
}

void bf_code_measure(struct bf_session *session, struct bf_code_memory *before)
{
	before->device = -1;
	if (session->ledger)
		bf_context_device(session, &before->device);
	if (before->device >= 0 && !measure(session, before))
		before->device = -1;
}

static uint64_t taken(struct bf_session *session, const struct bf_code_memory *before)
{
	struct bf_code_memory now = { .device = before->device };
	if (!measure(session, &now))
		return 0;
	int64_t more = (int64_t)(now.used - before->used);
	int64_t ours = (int64_t)(now.allocated - before->allocated);
	return more - ours >= LEAST ? (uint64_t)(more - ours) : 0;
}

CUresult bf_code_charge(struct bf_session *session, const struct bf_code_memory *before, uint64_t handle,
			uint32_t context)
{
	uint64_t size = before->device < 0 ? 0 : taken(session, before);
	struct bf_allocation known = { handle, 0, (uint32_t)before->device, context, false };
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
