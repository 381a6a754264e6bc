/* SPDX-License-Identifier: Apache-2.0
 *
 * What compilers put around code: a fat binary, which holds images with a header each, and the wrapper by which a program
 * passes one. Known from public descriptions and from what nvcc writes.
 */
#ifndef BITFUSION_ABI_CONTAINER_H
#define BITFUSION_ABI_CONTAINER_H

#include <stdint.h>

#define FATBIN_MAGIC 0xba55ed50u
#define WRAPPER_MAGIC 0x466243b1u

struct fatbin_header {
	uint32_t magic;
	uint16_t version, header_size;
	uint64_t size; /* of the entries, which follow */
};

struct fatbin_entry {
	uint16_t kind, version;
	uint32_t header_size;
	uint64_t stored; /* bytes that follow, padded */
	uint32_t compressed, options;
	uint16_t minor, major; /* of a link's input, minor is its limit of registers */
	uint32_t arch, name_offset, name_size; /* arch: of a link's input, its type */
	uint64_t flags, zero, size;
};
_Static_assert(sizeof(struct fatbin_entry) == 64, "as compilers write it");

/* A kind of our own: an input of a link, in what our libnvJitLink makes (docs/softgpu.md). */
enum { FATBIN_LINK_INPUT = 0x4246 };

enum { WRAPPER_PLAIN = 1, WRAPPER_LINKED = 2 };
struct code_wrapper {
	uint32_t magic, version;
	const void *data;
	const void *const *inputs; /* WRAPPER_LINKED, of nvcc -rdc: what `data` was linked from; NULL ends it */
};

#endif
