/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout of an image's bytes; encode.py writes it. Little-endian, sections 8-aligned.
 */
#ifndef SOFTGPU_IMAGE_H
#define SOFTGPU_IMAGE_H

#include "internal.h"

enum sg_section {
	SG_OPS,
	SG_LINES,
	SG_TEXTS,
	SG_FUNCTIONS,
	SG_CONSTANTS,
	SG_VARIABLES,
	SG_RELOCATIONS,
	SG_KERNELS,
	SG_PARAMETERS,
	SG_CALLS,
	SG_COPIES,
	SG_TARGETS,
	SG_STRINGS,
	SG_DATA,
	SG_SECTIONS
};

struct sg_header {
	char magic[8]; /* "SGIMAGE" */
	uint64_t version, size;
	struct {
		uint64_t offset, count;
	} section[SG_SECTIONS];
};

struct sg_function_row {
	uint32_t name, first, count, register_bytes, local_bytes, line, prologue;
};

struct sg_variable_row {
	uint32_t name, flags; /* 1: constant, 2: managed, 4: extern */
	uint64_t size, align, data, data_size;
};

struct sg_kernel_row {
	uint32_t name, function, flags, stack, first_parameter, parameters, parameters_size, registers, static_shared,
		local_bytes, const_bytes, max_threads, required_block[3], required_cluster[3], ptx_version, target,
		max_cluster, explicit_cluster;
};

#define SG_MAX_FRAME (16u << 20)
#define SG_MAX_STACK (1u << 20)

/* image_check.c: every record of every function; false with a reason. */
bool sg_image_check(const struct sg_image *image, char *reason, size_t reason_size);

#endif
