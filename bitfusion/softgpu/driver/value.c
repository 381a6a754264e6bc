/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams that wait for values in memory, and write them.
 */
#include "queue.h"
#include "memory.h"

static CUresult check(const struct value_work *value, int wait)
{
	if (value->address % (unsigned)(value->bits / 8))
		return CUDA_ERROR_INVALID_VALUE;
	if (value->flags &
	    ~(wait ? 3u | CU_STREAM_WAIT_VALUE_FLUSH : (unsigned)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER))
		return CUDA_ERROR_INVALID_VALUE;
	if (value->flags & CU_STREAM_WAIT_VALUE_FLUSH && wait)
		return CUDA_ERROR_NOT_SUPPORTED;
	return memory_check_device(value->address, (unsigned)value->bits / 8);
}

static CUresult submit_value(CUstream handle, enum work_kind kind, struct value_work value)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	TRY(check(&value, kind == WORK_WAIT_VALUE));
	struct work *work = work_new(kind, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->value = value;
	return submit(stream, work, 0);
}

EXPORT CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value, unsigned int flags)
{
	return submit_value(stream, WORK_WAIT_VALUE, (struct value_work){ addr, value, flags, 32 });
}

EXPORT CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value, unsigned int flags)
{
	return submit_value(stream, WORK_WAIT_VALUE, (struct value_work){ addr, value, flags, 64 });
}

EXPORT CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value, unsigned int flags)
{
	return submit_value(stream, WORK_WRITE_VALUE, (struct value_work){ addr, value, flags, 32 });
}

EXPORT CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value, unsigned int flags)
{
	return submit_value(stream, WORK_WRITE_VALUE, (struct value_work){ addr, value, flags, 64 });
}

static CUresult one(CUstream stream, const CUstreamBatchMemOpParams *item)
{
	switch ((int)item->operation) {
	case CU_STREAM_MEM_OP_WAIT_VALUE_32:
		return cuStreamWaitValue32_v2(stream, item->waitValue.address, item->waitValue.value,
					      item->waitValue.flags);
	case CU_STREAM_MEM_OP_WAIT_VALUE_64:
		return cuStreamWaitValue64_v2(stream, item->waitValue.address, item->waitValue.value64,
					      item->waitValue.flags);
	case CU_STREAM_MEM_OP_WRITE_VALUE_32:
		return cuStreamWriteValue32_v2(stream, item->writeValue.address, item->writeValue.value,
					       item->writeValue.flags);
	case CU_STREAM_MEM_OP_WRITE_VALUE_64:
		return cuStreamWriteValue64_v2(stream, item->writeValue.address, item->writeValue.value64,
					       item->writeValue.flags);
	case CU_STREAM_MEM_OP_BARRIER:
	case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES: return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned int count, CUstreamBatchMemOpParams *paramArray,
				      unsigned int flags)
{
	ENTER();
	if (flags || (count && !paramArray) || count > 256)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++)
		TRY(one(stream, &paramArray[i]));
	return CUDA_SUCCESS;
}
