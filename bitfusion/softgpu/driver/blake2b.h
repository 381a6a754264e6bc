/* SPDX-License-Identifier: Apache-2.0
 *
 * BLAKE2b with 32 bytes of digest and no key (RFC 7693), for the names of files in the cache: whoever knows how they
 * are made must not be able to make two images of one name.
 */
#ifndef SOFTGPU_BLAKE2B_H
#define SOFTGPU_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

enum { BLAKE2B_DIGEST = 32 };

struct blake2b {
	uint64_t state[8], total;
	uint8_t block[128];
	size_t filled;
};

void blake2b_start(struct blake2b *hash);
void blake2b_add(struct blake2b *hash, const void *bytes, size_t size); /* less than 2^64 bytes in all */
void blake2b_finish(struct blake2b *hash, uint8_t digest[BLAKE2B_DIGEST]);

#endif
