/* SPDX-License-Identifier: Apache-2.0
 *
 * What programs ask of functions and kernels, and tell them: answered from what came with the handle (function.c).
 */
#define _GNU_SOURCE
#include "proxy.h"

static CUresult find(uint64_t handle, struct bf_function **function)
{
	CUresult status = bf_check();

	if (status)
		return status;
	*function = bf_function_find((CUfunction)(uintptr_t)handle);
	return *function ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* A function is of a context, and a kernel of none: that one can be asked about after a fault, too. */
static CUresult find_function(CUfunction handle, struct bf_function **function)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	return status ? status : find(BF_ARG(handle), function);
}

static bool known(struct bf_function *function, int attribute, int *value)
{
	if (attribute < 0 || attribute >= BF_FUNCTION_ATTRIBUTES ||
	    !(atomic_load(&function->attribute_valid) >> attribute & 1))
		return false;
	*value = atomic_load_explicit(&function->attribute[attribute], memory_order_relaxed);
	return true;
}

BF_EXPORT CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
	struct bf_function *function;
	CUresult status = find_function(hfunc, &function);
	int value = 0;

	if (status)
		return status;
	if (!pi)
		return CUDA_ERROR_INVALID_VALUE;
	if (known(function, (int)attrib, pi))
		return CUDA_SUCCESS;
	if ((unsigned)attrib >= CU_FUNC_ATTRIBUTE_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	status = BF_CALL(cuFuncGetAttribute, BF_ARG(&value), attrib, BF_ARG(hfunc));
	if (!status)
		*pi = value;
	return status;
}

BF_EXPORT CUresult cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev)
{
	struct bf_function *function;
	CUresult status = find(BF_ARG(kernel), &function);

	if (status)
		return status;
	if (!pi)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bf_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (function->device == dev && known(function, (int)attrib, pi))
		return CUDA_SUCCESS;
	if ((unsigned)attrib >= CU_FUNC_ATTRIBUTE_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	return BF_CALL(cuKernelGetAttribute, BF_ARG(pi), attrib, BF_ARG(kernel), (uint64_t)dev);
}

/* The server checks the value; what was known of the function may follow from what is set. */
static CUresult set_attribute(struct bf_function *function, int attribute, int value, CUresult status)
{
	if (status || attribute < 0 || attribute >= BF_FUNCTION_ATTRIBUTES)
		return status;
	atomic_store_explicit(&function->attribute[attribute], value, memory_order_relaxed);
	atomic_fetch_or(&function->attribute_valid, 1u << attribute);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
	struct bf_function *function;
	CUresult status = find_function(hfunc, &function);

	if (!status)
		status = BF_CALL(cuFuncSetAttribute, BF_ARG(hfunc), attrib, (uint64_t)(int64_t)value);
	return status ? status : set_attribute(function, (int)attrib, value, status);
}

BF_EXPORT CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev)
{
	struct bf_function *function;
	CUresult status = find(BF_ARG(kernel), &function);

	if (!status)
		status = BF_CALL(cuKernelSetAttribute, attrib, (uint64_t)(int64_t)val, BF_ARG(kernel), (uint64_t)dev);
	if (!status && function->device == dev)
		set_attribute(function, (int)attrib, val, status);
	return status;
}

/* Preferences for caches and banks are hints that no device of today follows. */
BF_EXPORT CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
	struct bf_function *function;

	return find_function(hfunc, &function);
}

BF_EXPORT CUresult cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
	struct bf_function *function;

	return find_function(hfunc, &function);
}

BF_EXPORT CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
	struct bf_function *function;

	return find(BF_ARG(kernel), &function);
}

BF_EXPORT CUresult cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
	struct bf_function *function;
	CUresult status = find_function(hfunc, &function);

	if (status)
		return status;
	if (!hmod)
		return CUDA_ERROR_INVALID_VALUE;
	if (BF_HANDLE_KIND(function->parent) == BF_LIBRARY)
		return cuLibraryGetModule(hmod, (CUlibrary)(uintptr_t)function->parent);
	*hmod = (CUmodule)(uintptr_t)function->parent;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuKernelGetLibrary(CUlibrary *pLib, CUkernel kernel)
{
	struct bf_function *function;
	CUresult status = find(BF_ARG(kernel), &function);

	if (status)
		return status;
	if (!pLib || BF_HANDLE_KIND(function->parent) != BF_LIBRARY)
		return CUDA_ERROR_INVALID_VALUE;
	*pLib = (CUlibrary)(uintptr_t)function->parent;
	return CUDA_SUCCESS;
}

/* The function that a kernel is in the current context; its parent is the kernel's, so that it goes with it. */
BF_EXPORT CUresult cuKernelGetFunction(CUfunction *pFunc, CUkernel kernel)
{
	struct bf_function *function, *made;
	CUresult status = find(BF_ARG(kernel), &function);
	uint64_t handle;

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	if (!pFunc)
		return CUDA_ERROR_INVALID_VALUE;
	made = bf_handle_find(BF_FUNCTION, function->function);
	if (!made || made->entry.context != bf_self.current) {
		status = bf_function_get(BF_ARG(kernel), BF_FUNCTION, function->name ? function->name : "", &handle);
		if (status)
			return status;
		made = bf_handle_find(BF_FUNCTION, handle);
		if (made)
			made->parent = function->parent;
		function->function = handle;
	}
	*pFunc = (CUfunction)(uintptr_t)function->function;
	return CUDA_SUCCESS;
}

static CUresult get_name(const char **name, const struct bf_function *function)
{
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	*name = function->name;
	return *name ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

BF_EXPORT CUresult cuFuncGetName(const char **name, CUfunction hfunc)
{
	struct bf_function *function;
	CUresult status = find_function(hfunc, &function);

	return status ? status : get_name(name, function);
}

BF_EXPORT CUresult cuKernelGetName(const char **name, CUkernel hfunc)
{
	struct bf_function *function;
	CUresult status = find(BF_ARG(hfunc), &function);

	return status ? status : get_name(name, function);
}

static CUresult get_parameter(const struct bf_function *function, size_t index, size_t *offset, size_t *size)
{
	if (!offset || index >= function->parameter_count)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = function->parameters[index].offset;
	if (size)
		*size = function->parameters[index].size;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct bf_function *function;
	CUresult status = find_function(func, &function);

	return status ? status : get_parameter(function, paramIndex, paramOffset, paramSize);
}

BF_EXPORT CUresult cuKernelGetParamInfo(CUkernel kernel, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct bf_function *function;
	CUresult status = find(BF_ARG(kernel), &function);

	return status ? status : get_parameter(function, paramIndex, paramOffset, paramSize);
}

/* Where the server's driver loads code is its own affair: it is loaded when the server knows that it can be. */
BF_EXPORT CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
	struct bf_function *found;
	CUresult status = find_function(function, &found);

	if (status)
		return status;
	if (!state)
		return CUDA_ERROR_INVALID_VALUE;
	*state = bf_function_is_loaded(found) ? CU_FUNCTION_LOADING_STATE_LOADED : CU_FUNCTION_LOADING_STATE_UNLOADED;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuFuncLoad(CUfunction function)
{
	struct bf_function *found;
	CUresult status = find_function(function, &found);
	int registers;

	if (status || bf_function_is_loaded(found))
		return status;
	status = BF_CALL(cuFuncGetAttribute, BF_ARG(&registers), CU_FUNC_ATTRIBUTE_NUM_REGS, BF_ARG(function));
	if (!status)
		atomic_store(&found->loaded, true);
	return status;
}
