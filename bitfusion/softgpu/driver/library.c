/* SPDX-License-Identifier: Apache-2.0
 *
 * Libraries: images without a context. Each context that uses one gets its own instance of it.
 */
#include "driver.h"
#include "image.h"
#include "memory.h"
#include "module.h"
#include "queue.h"

#include <stdlib.h>
#include <string.h>

static struct library *get(CUlibrary handle)
{
	return object_get(handle, OBJECT_LIBRARY);
}

static struct kernel *make_kernel(struct library *library, unsigned index)
{
	struct kernel *kernel = object_new(OBJECT_KERNEL, sizeof *kernel);
	if (!kernel)
		return NULL;
	kernel->library = library;
	kernel->index = index;
	return kernel;
}

static void library_free(struct library *library)
{
	for (unsigned i = 0; library->kernels && i < library->kernel_count; i++)
		object_free(library->kernels[i]);
	for (unsigned i = 0; i < library->managed_count; i++)
		managed_free(library->managed[i].address);
	image_release(library->image);
	free(library->kernels);
	free(library->managed);
	free(library->instances);
	object_free(library);
}

/* Places for an image without a context: those of managed variables stay, the others are thrown away again. */
static CUresult start_managed_in(struct library *library, const struct sg_image *image, uint64_t *places)
{
	unsigned count = sg_image_variable_count(image);
	for (unsigned i = 0; i < count; i++) {
		const struct sg_variable *variable = sg_image_variable(image, i);
		if (!variable->managed) {
			if (posix_memalign((void **)&places[i], 4096, variable->size + 1))
				return CUDA_ERROR_OUT_OF_MEMORY;
			continue;
		}
		TRY(managed_allocate(NULL, variable->size, CU_MEM_ATTACH_GLOBAL, &places[i]));
		library->managed[library->managed_count++] =
			(struct placed){ .name = variable->name, .address = places[i], .size = variable->size };
	}
	struct sg_module *module = sg_module_create(image, places, NULL, 0);
	sg_module_free(module);
	return module ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The program may use managed variables before there is any context: they are given their place and their
 * first value by an instance of the code that is thrown away again. */
static CUresult start_managed(struct library *library)
{
	const struct sg_image *image;
	TRY(image_variable(library->image, NULL, &image));
	unsigned count = image ? sg_image_variable_count(image) : 0, any = 0;
	for (unsigned i = 0; i < count; i++)
		any |= sg_image_variable(image, i)->managed != 0;
	if (!any)
		return CUDA_SUCCESS;
	uint64_t *places = calloc(count, sizeof *places);
	library->managed = calloc(count, sizeof *library->managed);
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	if (places && library->managed)
		result = start_managed_in(library, image, places);
	for (unsigned i = 0; places && i < count; i++)
		if (!sg_image_variable(image, i)->managed)
			free((void *)(uintptr_t)places[i]);
	free(places);
	return result;
}

static CUresult load(CUlibrary *result, const void *code, const struct jit_options *options)
{
	ENTER();
	struct image *image;
	if (!result || !code)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(image_load(&image, code, options));
	struct library *library = object_new(OBJECT_LIBRARY, sizeof *library);
	if (!library) {
		image_release(image);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	library->image = image;
	library->kernel_count = image_kernel_count(image);
	library->kernels = calloc((size_t)library->kernel_count + 1, sizeof *library->kernels);
	CUresult status = library->kernels ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned i = 0; status == CUDA_SUCCESS && i < library->kernel_count; i++)
		if (!(library->kernels[i] = make_kernel(library, i)))
			status = CUDA_ERROR_OUT_OF_MEMORY;
	if (status == CUDA_SUCCESS)
		status = start_managed(library);
	if (status == CUDA_SUCCESS)
		*result = (CUlibrary)library;
	else
		library_free(library);
	return status;
}

EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions,
				  void **jitOptionsValues, unsigned int numJitOptions, CUlibraryOption *libraryOptions,
				  void **libraryOptionValues, unsigned int numLibraryOptions)
{
	struct jit_options options;
	/* the library options say how long the program keeps the code and who uses it: we keep our own */
	(void)libraryOptions, (void)libraryOptionValues, (void)numLibraryOptions;
	jit_options_read(&options, numJitOptions, jitOptions, jitOptionsValues);
	return load(library, code, &options);
}

EXPORT CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions,
				      void **jitOptionsValues, unsigned int numJitOptions,
				      CUlibraryOption *libraryOptions, void **libraryOptionValues,
				      unsigned int numLibraryOptions)
{
	ENTER();
	struct jit_options options;
	void *bytes;
	size_t size;
	TRY(file_read(fileName, &bytes, &size));
	jit_options_read(&options, numJitOptions, jitOptions, jitOptionsValues);
	CUresult result = image_check_file(bytes, size, &options);
	if (result == CUDA_SUCCESS)
		result = cuLibraryLoadData(library, bytes, jitOptions, jitOptionsValues, numJitOptions, libraryOptions,
					   libraryOptionValues, numLibraryOptions);
	free(bytes);
	return result;
}

