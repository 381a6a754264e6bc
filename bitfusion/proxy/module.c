/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "shared.h"

#include <stdlib.h>
#include <string.h>

static const struct bf_options no_options;

static CUresult check(void)
{
	CUresult status = bf_check();

	return status ? status : bf_context_check();
}

static CUresult load(CUmodule *module, const void *pointer, const char *path, const struct bf_options *options)
{
	CUresult status = check();

	if (status)
		return status;
	if (!module)
		return CUDA_ERROR_INVALID_VALUE;
	return bf_load_code(BF_MODULE, pointer, path, options, &no_options, (uint64_t *)module);
}

BF_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
	CUresult status = check();

	if (!status && !fname)
		status = CUDA_ERROR_INVALID_VALUE;
	return status ? status : load(module, NULL, fname, &no_options);
}

BF_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
	return load(module, image, NULL, &no_options);
}

BF_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions,
				      CUjit_option *options, void **optionValues)
{
	struct bf_options jit = { numOptions, options, optionValues };

	return load(module, image, NULL, &jit);
}

BF_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
	return load(module, fatCubin, NULL, &no_options);
}

BF_EXPORT CUresult cuModuleUnload(CUmodule hmod)
{
	CUresult status = check();

	if (status)
		return status;
	if (!bf_handle_find(BF_MODULE, BF_ARG(hmod)))
		return CUDA_ERROR_INVALID_HANDLE;
	bf_function_free_parent(BF_ARG(hmod));
	bf_variables_drop(BF_ARG(hmod));
	return BF_CALL(cuModuleUnload, BF_ARG(hmod));
}

BF_EXPORT CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
	CUresult status = check();

	if (status)
		return status;
	if (!hfunc || !name)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bf_handle_find(BF_MODULE, BF_ARG(hmod)))
		return CUDA_ERROR_INVALID_HANDLE;
	return bf_function_get(BF_ARG(hmod), BF_FUNCTION, name, (uint64_t *)hfunc);
}

BF_EXPORT CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
	unsigned count = 0;
	CUresult status = check();

	if (status)
		return status;
	if (!functions || !numFunctions)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bf_handle_find(BF_MODULE, BF_ARG(mod)))
		return CUDA_ERROR_INVALID_HANDLE;
	status = cuModuleGetFunctionCount(&count, mod);
	return status ? status : bf_function_list(BF_ARG(mod), BF_FUNCTION, (uint64_t *)functions, numFunctions, count);
}

/* Loading lazily is much cheaper over a network, so it is what we say unless the user wants otherwise. */
BF_EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	const char *wanted = getenv("CUDA_MODULE_LOADING");
	CUresult status = bf_check();

	if (status)
		return status;
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = wanted && !strcmp(wanted, "EAGER") ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
	return CUDA_SUCCESS;
}
