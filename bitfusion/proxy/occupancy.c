/* SPDX-License-Identifier: Apache-2.0
 *
 * Occupancy: the server's driver knows, and its answers are kept, because libraries ask the same again and again.
 */
#define _GNU_SOURCE
#include "proxy.h"

enum { SLOTS = 512 };

struct question {
	uint64_t function;
	uint64_t shared;
	uint32_t context;
	int threads;
	unsigned flags;
	int shared_limit; /* a change of this attribute changes the answer */
};

static struct {
	pthread_mutex_t lock;
	struct {
		struct question question;
		int blocks;
	} slot[SLOTS];
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

static unsigned slot_of(const struct question *question)
{
	uint64_t hash = question->function ^ question->shared * 0x9e3779b97f4a7c15u;

	hash = (hash ^ (uint64_t)question->threads << 20 ^ question->flags) * 0xff51afd7ed558ccdu;
	return (unsigned)(hash >> 32) % SLOTS;
}

static bool same(const struct question *a, const struct question *b)
{
	return a->function == b->function && a->shared == b->shared && a->context == b->context &&
	       a->threads == b->threads && a->flags == b->flags && a->shared_limit == b->shared_limit;
}

static bool look_up(const struct question *question, int *blocks)
{
	unsigned slot = slot_of(question);
	bool found;

	pthread_mutex_lock(&cache.lock);
	found = same(&cache.slot[slot].question, question);
	if (found)
		*blocks = cache.slot[slot].blocks;
	pthread_mutex_unlock(&cache.lock);
	return found;
}

static void remember(const struct question *question, int blocks)
{
	unsigned slot = slot_of(question);

	pthread_mutex_lock(&cache.lock);
	cache.slot[slot].question = *question;
	cache.slot[slot].blocks = blocks;
	pthread_mutex_unlock(&cache.lock);
}

static CUresult active_blocks(int *blocks, CUfunction handle, int threads, size_t shared, unsigned flags)
{
	struct question question = { BF_ARG(handle), shared, bf_self.current, threads, flags, 0 };
	const struct bf_function *function = bf_function_find(handle);
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	if (!blocks || threads <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!function)
		return CUDA_ERROR_INVALID_HANDLE;
	question.shared_limit = function->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES];
	if (look_up(&question, blocks))
		return CUDA_SUCCESS;
	status = BF_CALL(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, BF_ARG(blocks), BF_ARG(handle),
			 (uint64_t)threads, shared, flags);
	if (!status)
		remember(&question, *blocks);
	return status;
}

BF_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize,
							       size_t dynamicSMemSize)
{
	return active_blocks(numBlocks, func, blockSize, dynamicSMemSize, CU_OCCUPANCY_DEFAULT);
}

BF_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize,
									size_t dynamicSMemSize, unsigned int flags)
{
	return active_blocks(numBlocks, func, blockSize, dynamicSMemSize, flags);
}

BF_EXPORT CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamicSmemSize, CUfunction func, int numBlocks,
							   int blockSize)
{
	if (!bf_check() && (!dynamicSmemSize || numBlocks <= 0 || blockSize <= 0))
		return CUDA_ERROR_INVALID_VALUE;
	return BF_CALL(cuOccupancyAvailableDynamicSMemPerBlock, BF_ARG(dynamicSmemSize), BF_ARG(func),
		       (uint64_t)numBlocks, (uint64_t)blockSize);
}

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

/* The block size that keeps most threads of a multiprocessor busy; the larger one where several do. It is searched
 * here because the need for shared memory may be a function of the program's. */
BF_EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
							     CUoccupancyB2DSize blockSizeToDynamicSMemSize,
							     size_t dynamicSMemSize, int blockSizeLimit,
							     unsigned int flags)
{
	CUresult status = bf_check();
	int limit, warp, best = 0, best_size = 0, best_blocks = 0;
	CUdevice device;

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	if (!minGridSize || !blockSize)
		return CUDA_ERROR_INVALID_VALUE;
	status = cuFuncGetAttribute(&limit, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, func);
	if (status)
		return status;
	device = bf_context_at(bf_self.current)->device;
	warp = bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_WARP_SIZE);
	limit = smaller(limit, bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK));
	if (blockSizeLimit > 0)
		limit = smaller(limit, blockSizeLimit);
	for (int size = (limit + warp - 1) / warp * warp; size > 0; size -= warp) {
		int tried = smaller(size, limit), blocks;
		size_t shared = blockSizeToDynamicSMemSize ? blockSizeToDynamicSMemSize(tried) : dynamicSMemSize;

		status = active_blocks(&blocks, func, tried, shared, flags);
		if (status)
			return status;
		if (blocks * tried <= best)
			continue;
		best = blocks * tried;
		best_size = tried;
		best_blocks = blocks;
	}
	*blockSize = best_size;
	*minGridSize = best_blocks * bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
						    CUoccupancyB2DSize blockSizeToDynamicSMemSize,
						    size_t dynamicSMemSize, int blockSizeLimit)
{
	return cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize,
							 dynamicSMemSize, blockSizeLimit, CU_OCCUPANCY_DEFAULT);
}
