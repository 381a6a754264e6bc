/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules: an image in a context. Its variables are allocations like others.
 */
#include "driver.h"
#include "memory.h"
#include "module.h"
#include "queue.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

pthread_mutex_t modules_lock = PTHREAD_MUTEX_INITIALIZER;

static struct module *get(CUmodule handle)
{
	return object_get(handle, OBJECT_MODULE);
}

static const struct sg_variable *variable(const struct module *module, unsigned index)
{
	return sg_image_variable(module->image->parsed, index);
}

static unsigned variable_count(const struct module *module)
{
	return sg_image_variable_count(module->image->parsed);
}

static CUresult place_variables(struct module *module)
{
	for (unsigned i = 0; i < variable_count(module); i++) {
		uint64_t size = variable(module, i)->size ? variable(module, i)->size : 1;
		if (module->library && module->library->managed && module->library->managed[i])
			module->addresses[i] = module->library->managed[i];
		else if (variable(module, i)->managed)
			TRY(managed_allocate(module->context, size, CU_MEM_ATTACH_GLOBAL, &module->addresses[i]));
		else
			TRY(arena_allocate(module->context->device, size, RANGE_GLOBAL, module->context, NULL,
					   &module->addresses[i]));
	}
	return CUDA_SUCCESS;
}

/* Managed variables of a library are shared by its instances: a later one must not start them anew. */
static void *save_managed(const struct module *module, unsigned index)
{
	if (!module->library || !module->library->managed || !module->library->managed[index])
		return NULL;
	void *copy = malloc(variable(module, index)->size);
	if (copy)
		memcpy(copy, (void *)(uintptr_t)module->addresses[index], variable(module, index)->size);
	return copy;
}

static CUresult place_code(struct module *module)
{
	char reason[512] = "";
	unsigned count = variable_count(module);
	void **saved = calloc((size_t)count + 1, sizeof *saved);
	if (!saved)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned i = 0; i < count; i++)
		saved[i] = save_managed(module, i);
	module->code = sg_module_create(module->image->parsed, module->addresses, reason, sizeof reason);
	for (unsigned i = 0; i < count; i++) {
		if (saved[i])
			memcpy((void *)(uintptr_t)module->addresses[i], saved[i], variable(module, i)->size);
		free(saved[i]);
	}
	free(saved);
	if (module->code)
		return CUDA_SUCCESS;
	driver_debug("cannot load module: %s", reason);
	return CUDA_ERROR_INVALID_PTX;
}

CUresult module_create(struct module **result, struct context *context, struct image *image, struct library *library)
{
	struct module *module = object_new(OBJECT_MODULE, sizeof *module);
	if (!module)
		return CUDA_ERROR_OUT_OF_MEMORY;
	module->context = context;
	module->library = library;
	module->image = image;
	image->references++;
	module->function_count = image_kernel_count(image);
	module->addresses = calloc((size_t)variable_count(module) + 1, sizeof *module->addresses);
	module->functions = calloc((size_t)module->function_count + 1, sizeof(struct function *));
	CUresult status = CUDA_ERROR_OUT_OF_MEMORY;
	if (module->addresses && module->functions)
		status = place_variables(module);
	if (status == CUDA_SUCCESS)
		status = place_code(module);
	if (status != CUDA_SUCCESS) {
		module_free(module);
		return status;
	}
	module->next = context->modules;
	context->modules = module;
	*result = module;
	return CUDA_SUCCESS;
}

/* With modules_lock held; nothing of it may still run. */
void module_free(struct module *module)
{
	struct module **at = &module->context->modules;
	while (*at && *at != module)
		at = &(*at)->next;
	if (*at)
		*at = module->next;
	for (unsigned i = 0; module->functions && i < module->function_count; i++)
		object_free(module->functions[i]);
	for (unsigned i = 0; module->addresses && i < variable_count(module); i++) {
		uint64_t address = module->addresses[i];
		if (!address || (module->library && module->library->managed && module->library->managed[i]))
			continue;
		if (variable(module, i)->managed)
			managed_free(address);
		else
			arena_free(address, RANGE_GLOBAL);
	}
	if (module->code)
		sg_module_free(module->code);
	image_release(module->image);
	free(module->functions);
	free(module->addresses);
	object_free(module);
}

