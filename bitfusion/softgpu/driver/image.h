/* SPDX-License-Identifier: Apache-2.0
 *
 * How the driver dresses a compiled image that the program holds in its own hands, and takes PTX text apart.
 */
#ifndef SOFTGPU_IMAGE_H
#define SOFTGPU_IMAGE_H

#include "driver.h"

enum { OWN_KIND = 0x4247 }; /* of a fatbin entry; no compiler makes such a one */

/* CUDA_ERROR_INVALID_IMAGE, and a line, for a file of so many bytes, with a NUL behind them, that is not all there. */
CUresult image_check_file(const void *code, size_t size, const struct jit_options *options);

/* malloc'ed */
void *image_wrap(const void *bytes, size_t size, size_t *total);

/* An image that is compiled kernel by kernel. It owns the text from then on; NULL, the text not taken, where the text
 * must be compiled as a whole. */
struct image *image_split(char *bytes, size_t size);
void image_free_parts(struct image *image);

#endif
