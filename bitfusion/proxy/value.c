/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams that write values to memory, and wait for them. They are rows; what is added here is that the memory may
 * be the program's too.
 */
#define _GNU_SOURCE
#include "shared.h"

enum { MOST_OPERATIONS = 256 };

static CUresult send(unsigned call, CUstream stream, const uint64_t args[4])
{
	bool shared = bf_shared_in_use();
	CUresult status = shared ? bf_shared_before(stream, true) : CUDA_SUCCESS;

	if (status)
		return status;
	status = bf_call(call, args);
	if (shared)
		bf_shared_after(stream);
	return status;
}

static CUresult one(unsigned call, CUstream stream, CUdeviceptr address, uint64_t value, unsigned flags,
		    bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status && bf_shared_in_use())
		status = bf_shared_touch_words(&address, sizeof address);
	return status ? status : send(call, stream, (const uint64_t[]){ BF_ARG(stream), address, value, flags });
}

#define VALUE(name, type) \
	BF_EXPORT CUresult name(CUstream stream, CUdeviceptr addr, type value, unsigned int flags) \
	{ \
		return one(BF_##name, stream, addr, value, flags, false); \
	} \
	BF_EXPORT CUresult name##_ptsz(CUstream stream, CUdeviceptr addr, type value, unsigned int flags) \
	{ \
		return one(BF_##name, stream, addr, value, flags, true); \
	}

VALUE(cuStreamWriteValue32_v2, cuuint32_t)
VALUE(cuStreamWriteValue64_v2, cuuint64_t)
VALUE(cuStreamWaitValue32_v2, cuuint32_t)
VALUE(cuStreamWaitValue64_v2, cuuint64_t)

/* Both kinds of operation with an address have it in the same place. */
static CUresult touch(const CUstreamBatchMemOpParams *item)
{
	switch ((int)item->operation) {
	case CU_STREAM_MEM_OP_WAIT_VALUE_32:
	case CU_STREAM_MEM_OP_WAIT_VALUE_64:
	case CU_STREAM_MEM_OP_WRITE_VALUE_32:
	case CU_STREAM_MEM_OP_WRITE_VALUE_64:
		return bf_shared_touch_words(&item->waitValue.address, sizeof item->waitValue.address);
	default: return CUDA_SUCCESS;
	}
}

static CUresult several(CUstream stream, unsigned count, CUstreamBatchMemOpParams *items, unsigned flags,
			bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status && (count > MOST_OPERATIONS || (count && !items)))
		status = CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count && !status && bf_shared_in_use(); i++)
		status = touch(&items[i]);
	return status ? status
		      : send(BF_cuStreamBatchMemOp_v2, stream,
			     (const uint64_t[]){ BF_ARG(stream), count, BF_ARG(items), flags });
}

BF_EXPORT CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned int count, CUstreamBatchMemOpParams *paramArray,
					 unsigned int flags)
{
	return several(stream, count, paramArray, flags, false);
}

BF_EXPORT CUresult cuStreamBatchMemOp_v2_ptsz(CUstream stream, unsigned int count, CUstreamBatchMemOpParams *paramArray,
					      unsigned int flags)
{
	return several(stream, count, paramArray, flags, true);
}
