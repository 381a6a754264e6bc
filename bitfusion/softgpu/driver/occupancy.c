/* SPDX-License-Identifier: Apache-2.0
 *
 * How many blocks fit, by the limits that the device reports.
 */
#include "driver.h"

unsigned function_blocks(const struct function *function, unsigned threads, uint64_t dynamic_shared)
{
	if (!threads || threads > MAX_BLOCK_THREADS || threads > function->code->max_threads)
		return 0;
	return sg_occupancy(function->code, &device_limits, threads, dynamic_shared);
}

static CUresult enter(CUfunction handle, struct function **function)
{
	ENTER_CONTEXT(context);
	return function_resolve(handle, context, function);
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize,
								     size_t dynamicSMemSize, unsigned int flags)
{
	struct function *function;
	TRY(enter(func, &function));
	if (!numBlocks || blockSize <= 0 || (flags & ~(unsigned)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE))
		return CUDA_ERROR_INVALID_VALUE;
	*numBlocks = (int)function_blocks(function, (unsigned)blockSize, dynamicSMemSize);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize,
							    size_t dynamicSMemSize)
{
	return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, 0);
}

EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
							  CUoccupancyB2DSize blockSizeToDynamicSMemSize,
							  size_t dynamicSMemSize, int blockSizeLimit,
							  unsigned int flags)
{
	struct function *function;
	TRY(enter(func, &function));
	if (!minGridSize || !blockSize || blockSizeLimit < 0 || (flags & ~1u))
		return CUDA_ERROR_INVALID_VALUE;
	int limit = (int)function->code->max_threads, best = 0, best_blocks = 0;
	if (blockSizeLimit && blockSizeLimit < limit)
		limit = blockSizeLimit;
	/* the largest block of those that keep the most threads busy */
	for (int size = (limit + WARP - 1) / WARP * WARP; size > 0; size -= WARP) {
		int tried = size < limit ? size : limit;
		size_t shared = blockSizeToDynamicSMemSize ? blockSizeToDynamicSMemSize(tried) : dynamicSMemSize;
		int blocks = (int)function_blocks(function, (unsigned)tried, shared);
		if (blocks * tried > best * best_blocks) {
			best = tried;
			best_blocks = blocks;
		}
	}
	*blockSize = best;
	*minGridSize = best_blocks * SM_COUNT;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
						 CUoccupancyB2DSize blockSizeToDynamicSMemSize, size_t dynamicSMemSize,
						 int blockSizeLimit)
{
	return cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize,
							 dynamicSMemSize, blockSizeLimit, 0);
}

EXPORT CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamicSmemSize, CUfunction func, int numBlocks,
							int blockSize)
{
	struct function *function;
	TRY(enter(func, &function));
	if (!dynamicSmemSize || numBlocks <= 0 || blockSize <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	/* the largest size with which that many still fit */
	size_t fits = 0, step = OPTIN_SHARED;
	if (function_blocks(function, (unsigned)blockSize, 0) < (unsigned)numBlocks)
		return CUDA_ERROR_INVALID_VALUE;
	for (step = 1 << 17; step; step /= 2)
		if (fits + step <= (size_t)function->max_dynamic_shared &&
		    function_blocks(function, (unsigned)blockSize, fits + step) >= (unsigned)numBlocks)
			fits += step;
	*dynamicSmemSize = fits;
	return CUDA_SUCCESS;
}
