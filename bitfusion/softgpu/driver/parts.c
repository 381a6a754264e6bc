/* SPDX-License-Identifier: Apache-2.0
 *
 * Images that are compiled kernel by kernel: each part is what one kernel, or a variable, needs of the text.
 */
#include "image.h"
#include "ptxtext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Variables of up to so much text are compiled together: programs that ask for one mostly ask for all. */
enum { FEW_VARIABLES = 256 << 10 };

struct part {
	struct sg_image *parsed;
	CUresult status; /* why it is not there: nobody tries twice */
	uint32_t item; /* of variables: the one asked for, or ALL */
};
enum { ALL = PTX_NONE - 1, MANAGED = PTX_NONE - 2 };

struct image *image_split(char *bytes, size_t size)
{
	struct image *image = calloc(1, sizeof *image);
	if (!image)
		return NULL;
	image->references = 1;
	image->text = ptx_scan(bytes, size);
	image->kernels = image->text ? calloc((size_t)image->text->kernel_count + 1, sizeof *image->kernels) : NULL;
	if (image->kernels) {
		pthread_mutex_init(&image->lock, NULL);
		return image;
	}
	if (image->text)
		image->text->bytes = NULL; /* the caller's again */
	ptx_free(image->text);
	free(image);
	return NULL;
}

void image_free_parts(struct image *image)
{
	if (!image->text)
		return;
	for (uint32_t i = 0; i < image->text->kernel_count; i++)
		sg_image_free(image->kernels[i].parsed);
	for (unsigned i = 0; i < image->variable_parts; i++)
		sg_image_free(image->variables[i].parsed);
	free(image->kernels);
	free(image->variables);
	ptx_free(image->text);
	pthread_mutex_destroy(&image->lock);
}

/* With the image's lock held. */
static void compile(struct image *image, struct part *part, const uint32_t *roots, uint32_t count, const char *what)
{
	char text[8192] = "";
	size_t size = 0, made = 0;
	void *compiled = NULL;
	char *slice = ptx_slice(image->text, roots, count, &size);
	part->status = slice ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (slice) {
		struct helper_item item = { .bytes = slice, .size = size };
		part->status = helper_compile(&item, 1, 0, &compiled, &made, text, sizeof text);
		free(slice);
	}
	if (part->status == CUDA_SUCCESS) {
		part->parsed = sg_image_parse(compiled, made, text, sizeof text);
		part->status = part->parsed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
	}
	free(compiled);
	if (part->status == CUDA_SUCCESS)
		return;
	char line[1024]; /* the load, whose log would have told it, is over */
	snprintf(line, sizeof line, "cannot load %s: %.900s", what, text);
	driver_say(line);
}

/* ------------------------------------------------------------------ kernels */

unsigned image_kernel_count(const struct image *image)
{
	return image->whole ? sg_image_kernel_count(image->whole) : image->text->kernel_count;
}

const char *image_kernel_name(const struct image *image, unsigned index)
{
	return image->whole ? sg_image_kernel(image->whole, index)->name : image->text->names[index];
}

int image_find_kernel(const struct image *image, const char *name, unsigned *index)
{
	if (!image->whole) {
		*index = ptx_find_kernel(image->text, name);
		return *index != PTX_NONE;
	}
	for (*index = 0; *index < sg_image_kernel_count(image->whole); ++*index)
		if (!strcmp(sg_image_kernel(image->whole, *index)->name, name))
			return 1;
	return 0;
}

