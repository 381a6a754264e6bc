/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules: an image in a context. Its variables are allocations like others.
 */
#include "driver.h"
#include "image.h"
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

const struct placed *placed_find(const struct placed *list, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	return NULL;
}

/* ------------------------------------------------------------------ parts, with modules_lock held */

static CUresult place_variable(struct module *module, const struct sg_variable *variable)
{
	const struct library *library = module->library;
	const struct placed *borrowed =
		library ? placed_find(library->managed, library->managed_count, variable->name) : NULL;
	struct placed *placed = &module->variables[module->variable_count];
	*placed = (struct placed){ .name = variable->name, .size = variable->size, .managed = variable->managed };
	const uint64_t size = variable->size ? variable->size : 1;
	if (borrowed) {
		placed->borrowed = 1;
		placed->address = borrowed->address;
	} else if (variable->managed) {
		TRY(managed_allocate(module->context, size, CU_MEM_ATTACH_GLOBAL, &placed->address));
	} else {
		TRY(arena_allocate(module->context->device, size, RANGE_GLOBAL, module->context, NULL,
				   &placed->address));
	}
	module->variable_count++;
	return CUDA_SUCCESS;
}

/* A variable keeps its place: the parts of a module share it. */
static CUresult place_variables(struct module *module, const struct sg_image *image, uint64_t *addresses,
				uint8_t *fresh)
{
	const unsigned count = sg_image_variable_count(image), before = module->variable_count;
	struct placed *more = realloc(module->variables, ((size_t)before + count + 1) * sizeof *more);
	if (!more)
		return CUDA_ERROR_OUT_OF_MEMORY;
	module->variables = more;
	for (unsigned i = 0; i < count; i++) {
		const struct sg_variable *variable = sg_image_variable(image, i);
		const struct placed *known = placed_find(module->variables, before, variable->name);
		if (!known) {
			TRY(place_variable(module, variable));
			known = &module->variables[module->variable_count - 1];
			fresh[i] = !known->borrowed; /* managed ones of a library were started with it */
		}
		addresses[i] = known->address;
	}
	return CUDA_SUCCESS;
}

static void drop_variables(struct module *module, unsigned from)
{
	while (module->variable_count > from) {
		const struct placed *placed = &module->variables[--module->variable_count];
		if (placed->borrowed)
			continue;
		if (placed->managed)
			managed_free(placed->address);
		else
			arena_free(placed->address, RANGE_GLOBAL);
	}
}

