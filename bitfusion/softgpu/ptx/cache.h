/* SPDX-License-Identifier: Apache-2.0
 *
 * The on-disk cache of compiled images as the driver sees it: the driver names the files and reads them, the
 * PTX helper (cache.py) writes them. All numbers little-endian.
 *
 * Folder: $BITFUSION_CACHE ("off" or empty: no cache), else $XDG_CACHE_HOME/bitfusion/ptx when that variable is an
 * absolute path, else $HOME/.cache/bitfusion/ptx. File: SG_CACHE_NAME of (fnv, raw_size).
 * A file counts only if the header matches in every field and the file is exactly header + image_size bytes long.
 * A reader that used a file calls futimens(fd, NULL) on it: the oldest files are evicted first.
 */
#ifndef SOFTGPU_PTX_CACHE_H
#define SOFTGPU_PTX_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define SG_CACHE_MAGIC "SGCACHE1" /* 8 bytes, no NUL */
#define SG_CACHE_NAME "%016llx-%llx.sgi"

struct sg_cache_header {
	char magic[8];
	uint64_t version; /* SG_IMAGE_VERSION: of whatever decides what an image holds */
	uint64_t raw_size; /* bytes that were hashed: the image as given; for a link every item (head and data) */
	uint64_t fnv;    /* FNV-1a from SG_FNV_SEED */
	uint64_t fnv2;    /* FNV-1a from SG_FNV_SEED2 */
	uint64_t image_size;
};

/* In a helper request with this flag, struct sg_cache_key follows the request's 16-byte head. */
#define SG_HELPER_FLAG_KEY 1u

struct sg_cache_key {
	uint64_t version, raw_size, fnv, fnv2;
};

#define SG_FNV_SEED 0xcbf29ce484222325ull
#define SG_FNV_SEED2 0x9e3779b97f4a7c15ull

static inline uint64_t sg_fnv(uint64_t state, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < size; i++)
		state = (state ^ bytes[i]) * 0x100000001b3ull;
	return state;
}

#endif
