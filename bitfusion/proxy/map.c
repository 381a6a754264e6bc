/* SPDX-License-Identifier: Apache-2.0
 *
 * Every range of memory that CUDA knows of in this process, device and pinned, sorted by address: pointer
 * attributes, the direction of a copy and the check of a pointer are answered from here. For device memory the
 * same range of numbers is reserved in this process too, so that no memory of the program can ever have them.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define PAGE ((uint64_t)4096)

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct bf_range **ranges;
static size_t count, capacity;
static uint64_t next_id = 1;

/* Index of the first range that ends after the address. */
static size_t lower(uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (ranges[middle]->base + ranges[middle]->size <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool bf_map_find(uint64_t address, struct bf_range *range)
{
	bool found;
	size_t i;

	pthread_rwlock_rdlock(&lock);
	i = lower(address);
	found = i < count && ranges[i]->base <= address;
	if (found)
		*range = *ranges[i];
	pthread_rwlock_unlock(&lock);
	return found;
}

static bool grow(void)
{
	size_t larger = capacity ? capacity * 2 : 64;
	struct bf_range **moved = realloc(ranges, larger * sizeof *moved);

	if (!moved)
		return false;
	ranges = moved;
	capacity = larger;
	return true;
}

/* ------------------------------------------------------------------ reservations
 *
 * Allocations are smaller than pages, so a page belongs to all the ranges that touch it.
 */

static bool map_pages(uint64_t start, uint64_t end, int protection)
{
	void *wanted = (void *)(uintptr_t)start, *got;

	got = mmap(wanted, end - start, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
		   -1, 0);
	if (got == wanted)
		return true;
	if (got != MAP_FAILED) { /* a kernel before 4.17 takes the address as a hint */
		munmap(got, end - start);
		return false;
	}
	/* ENOMEM, EINVAL: the number is beyond this process, so the program cannot have it either */
	return protection == PROT_NONE && errno != EEXIST;
}

static bool maps_pages(const struct bf_range *range)
{
	return range->reserved && (BF_MAP_MAY_RESERVE || range->usable);
}

/* The pages of [base, base + size) that no other range holds. Ranges that reserve nothing may lie between two in
 * one page: a module's variable is found, not allocated. With the lock held. */
static void own_pages(uint64_t base, uint64_t size, const struct bf_range *self, uint64_t *start, uint64_t *end)
{
	size_t at = lower(base);

	*start = base & ~(PAGE - 1);
	*end = (base + size + PAGE - 1) & ~(PAGE - 1);
	for (size_t i = at; i > 0 && ranges[i - 1]->base + ranges[i - 1]->size > *start; i--) {
		if (!ranges[i - 1]->reserved)
			continue;
		*start = (ranges[i - 1]->base + ranges[i - 1]->size + PAGE - 1) & ~(PAGE - 1);
		break;
	}
	for (size_t i = at; i < count && ranges[i]->base < *end; i++) {
		if (!ranges[i]->reserved || ranges[i] == self)
			continue;
		*end = ranges[i]->base & ~(PAGE - 1);
		break;
	}
}

/* With the lock held, before the range is on the list: neighbours may share a page, so both go together. */
static bool reserve_pages(const struct bf_range *range)
{
	uint64_t start, end;

	if (!maps_pages(range))
		return true;
	own_pages(range->base, range->size, NULL, &start, &end);
	return start >= end || map_pages(start, end, range->usable ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void remove_at(size_t i);

/* The driver gives the addresses, so no graph has them any more. */
static size_t make_way(uint64_t base, uint64_t size)
{
	size_t i = lower(base);

	while (i < count && ranges[i]->base < base + size && ranges[i]->graph)
		remove_at(i);
	return i;
}

static CUresult insert(struct bf_range *range)
{
	size_t i = make_way(range->base, range->size);

	if (i < count && ranges[i]->base < range->base + range->size)
		return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
	if (count == capacity && !grow())
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!reserve_pages(range))
		return CUDA_ERROR_ALREADY_MAPPED;
	range->id = next_id++;
	memmove(ranges + i + 1, ranges + i, (count - i) * sizeof *ranges);
	ranges[i] = range;
	count++;
	return CUDA_SUCCESS;
}

CUresult bf_map_add(const struct bf_range *range)
{
	struct bf_range *copy = malloc(sizeof *copy);
	CUresult status;

	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*copy = *range;
	pthread_rwlock_wrlock(&lock);
	status = insert(copy);
	pthread_rwlock_unlock(&lock);
	if (status)
		free(copy);
	return status;
}

/* With the lock held, while the range is still on the list. */
static void release_pages(const struct bf_range *range)
{
	uint64_t start, end;

	if (!maps_pages(range))
		return;
	own_pages(range->base, range->size, range, &start, &end);
	if (start < end)
		munmap((void *)(uintptr_t)start, end - start);
}

static void remove_at(size_t i)
{
	release_pages(ranges[i]);
	free(ranges[i]);
	count--;
	memmove(ranges + i, ranges + i + 1, (count - i) * sizeof *ranges);
}

bool bf_map_remove(uint64_t base, unsigned kinds, struct bf_range *range)
{
	bool found;
	size_t i;

	pthread_rwlock_wrlock(&lock);
	i = lower(base);
	found = i < count && ranges[i]->base == base && kinds >> ranges[i]->kind & 1;
	if (found && range)
		*range = *ranges[i];
	if (found && !ranges[i]->graph)
		remove_at(i);
	pthread_rwlock_unlock(&lock);
	return found;
}

void bf_map_set_advice(uint64_t address, int kind, int advice)
{
	size_t i;

	pthread_rwlock_wrlock(&lock);
	i = lower(address);
	if (i < count && ranges[i]->base <= address)
		ranges[i]->advice[kind] = advice;
	pthread_rwlock_unlock(&lock);
}

void bf_map_set_twin(uint64_t base, struct bf_twin *twin, bool settled)
{
	size_t i;

	pthread_rwlock_wrlock(&lock);
	i = lower(base);
	if (i < count && ranges[i]->base == base) {
		ranges[i]->twin = twin;
		ranges[i]->settled = settled;
	}
	pthread_rwlock_unlock(&lock);
}

void bf_map_change_parent(uint64_t from, uint64_t to)
{
	pthread_rwlock_wrlock(&lock);
	for (size_t i = 0; i < count; i++)
		if (ranges[i]->parent == from && ranges[i]->kind == BF_RANGE_MAPPED)
			ranges[i]->parent = to;
	pthread_rwlock_unlock(&lock);
}

bool bf_map_reserve(uint64_t base, uint64_t size)
{
	pthread_rwlock_wrlock(&lock);
	make_way(base, size);
	pthread_rwlock_unlock(&lock);
	return !BF_MAP_MAY_RESERVE || map_pages(base, base + size, PROT_NONE);
}

void bf_map_unreserve(uint64_t base, uint64_t size)
{
	if (BF_MAP_MAY_RESERVE)
		munmap((void *)(uintptr_t)base, size);
}

uint64_t bf_map_find_free(uint64_t size, uint64_t alignment)
{
	void *place;

	if (size + alignment < size)
		return 0;
	place = mmap(NULL, size + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (place == MAP_FAILED)
		return 0;
	munmap(place, size + alignment);
	return (BF_ARG(place) + alignment - 1) & ~(alignment - 1);
}

void bf_map_remove_parent(uint64_t parent)
{
	pthread_rwlock_wrlock(&lock);
	for (size_t i = count; i-- > 0;)
		if (ranges[i]->parent == parent && (ranges[i]->kind == BF_RANGE_GLOBAL || ranges[i]->usable))
			remove_at(i);
	pthread_rwlock_unlock(&lock);
}

/* Pinned memory is the program's: it lives on, as every other pointer of it does. */
void bf_map_remove_context(uint32_t context)
{
	pthread_rwlock_wrlock(&lock);
	for (size_t i = count; i-- > 0;)
		if (ranges[i]->context == context && !bf_range_is_host(ranges[i]))
			remove_at(i);
	pthread_rwlock_unlock(&lock);
}
