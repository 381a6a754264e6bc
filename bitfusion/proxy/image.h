/* SPDX-License-Identifier: Apache-2.0
 *
 * Code on its way to the server (image.c, load.c).
 */
#ifndef BITFUSION_PROXY_IMAGE_H
#define BITFUSION_PROXY_IMAGE_H

#include "handle.h"

struct bf_wait;

struct bf_image {
	const void *data;
	uint64_t size;
	void *mapping; /* of a file, or of several images joined */
	uint64_t mapping_size;
	uint32_t input_count; /* as in struct bf_load */
	const char *problem; /* with CUDA_ERROR_INVALID_IMAGE */
};

CUresult bf_image_of(const void *pointer, struct bf_image *image); /* finds the size */
CUresult bf_image_of_file(const char *path, struct bf_image *image); /* CUDA_ERROR_INVALID_VALUE: it is empty */
CUresult bf_image_of_code_file(const char *path, struct bf_image *image); /* one that says how long it is */
void bf_image_close(struct bf_image *image);

struct bf_options {
	unsigned count;
	const CUjit_option *names;
	void **values;
};
CUresult bf_load(const struct bf_load *load, const char *text, const struct bf_options *options,
		 const struct bf_options *library_options, const struct bf_image *image, struct bf_wait *wait);

/* A module or a library, whose handle it mints, from a file or, where path is NULL, from memory. */
CUresult bf_load_code(enum bf_handle_kind kind, const void *code, const char *path, const struct bf_options *options,
		      const struct bf_options *library_options, uint64_t *handle);
const uint8_t *bf_load_logs(const struct bf_wait *wait, const struct bf_options *options);

#endif
