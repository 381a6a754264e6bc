/* SPDX-License-Identifier: Apache-2.0
 *
 * A number for a piece of memory, by which both ends know whether they have the same without sending it. Every step
 * is a bijection, of what was there before and of what comes in, so that pieces which differ in one word never have
 * the same number; others have it with a probability of 2^-64.
 */
#ifndef BITFUSION_DIGEST_H
#define BITFUSION_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Kernels may be writing what is looked at: then a later look finds the rest. */
#ifdef __SANITIZE_THREAD__
#define BF_DIGEST_UNWATCHED __attribute__((no_sanitize_thread))
#else
#define BF_DIGEST_UNWATCHED
#endif

enum { BF_DIGEST_LANES = 8 };

BF_DIGEST_UNWATCHED static inline uint64_t bf_digest_mix(uint64_t state, uint64_t word)
{
	state ^= word;
	state = state << 29 | state >> 35;
	return state * 0x9fb21c651e98df25; /* odd */
}

BF_DIGEST_UNWATCHED static inline uint64_t bf_digest(const uint8_t *bytes, size_t size)
{
	uint64_t lane[BF_DIGEST_LANES], word, digest = size;
	size_t at = 0;

	for (unsigned i = 0; i < BF_DIGEST_LANES; i++)
		lane[i] = (i + 1) * 0xd6e8feb86659fd93;
	for (; size - at >= sizeof lane; at += sizeof lane)
		for (unsigned i = 0; i < BF_DIGEST_LANES; i++) {
			memcpy(&word, bytes + at + i * sizeof word, sizeof word);
			lane[i] = bf_digest_mix(lane[i], word);
		}
	for (unsigned i = 0; at < size; i++, at += sizeof word) {
		word = 0;
		memcpy(&word, bytes + at, size - at < sizeof word ? size - at : sizeof word);
		lane[i] = bf_digest_mix(lane[i], word);
	}
	for (unsigned i = 0; i < BF_DIGEST_LANES; i++) {
		digest = bf_digest_mix(digest, lane[i]);
		digest ^= digest >> 32;
	}
	return digest;
}

#endif
