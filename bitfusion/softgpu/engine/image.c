/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads an image. Nothing in it is trusted: sections, references and records are checked here once, so that running
 * it needs no further checks of its own form.
 */
#include <stdio.h>
#include <stdlib.h>

#include "generated/opcodes.h"
#include "generated/version.h"
#include "image.h"

static const uint32_t row_size[SG_SECTIONS] = {
	sizeof(struct sg_op),
	4,
	4,
	sizeof(struct sg_function_row),
	sizeof(struct sg_constant),
	sizeof(struct sg_variable_row),
	sizeof(struct sg_relocation),
	sizeof(struct sg_kernel_row),
	sizeof(struct sg_parameter),
	sizeof(struct sg_call),
	sizeof(struct sg_copy),
	4,
	1,
	1,
};

static bool bad(char *reason, size_t size, const char *why)
{
	snprintf(reason, size, "damaged image: %s", why);
	return false;
}

uint64_t sg_image_version(void)
{
	return SG_IMAGE_VERSION;
}

static bool check_header(const struct sg_header *header, size_t size, char *reason, size_t reason_size)
{
	if (size < sizeof(*header) || memcmp(header->magic, "SGIMAGE", 8))
		return bad(reason, reason_size, "not an image of the software GPU");
	if (header->version != SG_IMAGE_VERSION) {
		snprintf(reason, reason_size, "the image was made by another build of the software GPU");
		return false;
	}
	if (header->size != size)
		return bad(reason, reason_size, "cut off");
	for (int k = 0; k < SG_SECTIONS; k++) {
		const uint64_t offset = header->section[k].offset, count = header->section[k].count;

		if (offset % 8 || offset > size || count > (size - offset) / row_size[k] || count > UINT32_MAX)
			return bad(reason, reason_size, "a section lies outside");
	}
	if (header->section[SG_LINES].count != header->section[SG_OPS].count ||
	    header->section[SG_TEXTS].count != header->section[SG_OPS].count || !header->section[SG_STRINGS].count)
		return bad(reason, reason_size, "sections do not match");
	return true;
}

static void *section(const struct sg_image *image, enum sg_section which, uint32_t *count)
{
	const struct sg_header *header = (const struct sg_header *)image->bytes;

	if (count)
		*count = (uint32_t)header->section[which].count;
	return image->bytes + header->section[which].offset;
}

static void find_sections(struct sg_image *image)
{
	uint32_t unused;

	image->ops = section(image, SG_OPS, &image->op_count);
	image->lines = section(image, SG_LINES, NULL);
	image->texts = section(image, SG_TEXTS, NULL);
	image->constants = section(image, SG_CONSTANTS, &image->constant_count);
	image->relocations = section(image, SG_RELOCATIONS, &image->relocation_count);
	image->calls = section(image, SG_CALLS, &image->call_count);
	image->copies = section(image, SG_COPIES, &image->copy_count);
	image->targets = section(image, SG_TARGETS, &image->target_count);
	image->strings = section(image, SG_STRINGS, &image->string_bytes);
	image->parameters = section(image, SG_PARAMETERS, &unused);
}

static bool read_functions(struct sg_image *image)
{
	const struct sg_function_row *rows = section(image, SG_FUNCTIONS, &image->function_count);

	image->functions = calloc(image->function_count + 1, sizeof(*image->functions));
	if (!image->functions)
		return false;
	for (uint32_t k = 0; k < image->function_count; k++) {
		const struct sg_function_row *row = &rows[k];

		if (row->name >= image->string_bytes || row->first > image->op_count ||
		    row->count > image->op_count - row->first || row->register_bytes > SG_MAX_FRAME ||
		    row->register_bytes % 64 || row->register_bytes < 64 || row->local_bytes > SG_MAX_STACK)
			return false;
		image->functions[k] = (struct sg_function){ .name = image->strings + row->name,
							    .first = row->first,
							    .count = row->count,
							    .register_bytes = row->register_bytes,
							    .local_bytes = row->local_bytes,
							    .line = row->line,
							    .prologue = row->prologue };
	}
	return true;
}

static bool read_variables(struct sg_image *image)
{
	const struct sg_variable_row *rows = section(image, SG_VARIABLES, &image->variable_count);
	uint32_t data_bytes;
	const unsigned char *data = section(image, SG_DATA, &data_bytes);

	image->variables = calloc(image->variable_count + 1, sizeof(*image->variables));
	image->initial = calloc(image->variable_count + 1, sizeof(*image->initial));
	image->initial_size = calloc(image->variable_count + 1, sizeof(*image->initial_size));
	if (!image->variables || !image->initial || !image->initial_size)
		return false;
	for (uint32_t k = 0; k < image->variable_count; k++) {
		const struct sg_variable_row *row = &rows[k];

		if (row->name >= image->string_bytes || row->size > 1ull << 40 || !row->align || row->align > 4096 ||
		    row->align & (row->align - 1) || row->data > data_bytes ||
		    row->data_size > data_bytes - row->data || row->data_size > row->size || row->flags & 4)
			return false;
		image->variables[k] = (struct sg_variable){ .name = image->strings + row->name,
							    .size = row->size,
							    .align = row->align,
							    .constant = row->flags & 1,
							    .managed = row->flags >> 1 & 1 };
		image->initial[k] = data + row->data;
		image->initial_size[k] = row->data_size;
	}
	return true;
}

