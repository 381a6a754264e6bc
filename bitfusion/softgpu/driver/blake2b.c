/* SPDX-License-Identifier: Apache-2.0 */
#include "blake2b.h"

#include <string.h>

static const uint64_t initial[8] = {
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* In which order a round takes the words of the message; rounds 10 and 11 are as 0 and 1. */
static const uint8_t order[10][16] = {
	{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
	{ 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
	{ 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
	{ 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
	{ 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
	{ 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
	{ 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
	{ 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
	{ 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
	{ 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

static uint64_t rotate(uint64_t value, unsigned by)
{
	return value >> by | value << (64 - by);
}

static void mix(uint64_t *v, unsigned a, unsigned b, unsigned c, unsigned d, uint64_t x, uint64_t y)
{
	v[a] += v[b] + x;
	v[d] = rotate(v[d] ^ v[a], 32);
	v[c] += v[d];
	v[b] = rotate(v[b] ^ v[c], 24);
	v[a] += v[b] + y;
	v[d] = rotate(v[d] ^ v[a], 16);
	v[c] += v[d];
	v[b] = rotate(v[b] ^ v[c], 63);
}

static void compress(struct blake2b *hash, const uint8_t *block, int last)
{
	uint64_t v[16], m[16];
	memcpy(m, block, sizeof m);
	memcpy(v, hash->state, sizeof hash->state);
	memcpy(v + 8, initial, sizeof initial);
	v[12] ^= hash->total;
	if (last)
		v[14] = ~v[14];
	for (unsigned round = 0; round < 12; round++) {
		const uint8_t *s = order[round % 10];
		for (unsigned k = 0; k < 4; k++)
			mix(v, k, 4 + k, 8 + k, 12 + k, m[s[2 * k]], m[s[2 * k + 1]]);
		for (unsigned k = 0; k < 4; k++)
			mix(v, k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4, m[s[8 + 2 * k]], m[s[9 + 2 * k]]);
	}
	for (unsigned k = 0; k < 8; k++)
		hash->state[k] ^= v[k] ^ v[k + 8];
}

void blake2b_start(struct blake2b *hash)
{
	memset(hash, 0, sizeof *hash);
	memcpy(hash->state, initial, sizeof initial);
	hash->state[0] ^= 0x01010000 ^ BLAKE2B_DIGEST;
}

void blake2b_add(struct blake2b *hash, const void *bytes, size_t size)
{
	const uint8_t *at = bytes;
	while (size) {
		if (hash->filled == sizeof hash->block) { /* not the last: more follows */
			hash->total += sizeof hash->block;
			compress(hash, hash->block, 0);
			hash->filled = 0;
		}
		const size_t room = sizeof hash->block - hash->filled, part = size < room ? size : room;
		memcpy(hash->block + hash->filled, at, part);
		hash->filled += part;
		at += part;
		size -= part;
	}
}

void blake2b_finish(struct blake2b *hash, uint8_t digest[BLAKE2B_DIGEST])
{
	hash->total += hash->filled;
	memset(hash->block + hash->filled, 0, sizeof hash->block - hash->filled);
	compress(hash, hash->block, 1);
	memcpy(digest, hash->state, BLAKE2B_DIGEST);
}