static CUresult add_part(struct module *module, const struct sg_image *image, struct sg_module **part)
{
	char reason[512] = "no memory";
	const unsigned count = sg_image_variable_count(image), before = module->variable_count;
	uint64_t *addresses = calloc((size_t)count + 1, sizeof *addresses);
	uint8_t *fresh = calloc((size_t)count + 1, 1);
	struct sg_module **more = realloc(module->parts, ((size_t)module->part_count + 1) * sizeof *more);
	CUresult status = CUDA_ERROR_OUT_OF_MEMORY;
	if (more)
		module->parts = more;
	*part = NULL;
	if (addresses && fresh && more)
		status = place_variables(module, image, addresses, fresh);
	if (status == CUDA_SUCCESS) {
		*part = sg_module_join(image, addresses, fresh, reason, sizeof reason);
		status = *part ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (*part)
		module->parts[module->part_count++] = *part;
	else
		drop_variables(module, before);
	free(addresses);
	free(fresh);
	if (status != CUDA_SUCCESS)
		driver_debug("cannot place code: %s", reason);
	return status;
}

static CUresult find_part(struct module *module, const struct sg_image *image, struct sg_module **part)
{
	for (unsigned i = 0; i < module->part_count; i++)
		if (sg_module_image(module->parts[i]) == image) {
			*part = module->parts[i];
			return CUDA_SUCCESS;
		}
	return add_part(module, image, part);
}

CUresult function_load(struct function *function)
{
	struct module *module = function->module;
	const struct sg_image *image;
	const struct sg_kernel *code;
	if (__atomic_load_n(&function->code, __ATOMIC_ACQUIRE))
		return CUDA_SUCCESS;
	TRY(image_kernel(module->image, function->index, &image, &code));
	pthread_mutex_lock(&modules_lock);
	CUresult status = function->code ? CUDA_SUCCESS : find_part(module, image, &function->placed);
	if (status == CUDA_SUCCESS && !function->code) {
		const int device = module->context->device->index, left = STATIC_SHARED - (int)code->static_shared;
		function->max_dynamic_shared = left < 0 ? 0 : left;
		if (function->kernel && function->kernel->set[device])
			function->max_dynamic_shared = function->kernel->max_dynamic_shared[device];
		__atomic_store_n(&function->code, code, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&modules_lock);
	return status;
}

/* ------------------------------------------------------------------ modules */

CUresult module_create(struct module **result, struct context *context, struct image *image, struct library *library)
{
	struct module *module = object_new(OBJECT_MODULE, sizeof *module);
	struct sg_module *part;
	if (!module)
		return CUDA_ERROR_OUT_OF_MEMORY;
	module->context = context;
	module->library = library;
	module->image = image;
	image->references++;
	module->function_count = image_kernel_count(image);
	module->functions = calloc((size_t)module->function_count + 1, sizeof(struct function *));
	CUresult status = module->functions ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (status == CUDA_SUCCESS && image->whole)
		status = add_part(module, image->whole, &part);
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
	drop_variables(module, 0);
	for (unsigned i = 0; i < module->part_count; i++)
		sg_module_free(module->parts[i]);
	image_release(module->image);
	free(module->functions);
	free(module->variables);
	free(module->parts);
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
	if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
		close(fd);
		return CUDA_ERROR_FILE_NOT_FOUND;
	}
	size_t have = 0;
	*bytes = malloc((size_t)status.st_size + 1);
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
	CUresult result = image_check_file(bytes, size, NULL);
	if (result == CUDA_SUCCESS)
		result = load(module, bytes, NULL);
	free(bytes);
	return result;
}

EXPORT CUresult cuModuleUnload(CUmodule hmod)
{
	ENTER();
	struct module *module = get(hmod);
	if (!module || module->library)
		return CUDA_ERROR_INVALID_HANDLE;
	TRY(context_synchronize(module->context));
	pthread_mutex_lock(&modules_lock);
	module_free(module);
	pthread_mutex_unlock(&modules_lock);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	ENTER();
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = image_is_eager() ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
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
	unsigned index;
	if (!image_find_kernel(module->image, name, &index))
		return CUDA_ERROR_NOT_FOUND;
	pthread_mutex_lock(&modules_lock);
	struct function *function = module_function(module, index);
	pthread_mutex_unlock(&modules_lock);
	if (!function)
		return CUDA_ERROR_OUT_OF_MEMORY;
	TRY(function_load(function)); /* whoever asks for it by name is going to use it */
	*hfunc = (CUfunction)function;
	return CUDA_SUCCESS;
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

static int copy_placed(const struct module *module, const char *name, struct placed *copy)
{
	pthread_mutex_lock(&modules_lock);
	const struct placed *found = placed_find(module->variables, module->variable_count, name);
	if (found)
		*copy = *found;
	pthread_mutex_unlock(&modules_lock);
	return found != NULL;
}

CUresult module_global(struct module *module, const char *name, CUdeviceptr *address, size_t *size)
{
	const struct sg_image *image;
	struct sg_module *part;
	struct placed found;
	if (!name || (!address && !size))
		return CUDA_ERROR_INVALID_VALUE;
	if (!copy_placed(module, name, &found)) {
		TRY(image_variable(module->image, name, &image));
		pthread_mutex_lock(&modules_lock);
		CUresult status = find_part(module, image, &part);
		pthread_mutex_unlock(&modules_lock);
		TRY(status);
		if (!copy_placed(module, name, &found))
			return CUDA_ERROR_NOT_FOUND;
	}
	if (address)
		*address = found.address;
	if (size)
		*size = found.size;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	ENTER_CONTEXT(context);
	struct module *module = get(hmod);
	return module ? module_global(module, name, dptr, bytes) : CUDA_ERROR_INVALID_HANDLE;
}
