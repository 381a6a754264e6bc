/* SPDX-License-Identifier: Apache-2.0
 *
 * Damages bytes at random, for the programs that load what came of it.
 */
#ifndef FUZZ_DAMAGE_H
#define FUZZ_DAMAGE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static inline void seed_random(const char *number)
{
	state = strtoull(number, NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
}

static inline uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Bytes that mean something to the scan, and offsets that do to the headers. */
static inline void damage(unsigned char *bytes, size_t size)
{
	static const char telling[] = "{}\"/*;.@,()[]=\n\\ %$\0x9";
	const size_t window = next_random() % 2 ? size : (size < 100 ? size : 100);

	for (int k = (int)(next_random() % 5); k >= 0; k--) {
		const size_t at = next_random() % window, from = next_random() % size;
		size_t length = next_random() % 40;

		switch (next_random() % 5) {
		case 0: bytes[at] ^= (unsigned char)(1u << next_random() % 8); break;
		case 1: bytes[at] = (unsigned char)next_random(); break;
		case 2: bytes[at] = (unsigned char)telling[next_random() % sizeof telling]; break;
		case 3: bytes[at] = (unsigned char)(next_random() % 2 ? 0xff : 0); break;
		default:
			if (length > size - at)
				length = size - at;
			if (length > size - from)
				length = size - from;
			memmove(bytes + at, bytes + from, length);
		}
	}
}

/* A damaged copy, now and then cut off, of its size and no more: reading over the end is seen. */
static inline unsigned char *damaged(const unsigned char *good, size_t size, size_t *cut)
{
	*cut = next_random() % 20 ? size : next_random() % size + 1;
	unsigned char *bad = malloc(*cut);

	if (!bad)
		exit(2);
	memcpy(bad, good, *cut);
	damage(bad, *cut);
	return bad;
}

static inline unsigned char *read_file(const char *name, size_t *size)
{
	FILE *file = fopen(name, "rb");
	unsigned char *bytes = malloc(1 << 22);

	if (!file || !bytes)
		exit(2);
	*size = fread(bytes, 1, 1 << 22, file);
	fclose(file);
	return bytes;
}

#endif
