/* SPDX-License-Identifier: Apache-2.0
 *
 * Where two pieces of memory differ. Other threads of the program may be writing one of them meanwhile: then what is
 * found of that is a matter of chance, as it is for a kernel, and a later comparison finds the rest. So
 * ThreadSanitizer is kept from looking.
 */
#define _GNU_SOURCE
#include "shared.h"

#include <string.h>

enum { STEP = 1024 };

#ifdef __SANITIZE_THREAD__
#define UNWATCHED __attribute__((no_sanitize_thread))

/* the library's functions are watched */
UNWATCHED static bool are_equal(const uint8_t *one, const uint8_t *other, size_t size)
{
	size_t at = 0;

	while (at < size && one[at] == other[at])
		at++;
	return at == size;
}

UNWATCHED void bf_difference_copy(uint8_t *to, const uint8_t *from, size_t size)
{
	for (size_t at = 0; at < size; at++)
		*(volatile uint8_t *)&to[at] = from[at]; /* not to become memcpy again */
}
#else
#define UNWATCHED

static bool are_equal(const uint8_t *one, const uint8_t *other, size_t size)
{
	return !memcmp(one, other, size);
}

void bf_difference_copy(uint8_t *to, const uint8_t *from, size_t size)
{
	memcpy(to, from, size);
}
#endif

UNWATCHED static uint64_t word_at(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof word);
	return word;
}

/* The first byte at or after `from` that differs, or `size`. */
UNWATCHED static size_t first_difference(const uint8_t *one, const uint8_t *other, size_t size, size_t from)
{
	while (size - from >= STEP && are_equal(one + from, other + from, STEP))
		from += STEP;
	while (size - from >= 8 && word_at(one + from) == word_at(other + from))
		from += 8;
	while (from < size && one[from] == other[from])
		from++;
	return from;
}

/* Where a run that starts at `at` ends. By words: equal bytes at the end of one may be part of it. */
UNWATCHED static size_t end_by_words(const uint8_t *one, const uint8_t *other, size_t size, size_t at, size_t gap)
{
	size_t end = at;

	for (; size - at >= 8 && at - end <= gap; at += 8)
		if (word_at(one + at) != word_at(other + at))
			end = at + 8;
	for (; at < size && at - end <= gap; at++)
		if (one[at] != other[at])
			end = at + 1;
	return end;
}

UNWATCHED static size_t end_by_bytes(const uint8_t *one, const uint8_t *other, size_t size, size_t at)
{
	while (at < size && one[at] != other[at])
		at++;
	return at;
}

UNWATCHED bool bf_difference_next(const uint8_t *one, const uint8_t *other, size_t size, size_t from, size_t gap,
				  struct bf_run *run)
{
	run->start = first_difference(one, other, size, from);
	if (run->start == size)
		return false;
	run->end = gap ? end_by_words(one, other, size, run->start, gap) : end_by_bytes(one, other, size, run->start);
	return true;
}

/* No byte of the word is 0. */
UNWATCHED static bool is_full(uint64_t word)
{
	return !((word - 0x0101010101010101) & ~word & 0x8080808080808080);
}

UNWATCHED static void take_byte(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t at)
{
	if (agreed[at] != from[at])
		to[at] = agreed[at] = from[at];
}

UNWATCHED void bf_difference_apply(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t size)
{
	for (size_t at = 0; (at = first_difference(agreed, from, size, at)) < size;) {
		size_t end = size - at < 8 ? size : at + 8;

		if (end - at == 8 && is_full(word_at(agreed + at) ^ word_at(from + at))) {
			bf_difference_copy(to + at, from + at, 8);
			bf_difference_copy(agreed + at, from + at, 8);
		}
		for (; at < end; at++)
			take_byte(to, agreed, from, at);
	}
}
