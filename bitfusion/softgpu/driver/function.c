/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of modules: what can be asked of them and told them.
 */
#include "driver.h"

static struct function *get(CUfunction handle)
{
	return object_get(handle, OBJECT_FUNCTION);
}

/* A function, or the function that a kernel is in the calling thread's context; it may not be loaded yet. */
static CUresult enter_unloaded(CUfunction handle, struct function **function)
{
	ENTER_CONTEXT(context);
	*function = get(handle);
	return *function ? CUDA_SUCCESS : function_find(handle, context, function);
}

static CUresult enter(CUfunction handle, struct function **function)
{
	TRY(enter_unloaded(handle, function));
	return function_load(*function);
}

/* Those that are a matter of the code alone. */
CUresult kernel_attribute(const struct sg_kernel *code, int max_dynamic, CUfunction_attribute attribute, int *value)
{
	switch ((int)attribute) {
	case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = (int)code->max_threads; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = (int)code->static_shared; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES: *value = (int)code->const_bytes; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = (int)code->local_bytes; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = (int)code->registers; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_PTX_VERSION: *value = code->target; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = 10 * COMPUTE_MAJOR + COMPUTE_MINOR; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = max_dynamic; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = -1; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
		*value = code->required_cluster[0] || code->explicit_cluster;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
		*value = (int)code->required_cluster[attribute - CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH];
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
	case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
	case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE: *value = 0; return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult function_attribute(const struct function *function, CUfunction_attribute attribute, int *value)
{
	switch ((int)attribute) {
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = function->carveout; return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
		*value = function->cluster_nonportable;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
		if (!function->code->required_cluster[0]) {
			*value = function->cluster[attribute - CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH];
			return CUDA_SUCCESS;
		}
		return kernel_attribute(function->code, function->max_dynamic_shared, attribute, value);
	default: return kernel_attribute(function->code, function->max_dynamic_shared, attribute, value);
	}
}

CUresult function_set_attribute(struct function *function, CUfunction_attribute attribute, int value)
{
	switch ((int)attribute) {
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
		if (value < 0 || (uint32_t)value + function->code->static_shared > OPTIN_SHARED) {
			driver_debug("a block has at most %d bytes of shared memory: not %d beside the kernel's own %u",
				     OPTIN_SHARED, value, function->code->static_shared);
			return CUDA_ERROR_INVALID_VALUE;
		}
		function->max_dynamic_shared = value;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
		if (value < -1 || value > 100)
			return CUDA_ERROR_INVALID_VALUE;
		function->carveout = value;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
		function->cluster_nonportable = value != 0;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
		if (function->code->required_cluster[0])
			return CUDA_ERROR_NOT_PERMITTED;
		if (value < 0)
			return CUDA_ERROR_INVALID_VALUE;
		function->cluster[attribute - CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH] = value;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE: return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
	struct function *function;
	TRY(enter(hfunc, &function));
	return pi ? function_attribute(function, attrib, pi) : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
	struct function *function;
	TRY(enter(hfunc, &function));
	return function_set_attribute(function, attrib, value);
}

EXPORT CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
	struct function *function;
	TRY(enter(hfunc, &function));
	function->cache_config = config;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
	struct function *function;
	(void)config;
	return enter(hfunc, &function);
}

EXPORT CUresult cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
	struct function *function;
	TRY(enter_unloaded(hfunc, &function));
	if (!hmod)
		return CUDA_ERROR_INVALID_VALUE;
	*hmod = (CUmodule)function->module;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncGetName(const char **name, CUfunction hfunc)
{
	struct function *function;
	TRY(enter_unloaded(hfunc, &function));
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	*name = image_kernel_name(function->module->image, function->index);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct function *function;
	TRY(enter_unloaded(func, &function));
	return image_parameter(function->module->image, function->index, paramIndex, paramOffset, paramSize);
}

EXPORT CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function_handle)
{
	struct function *function;
	TRY(enter_unloaded(function_handle, &function));
	if (!state)
		return CUDA_ERROR_INVALID_VALUE;
	*state = image_is_loaded(function->module->image, function->index) ? CU_FUNCTION_LOADING_STATE_LOADED
									   : CU_FUNCTION_LOADING_STATE_UNLOADED;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncLoad(CUfunction function_handle)
{
	struct function *function;
	return enter(function_handle, &function);
}

/* ------------------------------------------------------------------ kernels of libraries */

static CUresult enter_kernel(CUkernel handle, struct kernel **kernel)
{
	ENTER();
	*kernel = object_get(handle, OBJECT_KERNEL);
	return *kernel ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static int dynamic_limit(const struct kernel *kernel, const struct sg_kernel *code, int device)
{
	if (kernel->set[device])
		return kernel->max_dynamic_shared[device];
	int left = STATIC_SHARED - (int)code->static_shared;
	return left < 0 ? 0 : left;
}

EXPORT CUresult cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel handle, CUdevice dev)
{
	struct kernel *kernel;
	TRY(enter_kernel(handle, &kernel));
	if (!pi)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_get(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	const struct sg_kernel *code;
	TRY(image_kernel(kernel->library->image, kernel->index, NULL, &code));
	return kernel_attribute(code, dynamic_limit(kernel, code, dev), attrib, pi);
}

EXPORT CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel handle, CUdevice dev)
{
	struct kernel *kernel;
	struct function scratch = { .carveout = -1 };
	TRY(enter_kernel(handle, &kernel));
	if (!device_get(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	TRY(image_kernel(kernel->library->image, kernel->index, NULL, &scratch.code));
	TRY(function_set_attribute(&scratch, attrib, val));
	if (attrib == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
		kernel->max_dynamic_shared[dev] = val;
		kernel->set[dev] = 1;
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuKernelSetCacheConfig(CUkernel handle, CUfunc_cache config, CUdevice dev)
{
	struct kernel *kernel;
	TRY(enter_kernel(handle, &kernel));
	(void)config;
	return device_get(dev) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuKernelGetFunction(CUfunction *pFunc, CUkernel handle)
{
	struct kernel *kernel;
	struct function *function;
	TRY(enter_kernel(handle, &kernel));
	ENTER_CONTEXT(context);
	if (!pFunc)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(function_find((CUfunction)handle, context, &function));
	*pFunc = (CUfunction)function;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuKernelGetLibrary(CUlibrary *pLib, CUkernel handle)
{
	struct kernel *kernel;
	TRY(enter_kernel(handle, &kernel));
	if (!pLib)
		return CUDA_ERROR_INVALID_VALUE;
	*pLib = (CUlibrary)kernel->library;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuKernelGetName(const char **name, CUkernel hfunc)
{
	struct kernel *kernel;
	if (object_get(hfunc, OBJECT_FUNCTION))
		return cuFuncGetName(name, (CUfunction)hfunc);
	TRY(enter_kernel(hfunc, &kernel));
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	*name = image_kernel_name(kernel->library->image, kernel->index);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuKernelGetParamInfo(CUkernel handle, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct kernel *kernel;
	TRY(enter_kernel(handle, &kernel));
	return image_parameter(kernel->library->image, kernel->index, paramIndex, paramOffset, paramSize);
}
