/* SPDX-License-Identifier: Apache-2.0
 *
 * The JIT linker: collects its inputs, lets the PTX front end link them.
 */
#include "driver.h"
#include "image.h"
#include "module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct link {
	struct object object;
	struct jit_options options;
	struct helper_item *items;
	unsigned count;
	void *result;
	size_t size;
};

static struct link *get(CUlinkState handle)
{
	return object_get(handle, OBJECT_LINK);
}

EXPORT CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option *options, void **optionValues,
				CUlinkState *stateOut)
{
	ENTER_CONTEXT(context);
	if (!stateOut)
		return CUDA_ERROR_INVALID_VALUE;
	struct link *link = object_new(OBJECT_LINK, sizeof *link);
	if (!link)
		return CUDA_ERROR_OUT_OF_MEMORY;
	/* the program must keep its option values until it has completed the link */
	jit_options_read(&link->options, numOptions, options, optionValues);
	*stateOut = (CUlinkState)link;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
				 unsigned int numOptions, CUjit_option *options, void **optionValues)
{
	ENTER();
	struct link *link = get(state);
	(void)numOptions, (void)options, (void)optionValues;
	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!data || !size || link->result || (int)type < 0 || type >= CU_JIT_NUM_INPUT_TYPES)
		return CUDA_ERROR_INVALID_VALUE;
	struct helper_item *items = realloc(link->items, (link->count + 1) * sizeof *items);
	if (!items)
		return CUDA_ERROR_OUT_OF_MEMORY;
	link->items = items;
	void *copy = malloc(size);
	char *own_name = strdup(name ? name : "");
	if (!copy || !own_name) {
		free(copy);
		free(own_name);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	memcpy(copy, data, size);
	if (type == CU_JIT_INPUT_PTX)
		while (size > 1 && !((char *)copy)[size - 1])
			size--; /* the text's terminator is not text */
	items[link->count++] = (struct helper_item){ copy, size, (uint32_t)type, own_name };
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
				 CUjit_option *options, void **optionValues)
{
	ENTER();
	void *bytes;
	size_t size;
	TRY(file_read(path, &bytes, &size));
	CUresult result = cuLinkAddData_v2(state, type, bytes, size, path, numOptions, options, optionValues);
	free(bytes);
	return result;
}

EXPORT CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
	ENTER();
	struct link *link = get(state);
	char text[8192] = "";
	void *image;
	size_t size;
	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!cubinOut || !link->count)
		return CUDA_ERROR_INVALID_VALUE;
	if (!link->result) {
		CUresult result = helper_compile(link->items, link->count, 1, &image, &size, text, sizeof text);
		if (result == CUDA_SUCCESS) {
			link->result = image_wrap(image, size, &link->size);
			free(image);
			result = link->result ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
		} else if (driver.debug || result == CUDA_ERROR_JIT_COMPILER_NOT_FOUND) {
			char line[1024];
			snprintf(line, sizeof line, "cannot link: %.1000s", text);
			driver_say(line);
		}
		jit_options_report(&link->options, result, text);
		TRY(result);
	}
	*cubinOut = link->result;
	if (sizeOut)
		*sizeOut = link->size;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLinkDestroy(CUlinkState state)
{
	ENTER();
	struct link *link = get(state);
	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	for (unsigned i = 0; i < link->count; i++) {
		free((void *)(uintptr_t)link->items[i].bytes);
		free((char *)(uintptr_t)link->items[i].name);
	}
	free(link->items);
	free(link->result);
	object_free(link);
	return CUDA_SUCCESS;
}
