/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory that code takes for its variables counts against the slice as well. No call of the driver names it, so it is
 * the difference in free memory around the call that loads the code, less what the session itself allocated or
 * freed meanwhile. What other sessions do on the same GPU in that moment is the error of this measure. While something
 * is being given back (reaper.c) the two numbers do not belong together, and nothing is counted.
 */
#include "core.h"

/* Drivers load kernels into arenas of their own, in steps; what is smaller is not the program's variables. */
enum { LEAST = 1 << 20 };

static uint64_t session_use(struct bf_session *session, int device)
{
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	bf_ledger_used(session->ledger, -1, used, BF_MAX_DEVICES);
	return used[device];
}

void bf_code_measure(struct bf_session *session, struct bf_code_memory *before)
{
	size_t total;
	before->device = session->ledger && !bf_reap_pending(session) ? bf_context_device(session) : -1;
	if (before->device < 0)
		return;
	before->used = session_use(session, before->device);
	if (session->driver->cuMemGetInfo_v2(&before->free, &total) != CUDA_SUCCESS)
		before->device = -1;
}

static uint64_t taken(struct bf_session *session, const struct bf_code_memory *before)
{
	size_t free, total;
	if (session->driver->cuMemGetInfo_v2(&free, &total) != CUDA_SUCCESS)
		return 0;
	int64_t lost = (int64_t)(before->free - free);
	int64_t ours = (int64_t)(session_use(session, before->device) - before->used);
	return lost - ours >= LEAST ? (uint64_t)(lost - ours) : 0;
}

CUresult bf_code_charge(struct bf_session *session, const struct bf_code_memory *before, uint64_t handle,
			uint32_t context)
{
	uint64_t size = before->device < 0 || bf_reap_pending(session) ? 0 : taken(session, before);
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
