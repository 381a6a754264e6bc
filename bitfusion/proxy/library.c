/* SPDX-License-Identifier: Apache-2.0
 *
 * Libraries and their kernels, which need no context and live until they are unloaded.
 */
#define _GNU_SOURCE
#include "shared.h"

/* The table of host functions is a pointer into the program; it only serves host code. */
static void drop_host_table(struct bf_options *options, CUjit_option *names, void **values, CUlibraryOption *from,
			    void **from_values, unsigned count)
{
	options->count = 0;
	options->names = names;
	options->values = from_values ? values : NULL;
	for (unsigned i = 0; i < count; i++) {
		if (from[i] == CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE)
			continue;
		names[options->count] = (CUjit_option)from[i];
		values[options->count++] = from_values ? from_values[i] : NULL;
	}
}

enum { MAX_LIBRARY_OPTIONS = 16 };

struct request {
	const struct bf_options jit;
	CUlibraryOption *names;
	void **values;
	unsigned count;
};

static CUresult load(CUlibrary *library, const void *code, const char *path, const struct request *request)
{
	CUjit_option kept_names[MAX_LIBRARY_OPTIONS];
	void *kept_values[MAX_LIBRARY_OPTIONS];
	struct bf_options options;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!library || request->count > MAX_LIBRARY_OPTIONS || (request->count && !request->names))
		return CUDA_ERROR_INVALID_VALUE;
	drop_host_table(&options, kept_names, kept_values, request->names, request->values, request->count);
	return bf_load_code(BF_LIBRARY, code, path, &request->jit, &options, (uint64_t *)library);
}

BF_EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions,
				     void **jitOptionsValues, unsigned int numJitOptions,
				     CUlibraryOption *libraryOptions, void **libraryOptionValues,
				     unsigned int numLibraryOptions)
{
	return load(library, code, NULL,
		    &(struct request){ { numJitOptions, jitOptions, jitOptionsValues },
				       libraryOptions,
				       libraryOptionValues,
				       numLibraryOptions });
}

BF_EXPORT CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions,
					 void **jitOptionsValues, unsigned int numJitOptions,
					 CUlibraryOption *libraryOptions, void **libraryOptionValues,
					 unsigned int numLibraryOptions)
{
	if (!fileName)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return load(library, NULL, fileName,
		    &(struct request){ { numJitOptions, jitOptions, jitOptionsValues },
				       libraryOptions,
				       libraryOptionValues,
				       numLibraryOptions });
}

static CUresult check_library(CUlibrary library)
{
	CUresult status = bf_check();

	if (status)
		return status;
	return bf_handle_find(BF_LIBRARY, BF_ARG(library)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

BF_EXPORT CUresult cuLibraryUnload(CUlibrary library)
{
	CUresult status = check_library(library);

	if (status)
		return status;
	bf_function_free_parent(BF_ARG(library));
	bf_variables_drop(BF_ARG(library));
	return BF_CALL(cuLibraryUnload, BF_ARG(library));
}

BF_EXPORT CUresult cuLibraryGetKernel(CUkernel *pKernel, CUlibrary library, const char *name)
{
	CUresult status = check_library(library);

	if (status)
		return status;
	if (!pKernel || !name)
		return CUDA_ERROR_INVALID_VALUE;
	return bf_function_get(BF_ARG(library), BF_KERNEL, name, (uint64_t *)pKernel);
}

BF_EXPORT CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int numKernels, CUlibrary lib)
{
	unsigned count = 0;
	CUresult status = check_library(lib);

	if (status)
		return status;
	if (!kernels || !numKernels)
		return CUDA_ERROR_INVALID_VALUE;
	status = cuLibraryGetKernelCount(&count, lib);
	return status ? status : bf_function_list(BF_ARG(lib), BF_KERNEL, (uint64_t *)kernels, numKernels, count);
}

BF_EXPORT CUresult cuLibraryGetModule(CUmodule *pMod, CUlibrary library)
{
	CUresult status = check_library(library);

	if (status)
		return status;
	if (!pMod)
		return CUDA_ERROR_INVALID_VALUE;
	return BF_CALL(cuLibraryGetModule, BF_ARG(pMod), BF_ARG(library));
}
