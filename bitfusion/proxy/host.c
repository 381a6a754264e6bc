/* SPDX-License-Identifier: Apache-2.0
 *
 * Pinned host memory: ordinary memory of this process that the map knows of. What it is for is copies, and those
 * may finish later than they are called. It becomes shared (shared.h) when a kernel is given its address.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "late.h"
#include "shared.h"

#include <sys/mman.h>

#define PAGE ((size_t)4096)

static CUresult check(void)
{
	CUresult status = bf_check();

	return status ? status : bf_context_check();
}

static CUresult add_host(void *memory, size_t size, enum bf_range_kind kind, unsigned flags)
{
	struct bf_range range = { .base = BF_ARG(memory),
				  .size = size,
				  .kind = kind,
				  .context = bf_self.current,
				  .device = bf_context_at(bf_self.current)->device,
				  .flags = flags };

	return bf_map_add(&range);
}

static CUresult take(size_t size, void **memory)
{
	*memory = bf_arena_take(size);
	if (*memory)
		return CUDA_SUCCESS;
	*memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return *memory == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

/* Without addresses of the server's there is no twin, and a kernel that is given the memory faults. */
static void give(void *memory, size_t size)
{
	if (bf_arena_holds(memory))
		bf_arena_give(memory, size);
	else
		munmap(memory, size);
}

BF_EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
	size_t size = (bytesize + PAGE - 1) & ~(PAGE - 1);
	CUresult status = check();
	void *memory;

	if (status)
		return status;
	if (!pp || Flags & ~(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED))
		return CUDA_ERROR_INVALID_VALUE;
	if (!bytesize) {
		*pp = NULL;
		return CUDA_SUCCESS;
	}
	if (size < bytesize)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = bf_capture_permit();
	if (!status)
		status = take(size, &memory);
	if (status)
		return status;
	status = add_host(memory, bytesize, BF_RANGE_PINNED, Flags);
	if (status)
		give(memory, size);
	else
		*pp = memory;
	return status;
}

BF_EXPORT CUresult cuMemAllocHost_v2(void **pp, size_t bytesize)
{
	return cuMemHostAlloc(pp, bytesize, 0);
}

static CUresult wait_for_stream(uint64_t stream)
{
	/* a stream that has been destroyed still does what it had to do */
	if (bf_stream_check((CUstream)(uintptr_t)stream))
		return BF_CALL(cuCtxSynchronize);
	return BF_CALL(cuStreamSynchronize, stream);
}

/* Before memory stops being pinned: copies that are under way have it. */
static void release(const void *data, size_t size)
{
	uint64_t stream;

	if (bf_host_settle(data, size)) /* a stream that failed says no more about them */
		bf_reply_until_written(data, size);
	while (bf_late_reads(data, size, &stream)) {
		wait_for_stream(stream);
		bf_late_forget(data, size, stream);
	}
}

BF_EXPORT CUresult cuMemFreeHost(void *p)
{
	CUresult status = bf_check();
	struct bf_range range;

	if (!status && p)
		status = bf_capture_permit();
	if (status || !p)
		return status;
	status = bf_context_check();
	if (status)
		return status;
	if (!bf_map_find(BF_ARG(p), &range) || range.kind != BF_RANGE_PINNED || range.base != BF_ARG(p))
		return CUDA_ERROR_INVALID_VALUE;
	release(p, range.size);
	bf_shared_drop(&range);
	if (!bf_map_remove(BF_ARG(p), 1u << BF_RANGE_PINNED, &range))
		return CUDA_ERROR_INVALID_VALUE;
	give(p, (range.size + PAGE - 1) & ~(PAGE - 1));
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
	CUresult status = check();

	if (status)
		return status;
	if (!p || !bytesize ||
	    Flags & ~(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY |
		      CU_MEMHOSTREGISTER_READ_ONLY))
		return CUDA_ERROR_INVALID_VALUE;
	if (Flags & CU_MEMHOSTREGISTER_IOMEMORY)
		return CUDA_ERROR_NOT_SUPPORTED;
	status = bf_capture_permit();
	return status ? status : add_host(p, bytesize, BF_RANGE_REGISTERED, Flags);
}

BF_EXPORT CUresult cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
	return cuMemHostRegister_v2(p, bytesize, Flags);
}

BF_EXPORT CUresult cuMemHostUnregister(void *p)
{
	CUresult status = bf_check();
	struct bf_range range;

	if (!status)
		status = bf_capture_permit();
	if (status)
		return status;
	if (!bf_map_find(BF_ARG(p), &range) || range.kind != BF_RANGE_REGISTERED || range.base != BF_ARG(p) ||
	    range.parent)
		return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	release(p, range.size);
	bf_shared_drop(&range);
	bf_map_remove(BF_ARG(p), 1u << BF_RANGE_REGISTERED, NULL);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
	CUresult status = check();
	struct bf_range range;

	if (status)
		return status;
	if (!pFlags || !bf_map_find(BF_ARG(p), &range) || range.kind != BF_RANGE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	*pFlags = range.flags | CU_MEMHOSTALLOC_DEVICEMAP; /* where there is one address space, all of it is */
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
	CUresult status = check();
	struct bf_range range;

	if (status)
		return status;
	if (!pdptr || !p || Flags || !bf_map_find(BF_ARG(p), &range) || !bf_range_is_host(&range))
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_shared_touch(BF_ARG(p));
	if (!status && !bf_shared_find(p, 1, pdptr))
		status = CUDA_ERROR_INVALID_VALUE;
	return status;
}

bool bf_host_is_pinned(const void *data)
{
	struct bf_range range;

	return bf_map_find(BF_ARG(data), &range) && bf_range_is_host(&range);
}

/* Before the host reads, or gives away, memory that copies under way still write. */
CUresult bf_host_settle(const void *data, size_t size)
{
	uint64_t stream;

	while (bf_reply_writes(data, size, &stream)) {
		CUresult status = wait_for_stream(stream);

		if (status)
			return status;
	}
	return CUDA_SUCCESS;
}

/* Before the host reads memory in place of a stream. A host function may write anything, but only those before
 * this point of the stream count: any other may be waiting for the very thread that calls. */
CUresult bf_host_settle_before(const void *data, size_t size, CUstream stream)
{
	CUresult status = CUDA_SUCCESS;

	if (BF_UNLIKELY(bf_callback_pending()) && !bf_self.in_callback)
		status = bf_stream_wait(stream);
	return status ? status : bf_host_settle(data, size);
}
