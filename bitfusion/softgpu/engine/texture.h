/* SPDX-License-Identifier: Apache-2.0
 *
 * Textures and surfaces: what the driver describes, and the numbers by which kernels name them.
 */
#ifndef SOFTGPU_TEXTURE_H
#define SOFTGPU_TEXTURE_H

#include <stdint.h>

#define SG_TEXTURE_LEVELS 18

enum { SG_TEXTURE = 1, SG_SURFACE }; /* kind */
/* The numbers of CUarray_format … */
enum sg_texel {
	SG_TEXEL_U8 = 1,
	SG_TEXEL_U16 = 2,
	SG_TEXEL_U32 = 3,
	SG_TEXEL_S8 = 8,
	SG_TEXEL_S16 = 9,
	SG_TEXEL_S32 = 10,
	SG_TEXEL_F16 = 16,
	SG_TEXEL_F32 = 32
};
/* … and of CUaddress_mode. */
enum sg_address_mode { SG_ADDRESS_WRAP, SG_ADDRESS_CLAMP, SG_ADDRESS_MIRROR, SG_ADDRESS_BORDER };

struct sg_level {
	uint64_t offset, pitch, slice; /* bytes, from the start of the memory */
	uint32_t width, height, depth; /* elements, at least 1 */
};

struct sg_texture {
	uint64_t address, size; /* all of its memory */
	uint32_t levels, layers; /* layers: slices of a layered one, six a cube; else 1 */
	uint8_t kind, format, channels;
	uint8_t linear_memory; /* what lies outside is 0 */
	uint8_t address_mode[3], filter, mip_filter; /* filters: 1 linear */
	uint8_t normalised; /* coordinates */
	uint8_t as_integer; /* integers of 8 and 16 bits are not made fractions */
	uint8_t srgb;
	float border[4], bias, min_level, max_level;
	struct sg_level level[SG_TEXTURE_LEVELS];
};

static inline uint32_t sg_texel_bytes(unsigned format)
{
	switch (format) {
	case SG_TEXEL_U8:
	case SG_TEXEL_S8: return 1;
	case SG_TEXEL_U16:
	case SG_TEXEL_S16:
	case SG_TEXEL_F16: return 2;
	case SG_TEXEL_U32:
	case SG_TEXEL_S32:
	case SG_TEXEL_F32: return 4;
	}
	return 0;
}

#pragma GCC visibility push(default)
/* Copies it; 0 when there are too many. A number is not given out again soon. */
uint64_t sg_texture_add(const struct sg_texture *texture);
int sg_texture_remove(uint64_t number, unsigned kind); /* 0, or -1 when unknown */
/* Any number may be asked about. 1: a copy was made. */
int sg_texture_find(uint64_t number, unsigned kind, struct sg_texture *texture);
#pragma GCC visibility pop

#endif
