/* SPDX-License-Identifier: Apache-2.0
 *
 * A kernel's fault stays with its context: every call that needs the context fails with it from then on. Calls
 * that are sent and forgotten cannot learn that from the server, so it is remembered here.
 */
#define _GNU_SOURCE
#include "proxy.h"

bool bf_is_fault(CUresult status)
{
	switch (status) {
	case CUDA_ERROR_ECC_UNCORRECTABLE:
	case CUDA_ERROR_NVLINK_UNCORRECTABLE:
	case CUDA_ERROR_ILLEGAL_ADDRESS:
	case CUDA_ERROR_LAUNCH_TIMEOUT:
	case CUDA_ERROR_ASSERT:
	case CUDA_ERROR_HARDWARE_STACK_ERROR:
	case CUDA_ERROR_ILLEGAL_INSTRUCTION:
	case CUDA_ERROR_MISALIGNED_ADDRESS:
	case CUDA_ERROR_INVALID_ADDRESS_SPACE:
	case CUDA_ERROR_INVALID_PC:
	case CUDA_ERROR_LAUNCH_FAILED: return true;
	default: return false;
	}
}

CUresult bf_fault_of(uint32_t index)
{
	const struct bf_context *context = bf_context_at(index);

	return context ? (CUresult)atomic_load_explicit(&context->fault, memory_order_relaxed) : CUDA_SUCCESS;
}

/* What waited may have been of another context than the current one, so the current one is asked. */
void bf_fault_note(CUresult status)
{
	static __thread bool asking;
	struct bf_context *context = bf_context_at(bf_self.current);
	CUresult own;

	if (!bf_is_fault(status) || asking || !context || atomic_load(&context->fault))
		return;
	asking = true;
	own = BF_CALL(cuStreamQuery, BF_ARG(CU_STREAM_LEGACY));
	asking = false;
	if (bf_is_fault(own))
		atomic_store(&context->fault, own);
}
