/* SPDX-License-Identifier: Apache-2.0
 *
 * An image placed in memory: its variables have addresses, so its constants have values.
 */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

static uint64_t lane_value(const struct sg_constant *constant, uint32_t lane, uint64_t value)
{
	switch (constant->kind) {
	case SG_CONSTANT_LANE: return lane;
	case SG_CONSTANT_EQ: return 1u << lane;
	case SG_CONSTANT_LE: return (2ull << lane) - 1;
	case SG_CONSTANT_LT: return (1u << lane) - 1;
	case SG_CONSTANT_GE: return SG_ALL << lane;
	case SG_CONSTANT_GT: return (uint32_t)~((2ull << lane) - 1);
	}
	return value;
}

static void fill_constants(struct sg_module *module)
{
	const struct sg_image *image = module->image;
	char *at = module->constants;

	for (uint32_t k = 0; k < image->constant_count; k++) {
		const struct sg_constant *constant = &image->constants[k];
		const uint64_t value =
			constant->value + (constant->variable == SG_NOWHERE ? 0 : module->address[constant->variable]);

		for (uint32_t l = 0; l < SG_LANES; l++, at += constant->bytes) {
			const uint64_t v = lane_value(constant, l, value);

			memcpy(at, &v, constant->bytes);
		}
	}
}

static void fill_variables(struct sg_module *module, const uint8_t *fresh)
{
	const struct sg_image *image = module->image;

	for (uint32_t k = 0; k < image->variable_count; k++) {
		char *to = (char *)(uintptr_t)module->address[k];
		const uint64_t initial = image->initial_size[k];

		if (fresh && !fresh[k])
			continue;
		if (initial)
			memcpy(to, image->initial[k], initial);
		if (image->variables[k].size > initial)
			memset(to + initial, 0, image->variables[k].size - initial);
	}
	for (uint32_t k = 0; k < image->relocation_count; k++) {
		const struct sg_relocation *row = &image->relocations[k];
		const uint64_t value = row->value + (row->symbol == SG_NOWHERE ? 0 : module->address[row->symbol]);
		const uint64_t shifted = value >> row->shift;

		if (!fresh || fresh[row->variable])
			memcpy((char *)(uintptr_t)module->address[row->variable] + row->offset, &shifted, row->size);
	}
}

struct sg_module *sg_module_create(const struct sg_image *image, const uint64_t *address, char *reason,
				   size_t reason_size)
{
	return sg_module_join(image, address, NULL, reason, reason_size);
}

struct sg_module *sg_module_join(const struct sg_image *image, const uint64_t *address, const uint8_t *fresh,
				 char *reason, size_t reason_size)
{
	struct sg_module *module = calloc(1, sizeof(*module));

	if (!module)
		goto fail;
	module->image = image;
	module->address = calloc(image->variable_count + 1, sizeof(*module->address));
	if (!module->address || posix_memalign((void **)&module->constants, 64, image->constant_bytes + 64))
		goto fail;
	if (image->variable_count)
		memcpy(module->address, address, image->variable_count * sizeof(*address));
	fill_constants(module);
	fill_variables(module, fresh);
	return module;
fail:
	snprintf(reason, reason_size, "no memory for the module");
	sg_module_free(module);
	return NULL;
}

void sg_module_free(struct sg_module *module)
{
	if (!module)
		return;
	free(module->constants);
	free(module->address);
	free(module);
}

const struct sg_image *sg_module_image(const struct sg_module *module)
{
	return module->image;
}

unsigned sg_module_kernel_count(const struct sg_module *module)
{
	return module->image->kernel_count;
}

const struct sg_kernel *sg_module_kernel(const struct sg_module *module, unsigned index)
{
	return sg_image_kernel(module->image, index);
}