static CUresult load(CUmodule *result, const void *image_code, const struct jit_options *options)
{
	ENTER_CONTEXT(context);
	struct image *image;
	struct module *module;
	if (!result || !image_code)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(image_load(&image, image_code, options));
	pthread_mutex_lock(&modules_lock);
	CUresult status = module_create(&module, context, image, NULL);
	pthread_mutex_unlock(&modules_lock);
	image_release(image);
	if (status == CUDA_SUCCESS)
		*result = (CUmodule)module;
	return status;
}

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
	return load(module, image, NULL);
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions, CUjit_option *options,
				   void **optionValues)
{
	struct jit_options read;
	jit_options_read(&read, numOptions, options, optionValues);
	return load(module, image, &read);
}

EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
	return load(module, fatCubin, NULL);
}

CUresult file_read(const char *name, void **bytes, size_t *size)
{
	struct stat status;
	int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return name ? CUDA_ERROR_FILE_NOT_FOUND : CUDA_ERROR_INVALID_VALUE;
	size_t have = 0;
	*bytes = fstat(fd, &status) ? NULL : malloc((size_t)status.st_size + 1);
	while (*bytes && have < (size_t)status.st_size) {
		ssize_t got = read(fd, (char *)*bytes + have, (size_t)status.st_size - have);
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	close(fd);
	if (!*bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((char *)*bytes)[have] = 0; /* PTX text ends here */
	*size = have;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
	ENTER();
	void *bytes;
	size_t size;
	TRY(file_read(fname, &bytes, &size));
	CUresult result = load(module, bytes, NULL);
	free(bytes);
	return result;
}

EXPORT CUresult cuModuleUnload(CUmodule hmod)
{
	ENTER();
	struct module *module = get(hmod);
	if (!module || module->library)
		return CUDA_ERROR_INVALID_HANDLE;
	context_synchronize(module->context);
	pthread_mutex_lock(&modules_lock);
	module_free(module);
	pthread_mutex_unlock(&modules_lock);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	const char *wanted = getenv("CUDA_MODULE_LOADING");
	ENTER();
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = wanted && !strcmp(wanted, "EAGER") ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
	return CUDA_SUCCESS;
}

/* With modules_lock held. */
struct function *module_function(struct module *module, unsigned index)
{
	struct function *function = module->functions[index];
	if (function)
		return function;
	function = object_new(OBJECT_FUNCTION, sizeof *function);
	if (!function)
		return NULL;
	function->module = module;
	function->index = index;
	function->code = image_kernel(module->image, index);
	function->max_dynamic_shared = STATIC_SHARED - (int)function->code->static_shared;
	if (function->max_dynamic_shared < 0)
		function->max_dynamic_shared = 0;
	function->carveout = -1;
	module->functions[index] = function;
	return function;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
	ENTER_CONTEXT(context);
	struct module *module = get(hmod);
	if (!hfunc || !name)
		return CUDA_ERROR_INVALID_VALUE;
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	for (unsigned i = 0; i < module->function_count; i++) {
		if (strcmp(image_kernel(module->image, i)->name, name))
			continue;
		pthread_mutex_lock(&modules_lock);
		*hfunc = (CUfunction)module_function(module, i);
		pthread_mutex_unlock(&modules_lock);
		return *hfunc ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	return CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
	ENTER_CONTEXT(context);
	struct module *module = get(mod);
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	*count = module->function_count;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
	ENTER_CONTEXT(context);
	struct module *module = get(mod);
	if (!functions || !numFunctions)
		return CUDA_ERROR_INVALID_VALUE;
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&modules_lock);
	for (unsigned i = 0; i < numFunctions && i < module->function_count; i++)
		functions[i] = (CUfunction)module_function(module, i);
	pthread_mutex_unlock(&modules_lock);
	return CUDA_SUCCESS;
}

CUresult module_global(const struct module *module, const char *name, CUdeviceptr *address, size_t *size)
{
	if (!name || (!address && !size))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < variable_count(module); i++) {
		if (strcmp(variable(module, i)->name, name))
			continue;
		if (address)
			*address = module->addresses[i];
		if (size)
			*size = variable(module, i)->size;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	ENTER_CONTEXT(context);
	struct module *module = get(hmod);
	return module ? module_global(module, name, dptr, bytes) : CUDA_ERROR_INVALID_HANDLE;
}