EXPORT CUresult cuLibraryUnload(CUlibrary handle)
{
	ENTER();
	struct library *library = get(handle);
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	object_retire(library);
	pthread_mutex_lock(&modules_lock);
	while (library->instance_count) {
		struct module *module = library->instances[--library->instance_count];
		context_synchronize(module->context);
		module_free(module);
	}
	library_free(library);
	pthread_mutex_unlock(&modules_lock);
	return CUDA_SUCCESS;
}

/* With modules_lock held. */
static CUresult instance_locked(struct library *library, struct context *context, struct module **result)
{
	for (unsigned i = 0; i < library->instance_count; i++)
		if (library->instances[i]->context == context) {
			*result = library->instances[i];
			return CUDA_SUCCESS;
		}
	struct module **more = realloc(library->instances, (library->instance_count + 1) * sizeof *more);
	if (!more)
		return CUDA_ERROR_OUT_OF_MEMORY;
	library->instances = more;
	TRY(module_create(result, context, library->image, library));
	library->instances[library->instance_count++] = *result;
	return CUDA_SUCCESS;
}

CUresult library_instance(struct library *library, struct context *context, struct module **module)
{
	pthread_mutex_lock(&modules_lock);
	CUresult result = instance_locked(library, context, module);
	pthread_mutex_unlock(&modules_lock);
	return result;
}

void modules_forget_context(struct context *context)
{
	pthread_mutex_lock(&modules_lock);
	while (context->modules) {
		struct module *module = context->modules;
		struct library *library = module->library;
		for (unsigned i = 0; library && i < library->instance_count; i++)
			if (library->instances[i] == module)
				library->instances[i] = library->instances[--library->instance_count];
		module_free(module);
	}
	pthread_mutex_unlock(&modules_lock);
}

/* With modules_lock held. */
static CUresult kernel_instance(struct kernel *kernel, struct context *context, struct function **result)
{
	struct module *module;
	TRY(instance_locked(kernel->library, context, &module));
	struct function *function = module_function(module, kernel->index);
	if (!function)
		return CUDA_ERROR_OUT_OF_MEMORY;
	function->kernel = kernel;
	int device = context->device->index;
	if (kernel->set[device] && function->code)
		function->max_dynamic_shared = kernel->max_dynamic_shared[device];
	*result = function;
	return CUDA_SUCCESS;
}

CUresult function_find(CUfunction handle, struct context *context, struct function **function)
{
	struct kernel *kernel = object_get(handle, OBJECT_KERNEL);
	*function = object_get(handle, OBJECT_FUNCTION);
	if (*function)
		return (*function)->module->context == context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
	if (!kernel)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&modules_lock);
	CUresult result = kernel_instance(kernel, context, function);
	pthread_mutex_unlock(&modules_lock);
	return result;
}

CUresult function_resolve(CUfunction handle, struct context *context, struct function **function)
{
	TRY(function_find(handle, context, function));
	return function_load(*function);
}

EXPORT CUresult cuLibraryGetModule(CUmodule *pMod, CUlibrary handle)
{
	ENTER_CONTEXT(context);
	struct library *library = get(handle);
	struct module *module;
	if (!pMod)
		return CUDA_ERROR_INVALID_VALUE;
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	TRY(library_instance(library, context, &module));
	*pMod = (CUmodule)module;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLibraryGetKernel(CUkernel *pKernel, CUlibrary handle, const char *name)
{
	ENTER();
	struct library *library = get(handle);
	if (!pKernel || !name)
		return CUDA_ERROR_INVALID_VALUE;
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	unsigned index;
	if (!image_find_kernel(library->image, name, &index))
		return CUDA_ERROR_NOT_FOUND;
	*pKernel = (CUkernel)library->kernels[index];
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLibraryGetKernelCount(unsigned int *count, CUlibrary lib)
{
	ENTER();
	struct library *library = get(lib);
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	*count = library->kernel_count;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int numKernels, CUlibrary lib)
{
	ENTER();
	struct library *library = get(lib);
	if (!kernels || !numKernels)
		return CUDA_ERROR_INVALID_VALUE;
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	for (unsigned i = 0; i < numKernels && i < library->kernel_count; i++)
		kernels[i] = (CUkernel)library->kernels[i];
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary handle, const char *name)
{
	ENTER_CONTEXT(context);
	struct library *library = get(handle);
	struct module *module;
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	TRY(library_instance(library, context, &module));
	return module_global(module, name, dptr, bytes);
}

EXPORT CUresult cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary handle, const char *name)
{
	ENTER();
	struct library *library = get(handle);
	if (!library)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!name || (!dptr && !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	const struct placed *found = placed_find(library->managed, library->managed_count, name);
	if (!found)
		return CUDA_ERROR_NOT_FOUND;
	if (dptr)
		*dptr = found->address;
	if (bytes)
		*bytes = found->size;
	return CUDA_SUCCESS;
}