static bool read_kernel(struct sg_image *image, uint32_t k, const struct sg_kernel_row *row, uint32_t parameters)
{
	struct sg_kernel *kernel = &image->kernels[k];

	if (row->name >= image->string_bytes || row->function >= image->function_count ||
	    !image->functions[row->function].count || row->first_parameter > parameters ||
	    row->parameters > parameters - row->first_parameter || row->parameters_size > 65536 ||
	    row->stack > SG_MAX_STACK || row->stack < image->functions[row->function].local_bytes ||
	    row->static_shared > SG_MAX_STACK)
		return false;
	for (uint32_t p = 0; p < row->parameters; p++) {
		const struct sg_parameter *parameter = &image->parameters[row->first_parameter + p];

		if (parameter->offset > row->parameters_size ||
		    parameter->size > row->parameters_size - parameter->offset)
			return false;
	}
	*kernel = (struct sg_kernel){ .name = image->strings + row->name,
				      .parameter_count = row->parameters,
				      .parameters_size = row->parameters_size,
				      .parameters = image->parameters + row->first_parameter,
				      .registers = row->registers,
				      .static_shared = row->static_shared,
				      .local_bytes = row->local_bytes,
				      .const_bytes = row->const_bytes,
				      .max_threads = row->max_threads,
				      .ptx_version = (int)row->ptx_version,
				      .target = (int)row->target,
				      .max_cluster = row->max_cluster,
				      .explicit_cluster = row->explicit_cluster != 0 };
	memcpy(kernel->required_block, row->required_block, sizeof(kernel->required_block));
	memcpy(kernel->required_cluster, row->required_cluster, sizeof(kernel->required_cluster));
	image->kernel_function[k] = row->function;
	image->kernel_flags[k] = row->flags;
	image->kernel_stack[k] = row->stack;
	return true;
}

static bool read_kernels(struct sg_image *image)
{
	uint32_t parameters;
	const struct sg_kernel_row *rows = section(image, SG_KERNELS, &image->kernel_count);

	section(image, SG_PARAMETERS, &parameters);
	image->kernels = calloc(image->kernel_count + 1, sizeof(*image->kernels));
	image->kernel_function = calloc(image->kernel_count + 1, 3 * sizeof(uint32_t));
	if (!image->kernels || !image->kernel_function)
		return false;
	image->kernel_flags = image->kernel_function + image->kernel_count + 1;
	image->kernel_stack = image->kernel_flags + image->kernel_count + 1;
	for (uint32_t k = 0; k < image->kernel_count; k++)
		if (!read_kernel(image, k, &rows[k], parameters))
			return false;
	return true;
}

static bool read_constants(struct sg_image *image)
{
	for (uint32_t k = 0; k < image->constant_count; k++) {
		const struct sg_constant *constant = &image->constants[k];

		if ((constant->bytes != 2 && constant->bytes != 4 && constant->bytes != 8) ||
		    constant->kind > SG_CONSTANT_GT ||
		    (constant->variable != SG_NOWHERE && constant->variable >= image->variable_count))
			return false;
		image->constant_bytes += (uint64_t)constant->bytes * SG_LANES;
	}
	for (uint32_t k = 0; k < image->relocation_count; k++) {
		const struct sg_relocation *row = &image->relocations[k];

		if (row->variable >= image->variable_count ||
		    (row->symbol != SG_NOWHERE && row->symbol >= image->variable_count) || row->size > 8 ||
		    !row->size || row->shift > 63 || row->offset > image->variables[row->variable].size ||
		    row->size > image->variables[row->variable].size - row->offset)
			return false;
	}
	for (uint32_t k = 0; k < image->op_count; k++)
		if (image->texts[k] >= image->string_bytes)
			return false;
	return !image->strings[image->string_bytes - 1];
}

struct sg_image *sg_image_parse(const void *bytes, size_t size, char *reason, size_t reason_size)
{
	struct sg_header header;
	struct sg_image *image;

	memset(&header, 0, sizeof(header));
	memcpy(&header, bytes, size < sizeof(header) ? size : sizeof(header));
	if (!check_header(&header, size, reason, reason_size))
		return NULL;
	image = calloc(1, sizeof(*image));
	if (!image || posix_memalign((void **)&image->bytes, 64, size)) {
		free(image);
		bad(reason, reason_size, "no memory for it");
		return NULL;
	}
	memcpy(image->bytes, bytes, size);
	find_sections(image);
	if (!read_functions(image) || !read_variables(image) || !read_kernels(image) || !read_constants(image)) {
		bad(reason, reason_size, "a table refers to something outside");
		sg_image_free(image);
		return NULL;
	}
	if (!sg_image_check(image, reason, reason_size)) {
		sg_image_free(image);
		return NULL;
	}
	return image;
}

void sg_image_free(struct sg_image *image)
{
	if (!image)
		return;
	free(image->functions);
	free(image->variables);
	free(image->initial);
	free(image->initial_size);
	free(image->kernels);
	free(image->kernel_function);
	free(image->bytes);
	free(image);
}

unsigned sg_image_variable_count(const struct sg_image *image)
{
	return image->variable_count;
}

const struct sg_variable *sg_image_variable(const struct sg_image *image, unsigned index)
{
	return index < image->variable_count ? &image->variables[index] : NULL;
}

unsigned sg_image_kernel_count(const struct sg_image *image)
{
	return image->kernel_count;
}

const struct sg_kernel *sg_image_kernel(const struct sg_image *image, unsigned index)
{
	return index < image->kernel_count ? &image->kernels[index] : NULL;
}