CUresult image_kernel(struct image *image, unsigned index, const struct sg_image **part, const struct sg_kernel **code)
{
	const struct sg_image *parsed = image->whole;
	CUresult status = CUDA_SUCCESS;
	if (!parsed) {
		struct part *mine = &image->kernels[index];
		pthread_mutex_lock(&image->lock);
		if (!mine->parsed && mine->status == CUDA_SUCCESS) {
			char what[512];
			snprintf(what, sizeof what, "kernel '%s'", image->text->names[index]);
			compile(image, mine, &image->text->kernels[index], 1, what);
		}
		parsed = mine->parsed;
		status = mine->status;
		pthread_mutex_unlock(&image->lock);
	}
	if (status != CUDA_SUCCESS)
		return status;
	unsigned at = image->whole ? index : 0;
	while (!image->whole && at < sg_image_kernel_count(parsed) &&
	       strcmp(sg_image_kernel(parsed, at)->name, image->text->names[index]))
		at++; /* a slice may hold other kernels: those whose address this one takes */
	*code = sg_image_kernel(parsed, at);
	if (part)
		*part = parsed;
	return *code ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

int image_is_loaded(struct image *image, unsigned kernel)
{
	if (image->whole)
		return 1;
	pthread_mutex_lock(&image->lock);
	const int loaded = image->kernels[kernel].parsed != NULL;
	pthread_mutex_unlock(&image->lock);
	return loaded;
}

int image_is_broken(struct image *image, unsigned kernel)
{
	if (image->whole)
		return 0;
	pthread_mutex_lock(&image->lock);
	const int broken = image->kernels[kernel].status != CUDA_SUCCESS;
	pthread_mutex_unlock(&image->lock);
	return broken;
}

CUresult image_parameter(struct image *image, unsigned kernel, size_t index, size_t *offset, size_t *size)
{
	struct ptx_parameter *list = NULL;
	const struct sg_kernel *code;
	int count = -1;
	if (!offset)
		return CUDA_ERROR_INVALID_VALUE;
	if (!image->whole && !image_is_loaded(image, kernel))
		count = ptx_parameters(&image->text->items[image->text->kernels[kernel]], &list);
	if (count >= 0) {
		const int known = index < (size_t)count;
		if (known) {
			*offset = list[index].offset;
			if (size)
				*size = list[index].size;
		}
		free(list);
		return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	}
	TRY(image_kernel(image, kernel, NULL, &code));
	if (index >= code->parameter_count)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = code->parameters[index].offset;
	if (size)
		*size = code->parameters[index].size;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ variables */

static uint32_t list_variables(const struct ptx_text *text, int managed, uint32_t *roots)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < text->count; i++) {
		const struct ptx_item *item = &text->items[i];
		if (item->kind == PTX_VARIABLE && !item->shared && !item->is_extern && (!managed || item->managed))
			roots[count++] = i;
	}
	return count;
}

/* With the image's lock held. */
static struct part *variable_part(struct image *image, uint32_t item)
{
	for (unsigned i = 0; i < image->variable_parts; i++)
		if (image->variables[i].item == item)
			return &image->variables[i];
	struct part *more = realloc(image->variables, (image->variable_parts + 1) * sizeof *more);
	uint32_t *roots = calloc((size_t)image->text->count + 1, sizeof *roots);
	if (more)
		image->variables = more;
	if (!more || !roots) {
		free(roots);
		return NULL;
	}
	struct part *part = &more[image->variable_parts++];
	*part = (struct part){ .item = item };
	uint32_t count = 1;
	*roots = item;
	if (item == ALL || item == MANAGED)
		count = list_variables(image->text, item == MANAGED, roots);
	compile(image, part, roots, count, "the module's variables");
	free(roots);
	return part;
}

CUresult image_variable(struct image *image, const char *name, const struct sg_image **part)
{
	*part = image->whole;
	if (image->whole)
		return CUDA_SUCCESS;
	if (!name && !image->text->managed)
		return CUDA_SUCCESS;
	uint32_t item = name ? ptx_find_variable(image->text, name) : MANAGED;
	if (item == PTX_NONE)
		return CUDA_ERROR_NOT_FOUND;
	if (name && image->text->variable_bytes <= FEW_VARIABLES)
		item = ALL;
	pthread_mutex_lock(&image->lock);
	const struct part *found = variable_part(image, item);
	CUresult status = found ? found->status : CUDA_ERROR_OUT_OF_MEMORY;
	*part = found ? found->parsed : NULL;
	pthread_mutex_unlock(&image->lock);
	return status;
}
