/* SPDX-License-Identifier: Apache-2.0
 *
 * The on-disk cache of compiled images as the driver sees it: the driver names the files and reads them, the
 * PTX helper (cache.py) writes them. All numbers little-endian.
 *
 * Folder: $BITFUSION_CACHE ("off" or empty: no cache), else $XDG_CACHE_HOME/bitfusion/ptx when that variable is an
 * absolute path, else $HOME/.cache/bitfusion/ptx. File: SG_CACHE_SUFFIX behind the first SG_CACHE_NAME_BYTES of the
 * key's digest in hexadecimal. A file counts only if it is the reader's own and nobody else can write to it, if the
 * header has the key and if the rest has the size and the digest that the header says.
 * A reader that used a file calls futimens(fd, NULL) on it: the oldest files are evicted first.
 */
#ifndef SOFTGPU_PTX_CACHE_H
#define SOFTGPU_PTX_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define SG_CACHE_MAGIC "SGCACHE2" /* 8 bytes, no NUL */
#define SG_CACHE_SUFFIX ".sgi"
#define SG_CACHE_MARKER ".hit" /* the driver's own: an empty file by a program's name */
enum { SG_CACHE_NAME_BYTES = 16 };

/* In a helper request with SG_HELPER_FLAG_KEY it follows the request's 16-byte head. */
#define SG_HELPER_FLAG_KEY 1u
struct sg_cache_key {
	uint64_t version; /* SG_IMAGE_VERSION: of whatever decides what an image holds */
	uint8_t digest[32]; /* BLAKE2b of version and the code; of a link, of each item's size, type and bytes */
};

struct sg_cache_header {
	char magic[8];
	struct sg_cache_key key;
	uint64_t image_size;
	uint8_t image_digest[32];
};

#endif
