/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules, libraries and functions of the null driver: of an image only the `.entry` lines of PTX text are read, so
 * that parameters have the layout that the program packs. Launches count and do nothing.
 */
#include "null.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = 256 };

struct function {
	struct function *next;
	struct image *image;
	char *name;
	unsigned count;
	struct {
		uint32_t offset, size;
	} parameters[MAX_PARAMETERS];
};

struct image {
	struct function *functions;
	int is_text; /* else nothing is known of it, and every name is found */
};

static int type_size(const char *type)
{
	const char *digits = type + strcspn(type, "0123456789");

	return !strncmp(type, ".pred", 5) ? 1 : atoi(digits) / 8;
}

/* One `.param [.align A] .TYPE NAME[BYTES]`; returns its size and alignment. */
static uint32_t parse_parameter(const char *text, const char *end, uint32_t *align)
{
	uint32_t count = 1, size = 0;
	const char *bracket = memchr(text, '[', end - text);

	*align = 0;
	for (const char *at = text; at < end; at++) {
		if (*at != '.')
			continue;
		if (!strncmp(at, ".align", 6))
			*align = (uint32_t)atoi(at + 6);
		else if (strchr("bufsp", at[1]) && (isdigit((unsigned char)at[2])))
			size = (uint32_t)type_size(at);
	}
	if (bracket)
		count = (uint32_t)atoi(bracket + 1);
	if (!*align)
		*align = size ? size : 1;
	return size * count;
}

static void parse_parameters(struct function *function, const char *text, const char *end)
{
	uint32_t offset = 0;

	while (text < end && function->count < MAX_PARAMETERS) {
		const char *comma = memchr(text, ',', end - text);
		const char *stop = comma ? comma : end;
		uint32_t align, size = parse_parameter(text, stop, &align);

		if (size) {
			offset = (offset + align - 1) & ~(align - 1);
			function->parameters[function->count].offset = offset;
			function->parameters[function->count++].size = size;
			offset += size;
		}
		text = stop + 1;
	}
}

static struct function *add_function(struct image *image, const char *name, size_t length)
{
	struct function *function = calloc(1, sizeof *function);

	if (!function)
		return NULL;
	function->name = strndup(name, length);
	function->image = image;
	function->next = image->functions;
	image->functions = function;
	return function;
}

static void parse_text(struct image *image, const char *text)
{
	while ((text = strstr(text, ".entry"))) {
		const char *name = text + 6 + strspn(text + 6, " \t\r\n"), *open, *close;
		size_t length = strcspn(name, " \t\r\n({");
		struct function *function = add_function(image, name, length);

		text = name + length;
		open = text + strspn(text, " \t\r\n");
		close = *open == '(' ? strchr(open, ')') : NULL;
		if (function && close)
			parse_parameters(function, open + 1, close);
	}
}

static CUresult load(struct image **image, const void *bytes)
{
	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	*image = calloc(1, sizeof **image);
	if (!*image)
		return CUDA_ERROR_OUT_OF_MEMORY;
	(*image)->is_text = *(const unsigned char *)bytes < 0x7f && *(const unsigned char *)bytes >= '\t' &&
			    *(const unsigned char *)bytes != 'P';
	if ((*image)->is_text)
		parse_text(*image, bytes);
	return CUDA_SUCCESS;
}

static CUresult find(struct image *image, const char *name, struct function **found)
{
	for (*found = image->functions; *found; *found = (*found)->next)
		if (!strcmp((*found)->name, name))
			return CUDA_SUCCESS;
	if (image->is_text)
		return CUDA_ERROR_NOT_FOUND;
	*found = add_function(image, name, strlen(name));
	return *found ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult unload(struct image *image)
{
	struct function *next;

	for (struct function *function = image->functions; function; function = next) {
		next = function->next;
		free(function->name);
		free(function);
	}
	free(image);
	return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
	NULL_ENTER();
	return load((struct image **)module, image);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
			    void **values)
{
	return cuModuleLoadData(module, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
	return cuModuleLoadData(module, image);
}

CUresult cuModuleUnload(CUmodule module)
{
	NULL_ENTER();
	return unload((struct image *)module);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	NULL_ENTER();
	return find((struct image *)module, name, (struct function **)function);
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values,
			   unsigned int count, CUlibraryOption *library_options, void **library_values,
			   unsigned int library_count)
{
	NULL_ENTER();
	return load((struct image **)library, image);
}

CUresult cuLibraryUnload(CUlibrary library)
{
	NULL_ENTER();
	return unload((struct image *)library);
}

CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
	NULL_ENTER();
	*module = (CUmodule)library;
	return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
	NULL_ENTER();
	return find((struct image *)library, name, (struct function **)kernel);
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
	NULL_ENTER();
	*function = (CUfunction)kernel;
	return CUDA_SUCCESS;
}

CUresult cuKernelGetLibrary(CUlibrary *library, CUkernel kernel)
{
	NULL_ENTER();
	*library = (CUlibrary)((struct function *)kernel)->image;
	return CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
	NULL_ENTER();
	*module = (CUmodule)((struct function *)function)->image;
	return CUDA_SUCCESS;
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *size)
{
	const struct function *f = (const struct function *)function;

	NULL_ENTER();
	if (index >= f->count)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = f->parameters[index].offset;
	if (size)
		*size = f->parameters[index].size;
	return CUDA_SUCCESS;
}

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *size)
{
	return cuFuncGetParamInfo((CUfunction)kernel, index, offset, size);
}

CUresult cuFuncGetParamCount(CUfunction function, size_t *count)
{
	NULL_ENTER();
	*count = ((const struct function *)function)->count;
	return CUDA_SUCCESS;
}

CUresult cuKernelGetParamCount(CUkernel kernel, size_t *count)
{
	return cuFuncGetParamCount((CUfunction)kernel, count);
}

CUresult cuFuncGetName(const char **name, CUfunction function)
{
	NULL_ENTER();
	*name = ((const struct function *)function)->name;
	return CUDA_SUCCESS;
}

CUresult cuKernelGetName(const char **name, CUkernel kernel)
{
	return cuFuncGetName(name, (CUfunction)kernel);
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
	NULL_ENTER();
	*value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
		 : attribute == CU_FUNC_ATTRIBUTE_NUM_REGS            ? 16
		 : attribute == CU_FUNC_ATTRIBUTE_PTX_VERSION         ? 70
								      : 0;
	return CUDA_SUCCESS;
}

CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device)
{
	return cuFuncGetAttribute(value, attribute, (CUfunction)kernel);
}

/* ------------------------------------------------------------------ launches */

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
			unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared,
			CUstream stream, void **parameters, void **extra)
{
	NULL_ENTER();
	return CUDA_SUCCESS;
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
				   unsigned int block_x, unsigned int block_y, unsigned int block_z,
				   unsigned int shared, CUstream stream, void **parameters)
{
	NULL_ENTER();
	return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra)
{
	NULL_ENTER();
	return CUDA_SUCCESS;
}
