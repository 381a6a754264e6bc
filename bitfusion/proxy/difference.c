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

/* All bits of those bytes in which the two differ. */
UNWATCHED static uint64_t differing_bytes(uint64_t one, uint64_t other)
{
	uint64_t low = 0x7f7f7f7f7f7f7f7f, bits = one ^ other;

	return ((((bits & low) + low) | bits) >> 7 & 0x0101010101010101) * 0xff;
}

/* At once, as the device has written it, whatever other threads of the program write beside. */
UNWATCHED static void apply_word(uint8_t *to, uint8_t *agreed, const uint8_t *from)
{
	uint64_t *word = (uint64_t *)(void *)to, known = word_at(agreed), wanted = word_at(from);
	uint64_t mask = differing_bytes(known, wanted), seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(word, &seen, (seen & ~mask) | (wanted & mask), true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	memcpy(agreed, &wanted, sizeof wanted);
}

UNWATCHED static void apply_byte(uint8_t *to, uint8_t *agreed, const uint8_t *from)
{
	if (*agreed != *from)
		*(volatile uint8_t *)to = *agreed = *from;
}

UNWATCHED void bf_difference_apply(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t size)
{
	size_t at = 0;

	while ((at = first_difference(agreed, from, size, at)) < size) {
		size_t into = (uintptr_t)(to + at) % 8;

		if (into <= at && size - (at - into) >= 8) {
			at -= into;
			apply_word(to + at, agreed + at, from + at);
			at += 8;
		} else {
			apply_byte(to + at, agreed + at, from + at);
			at++;
		}
	}
}
