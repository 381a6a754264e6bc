/* SPDX-License-Identifier: Apache-2.0
 *
 * What the program has allocated, and copies (map.c, memory.c, host.c, copy.c).
 */
#ifndef BITFUSION_PROXY_MEMORY_H
#define BITFUSION_PROXY_MEMORY_H

#include "handle.h"

enum bf_range_kind {
	BF_RANGE_DEVICE,
	BF_RANGE_GLOBAL,
	BF_RANGE_POOL,
	BF_RANGE_MAPPED,
	BF_RANGE_MANAGED,
	BF_RANGE_PINNED,
	BF_RANGE_REGISTERED
};

/* Under a sanitizer, whose own tables may lie where a driver has its memory, no addresses are taken. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { BF_MAP_MAY_RESERVE = false };
#else
enum { BF_MAP_MAY_RESERVE = true };
#endif

struct bf_twin;

struct bf_range {
	uint64_t base, size;
	enum bf_range_kind kind;
	uint32_t context;
	CUdevice device;
	unsigned flags;
	uint64_t id;
	uint64_t parent; /* the module or library of a variable, the pool of an allocation, what is mapped */
	bool reserved; /* the same numbers are taken in this process too */
	bool graph; /* of a node of a graph: it stays when freed, until the driver gives the address for something else */
	bool usable; /* of a managed variable of code: the program has memory there */
	uint64_t place; /* of one that could not be where it is on the server: its address there, else 0 */
	int advice[3]; /* of managed memory (managed.c) */
	struct bf_twin *twin; /* of memory that kernels use too (shared.h), or NULL */
	bool settled; /* no copy writes it that began before there was a twin */
};

/* With `reserved` set: CUDA_ERROR_ALREADY_MAPPED when the program has something at these addresses. */
CUresult bf_map_add(const struct bf_range *range);
bool bf_map_find(uint64_t address, struct bf_range *range); /* the one that holds the address */
bool bf_map_remove(uint64_t base, unsigned kinds, struct bf_range *range); /* a mask of 1 << kind */
void bf_map_remove_parent(uint64_t parent);
void bf_map_set_advice(uint64_t address, int kind, int advice);
void bf_map_set_twin(uint64_t base, struct bf_twin *twin, bool settled);
void bf_map_change_parent(uint64_t from, uint64_t to); /* of what is mapped */
/* Addresses alone; false: the program has something there. */
bool bf_map_reserve(uint64_t base, uint64_t size);
void bf_map_unreserve(uint64_t base, uint64_t size);
/* Addresses that nothing of the program has just now; 0 when there are none. */
uint64_t bf_map_find_free(uint64_t size, uint64_t alignment);
bool bf_is_reserved(uint64_t address); /* by cuMemAddressReserve */
bool bf_is_device_memory(uint64_t address); /* or an address where such memory could be mapped */
void bf_map_remove_context(uint32_t context);

static inline bool bf_range_is_host(const struct bf_range *range)
{
	return range->kind >= BF_RANGE_PINNED;
}

struct bf_physical { /* by cuMemCreate */
	struct bf_entry entry;
	CUdevice device;
	_Atomic unsigned handles;
};

CUresult bf_memory_allocate(CUdeviceptr *address, size_t size); /* also where the program may not */
CUresult bf_memory_free(CUdeviceptr address); /* one-way; not what is managed */
CUresult bf_device_range_check(uint64_t address, uint64_t size); /* inside one allocation? */
CUresult bf_host_settle(const void *data, size_t size); /* waits for copies that write this memory */
/* The same, and for host functions that the stream orders before this call. */
CUresult bf_host_settle_before(const void *data, size_t size, CUstream stream);
bool bf_host_is_pinned(const void *data);

/* A command and no more: nothing is checked, no order is kept but the stream's. *sequence: its number. */
CUresult bf_copy_send_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream);
CUresult bf_copy_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async);
/* From memory that the stream may still write, pinned or not, as a graph reads it. */
CUresult bf_copy_to_device_in_order(CUdeviceptr to, const void *from, size_t size, CUstream stream);
CUresult bf_copy_to_host(void *to, CUdeviceptr from, size_t size, CUstream stream, bool async);
CUresult bf_copy_between(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream, bool async);
CUresult bf_copy_any(uint64_t to, uint64_t from, size_t size, CUstream stream, bool async);

/* ------------------------------------------------------------------ copies across contexts (across.c)
 *
 * Waits for the contexts of both ends where the copy is *across: then it goes as an asynchronous one, and the end
 * waits for it. */
CUresult bf_across_begin(uint64_t to, uint64_t from, bool async, bool *across);
CUresult bf_across_begin_named(CUcontext to, CUcontext from, bool async, bool *across);
CUresult bf_across_end(bool across, CUresult status, CUstream stream);

#endif
