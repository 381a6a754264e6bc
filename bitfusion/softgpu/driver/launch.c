/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernel launches: checks, parameters, attributes.
 */
#include "queue.h"

#include <stdlib.h>
#include <string.h>

static int dimensions_fit(const uint32_t grid[3], const uint32_t block[3])
{
	static const uint32_t largest_grid[3] = { 2147483647, 65535, 65535 }, largest_block[3] = { 1024, 1024, 64 };
	uint64_t threads = 1;
	for (int i = 0; i < 3; i++) {
		if (!grid[i] || grid[i] > largest_grid[i] || !block[i] || block[i] > largest_block[i])
			return 0;
		threads *= block[i];
	}
	return threads <= MAX_BLOCK_THREADS;
}

CUresult launch_check_shape(const uint32_t grid[3], const uint32_t block[3], const void *caller)
{
	if (dimensions_fit(grid, block))
		return CUDA_SUCCESS;
	driver_debug("no launch: no GPU has blocks of %u x %u x %u threads in a grid of %u x %u x %u", block[0],
		     block[1], block[2], grid[0], grid[1], grid[2]);
	return abi_impossible_shape(caller);
}

/* Packs what `parameters` or `extra` give into the kernel's parameter block. */
static CUresult pack(const struct sg_kernel *code, void **parameters, void **extra, unsigned char *block)
{
	if (!parameters && extra) {
		const void *buffer = NULL;
		size_t size = 0;
		for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
			if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
				buffer = extra[1];
			else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
				size = *(size_t *)extra[1];
			else
				return CUDA_ERROR_INVALID_VALUE;
		}
		if (size < code->parameters_size || (size && !buffer))
			return CUDA_ERROR_INVALID_VALUE;
		if (size)
			memcpy(block, buffer, code->parameters_size);
		return CUDA_SUCCESS;
	}
	if (code->parameter_count && (!parameters || extra))
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < code->parameter_count; i++) {
		if (!parameters[i])
			return CUDA_ERROR_INVALID_VALUE;
		memcpy(block + code->parameters[i].offset, parameters[i], code->parameters[i].size);
	}
	return CUDA_SUCCESS;
}

static CUresult check_block(const struct function *function, const uint32_t block[3], uint32_t dynamic_shared)
{
	const struct sg_kernel *code = function->code;
	uint32_t threads = block[0] * block[1] * block[2];
	if (dynamic_shared > (uint32_t)function->max_dynamic_shared) {
		driver_debug("no launch: %u bytes of dynamic shared memory, and the kernel may have %d", dynamic_shared,
			     function->max_dynamic_shared);
		return CUDA_ERROR_INVALID_VALUE;
	}
	if (threads > code->max_threads) {
		driver_debug("no launch: %u threads in a block, and the kernel takes %u", threads, code->max_threads);
		return CUDA_ERROR_INVALID_VALUE;
	}
	for (int i = 0; i < 3; i++)
		if (code->required_block[i] && code->required_block[i] != block[i]) {
			driver_debug("no launch: the kernel's .reqntid is not the size of the block");
			return CUDA_ERROR_INVALID_VALUE;
		}
	return CUDA_SUCCESS;
}

CUresult launch_prepare(struct context *context, CUfunction handle, const uint32_t grid[3], const uint32_t block[3],
			uint32_t dynamic_shared, void **parameters, void **extra, struct work **result)
{
	struct function *function;
	TRY(function_resolve(handle, context, &function));
	TRY(check_block(function, block, dynamic_shared));
	struct work *work = work_new(WORK_KERNEL, function->code->parameters_size);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct kernel_work *kernel = &work->kernel;
	kernel->function = function;
	kernel->handle = handle;
	memcpy(kernel->grid, grid, sizeof kernel->grid);
	memcpy(kernel->block, block, sizeof kernel->block);
	kernel->dynamic_shared = dynamic_shared;
	kernel->parameters = work->tail;
	kernel->size = function->code->parameters_size;
	CUresult status = pack(function->code, parameters, extra, work->tail);
	if (status == CUDA_SUCCESS)
		*result = work;
	else
		work_discard(work);
	return status;
}

static CUresult check_cooperative(const struct kernel_work *kernel)
{
	uint64_t blocks = (uint64_t)kernel->grid[0] * kernel->grid[1] * kernel->grid[2];
	unsigned threads = kernel->block[0] * kernel->block[1] * kernel->block[2];
	uint64_t fit = (uint64_t)function_blocks(kernel->function, threads, kernel->dynamic_shared) * SM_COUNT;
	if (blocks <= fit)
		return CUDA_SUCCESS;
	driver_debug("no launch: a cooperative grid of %llu blocks, and %llu fit at once", (unsigned long long)blocks,
		     (unsigned long long)fit);
	return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
}

static CUresult set_cluster(struct kernel_work *kernel, unsigned x, unsigned y, unsigned z)
{
	if (!x || !y || !z)
		return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	kernel->cluster[0] = x;
	kernel->cluster[1] = y;
	kernel->cluster[2] = z;
	return CUDA_SUCCESS;
}

