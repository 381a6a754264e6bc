/* SPDX-License-Identifier: Apache-2.0
 *
 * What changed goes to memory in which other threads write and look meanwhile: no byte of theirs is lost, and no
 * number is ever seen half written. And memory that is gone is no fault.
 */
#define _GNU_SOURCE
#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

enum { ROUNDS = 300000, SIZE = 3 * 4096 };

struct both {
	union {
		_Atomic uint64_t word;
		_Atomic uint8_t byte[8];
	};
	_Atomic bool over;
	unsigned long torn;
};

/* 4 bytes are the device's; of those that go from one value to the next, some are equal. */
static const uint32_t values[2] = { 0x00ff1200, 0xff001234 };

static void *look(void *argument)
{
	struct both *both = argument;

	while (!both->over) {
		uint32_t seen = (uint32_t)both->word;

		both->torn += seen != values[0] && seen != values[1];
	}
	return NULL;
}

static void *count(void *argument)
{
	struct both *both = argument;

	for (unsigned i = 1; i <= ROUNDS; i++) {
		both->byte[5] = (uint8_t)i;
		CHECK(both->byte[5] == (uint8_t)i); /* nobody else writes it */
	}
	both->over = true;
	return NULL;
}

static void beside_threads(void)
{
	static struct both both;
	uint64_t agreed = values[0], from;
	pthread_t threads[2];

	both.word = agreed;
	CHECK(!pthread_create(&threads[0], NULL, look, &both));
	CHECK(!pthread_create(&threads[1], NULL, count, &both));
	for (unsigned i = 1; !both.over; i++) {
		from = values[i % 2];
		bf_difference_apply((uint8_t *)&both.word, (uint8_t *)&agreed, (uint8_t *)&from, 8);
		CHECK(agreed == from);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK(!both.torn);
}

/* Every place and length, whatever the alignment. */
static void everywhere(void)
{
	uint8_t to[64], agreed[64], from[64];

	for (size_t offset = 0; offset < 16; offset++)
		for (size_t size = 0; size < 40; size++)
			for (size_t at = 0; at < size; at++) {
				memset(to, 1, sizeof to);
				memset(agreed, 2, sizeof agreed);
				memcpy(from, agreed, sizeof from);
				from[at] = 3;
				from[size - 1] = 4;
				bf_difference_apply(to + offset, agreed, from, size);
				CHECK(!memcmp(agreed, from, sizeof from));
				for (size_t i = 0; i < sizeof to; i++)
					CHECK(to[i] == (i == offset + size - 1 ? 4 : i == offset + at ? 3 : 1));
			}
}

static void gone(void)
{
	static uint8_t to[SIZE], agreed[SIZE], from[SIZE];
	uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	memset(memory, 1, SIZE);
	memset(agreed, 2, SIZE);
	memset(from, 3, SIZE);
	CHECK(bf_reach_read(to, memory + 5, agreed, SIZE - 5) && to[SIZE - 6] == 1);
	CHECK(!mprotect(memory, 4096, PROT_NONE) && !mprotect(memory + 4096, 4096, PROT_READ));
	CHECK(!bf_reach_read(to, memory + 5, agreed, SIZE - 5));
	CHECK(to[0] == 2 && to[4090] == 2 && to[4091] == 1 && to[SIZE - 6] == 1);
	CHECK(!bf_reach_apply(memory + 5, agreed, from, SIZE - 5));
	CHECK(agreed[0] == 2 && agreed[4091] == 2 && agreed[8186] == 2 && agreed[8187] == 3 && memory[8192] == 3);
	CHECK(!mprotect(memory, SIZE, PROT_READ | PROT_WRITE) && memory[4095] == 1 && memory[4096] == 1);
	CHECK(bf_reach_apply(memory + 5, agreed, from, SIZE - 5) && memory[4] == 1 && memory[5] == 3);
	CHECK(!munmap(memory, SIZE));
	CHECK(!bf_reach_read(to, memory, agreed, SIZE) && to[0] == 3);
	from[7] = 4;
	CHECK(!bf_reach_apply(memory, agreed, from, SIZE) && agreed[7] == 3);
}

int main(void)
{
	beside_threads();
	everywhere();
	gone();
	return 0;
}
