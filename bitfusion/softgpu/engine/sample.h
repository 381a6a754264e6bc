/* SPDX-License-Identifier: Apache-2.0
 *
 * One lane's fetch from a texture.
 */
#ifndef SOFTGPU_SAMPLE_H
#define SOFTGPU_SAMPLE_H

#include <stdbool.h>

#include "texture.h"

/* enum order: see lower_texture.py */
enum sg_geometry { SG_1D, SG_2D, SG_3D, SG_CUBE };
enum sg_detail { SG_DETAIL_BASE, SG_DETAIL_LEVEL, SG_DETAIL_GRADIENT };

struct sg_sample {
	unsigned geometry, detail;
	bool real; /* coordinates are f32 */
	uint32_t layer;
	float at[3];
	int32_t whole[3];
	float level, dx[3], dy[3];
	int32_t offset[3];
};

/* Four words: floats where the texture has fractions or floats, else integers. */
void sg_texture_sample(const struct sg_texture *texture, const char *memory, const struct sg_sample *sample,
		       uint32_t out[4]);
/* One component of the four texels that linear filtering would read. */
void sg_texture_gather(const struct sg_texture *texture, const char *memory, const struct sg_sample *sample,
		       unsigned component, uint32_t out[4]);
/* The four words of a texel. */
void sg_texel_read(const struct sg_texture *texture, const char *texel, uint32_t out[4]);

#endif