/* Those that only advise are taken note of by doing nothing; those that change meaning must be carried out. */
static CUresult apply_attribute(struct kernel_work *kernel, const CUlaunchAttribute *attribute)
{
	const CUlaunchAttributeValue *value = &attribute->value;
	switch ((int)attribute->id) {
	case CU_LAUNCH_ATTRIBUTE_COOPERATIVE: kernel->cooperative = value->cooperative != 0; return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
		return set_cluster(kernel, value->clusterDim.x, value->clusterDim.y, value->clusterDim.z);
	case CU_LAUNCH_ATTRIBUTE_IGNORE:
	case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
	case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
	case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
	case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
	case CU_LAUNCH_ATTRIBUTE_PRIORITY:
	case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
	case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
	case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
	case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: return CUDA_SUCCESS;
	default: return CUDA_ERROR_NOT_SUPPORTED;
	}
}

/* Some libraries do not look at what a launch answers. Whatever is computed without this kernel is wrong, so the
 * context goes with it; the reason was told when the kernel was compiled in vain. */
static CUresult refuse(struct context *context, CUfunction handle, CUresult status)
{
	struct function *function;
	if (function_find(handle, context, &function) == CUDA_SUCCESS &&
	    image_is_broken(function->module->image, function->index))
		context_fail(context, CUDA_ERROR_LAUNCH_FAILED, NULL);
	return status;
}

static CUresult launch(CUfunction handle, const CUlaunchConfig *config, void **parameters, void **extra,
		       const void *caller)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(config->hStream, &context, &stream));
	const uint32_t grid[3] = { config->gridDimX, config->gridDimY, config->gridDimZ };
	const uint32_t block[3] = { config->blockDimX, config->blockDimY, config->blockDimZ };
	struct work *work;
	if (config->numAttrs && !config->attrs)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = launch_check_shape(grid, block, caller);
	if (result == CUDA_SUCCESS)
		result = launch_prepare(context, handle, grid, block, config->sharedMemBytes, parameters, extra, &work);
	if (result != CUDA_SUCCESS)
		return refuse(context, handle, result);
	for (unsigned i = 0; i < config->numAttrs && result == CUDA_SUCCESS; i++)
		result = apply_attribute(&work->kernel, &config->attrs[i]);
	if (result == CUDA_SUCCESS)
		result = cluster_prepare(&work->kernel);
	if (result == CUDA_SUCCESS && work->kernel.cooperative)
		result = check_cooperative(&work->kernel);
	if (result == CUDA_SUCCESS)
		return submit(stream, work, 0);
	work_discard(work);
	return result;
}

#define CALLER __builtin_return_address(0)

EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
			       unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
			       unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
	CUlaunchConfig config = { gridDimX,  gridDimY,       gridDimZ, blockDimX, blockDimY,
				  blockDimZ, sharedMemBytes, hStream,  NULL,      0 };
	return launch(f, &config, kernelParams, extra, CALLER);
}

EXPORT CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
				    unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
				    unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
	CUlaunchConfig config = { gridDimX,  gridDimY,  gridDimZ,       blockDimX,
				  blockDimY, blockDimZ, sharedMemBytes, PER_THREAD(hStream),
				  NULL,      0 };
	return launch(f, &config, kernelParams, extra, CALLER);
}

EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	return config ? launch(f, config, kernelParams, extra, CALLER) : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	CUlaunchConfig own = *config;
	own.hStream = PER_THREAD(config->hStream);
	return launch(f, &own, kernelParams, extra, CALLER);
}

static CUlaunchAttribute cooperative = { .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1 };

EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
					  unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
					  unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
					  void **kernelParams)
{
	CUlaunchConfig config = { gridDimX,  gridDimY,       gridDimZ, blockDimX,    blockDimY,
				  blockDimZ, sharedMemBytes, hStream,  &cooperative, 1 };
	return launch(f, &config, kernelParams, NULL, CALLER);
}

EXPORT CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
					       unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
					       unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
					       void **kernelParams)
{
	CUlaunchConfig config = { gridDimX,     gridDimY,  gridDimZ,       blockDimX,
				  blockDimY,    blockDimZ, sharedMemBytes, PER_THREAD(hStream),
				  &cooperative, 1 };
	return launch(f, &config, kernelParams, NULL, CALLER);
}

static CUresult host_function(CUstream handle, CUhostFn function, CUstreamCallback callback, void *data)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	if (!function && !callback)
		return CUDA_ERROR_INVALID_VALUE;
	struct work *work = work_new(WORK_HOST, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->host = (struct host_work){ function, callback, handle, data };
	return submit(stream, work, 0);
}

EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
	return host_function(hStream, fn, NULL, userData);
}

EXPORT CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)
{
	return flags ? CUDA_ERROR_INVALID_VALUE : host_function(hStream, NULL, callback, userData);
}
