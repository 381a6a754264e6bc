/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory: the arena of each device, and the ranges of addresses that mean something to CUDA.
 */
#ifndef SOFTGPU_MEMORY_H
#define SOFTGPU_MEMORY_H

#include "driver.h"

/* ------------------------------------------------------------------ ranges of addresses, by address (tree.c)
 *
 * A treap whose nodes know the largest free range below them: the first fit and the neighbours of a
 * range are both found in O(log n). */

enum range_kind {
	RANGE_FREE,
	RANGE_DEVICE,  /* cuMemAlloc */
	RANGE_POOL,    /* cuMemAllocAsync */
	RANGE_GLOBAL,  /* a module's variable */
	RANGE_ARRAY,
	RANGE_HOST,    /* cuMemHostAlloc */
	RANGE_REGISTERED,
	RANGE_MANAGED,
	RANGE_RESERVED, /* cuMemAddressReserve */
	RANGE_MAPPED,   /* cuMemMap, inside a reservation */
};

struct range {
	uint64_t base, size; /* size as asked for; `span` is what it takes */
	uint64_t span;
	uint64_t id; /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
	enum range_kind kind;
	unsigned flags;
	int device;
	int visible; /* kernels may touch it */
	int ending;  /* a stream will free it: nobody may do so again */
	struct context *context;
	struct pool *pool;
	struct allocation *allocation; /* RANGE_MAPPED */
	uint64_t offset;               /* of it, there */
	int sync_memops, access;
	int advice[3]; /* managed: read mostly, preferred location, accessed by */
	/* the tree's own */
	struct range *left, *right;
	uint64_t largest;
	unsigned priority;
};

struct tree {
	struct range *root;
	unsigned random;
};

void tree_insert(struct tree *tree, struct range *range);
void tree_remove(struct tree *tree, struct range *range);
void tree_changed(struct tree *tree, struct range *range); /* its kind or span is another now */
struct range *tree_find(const struct tree *tree, uint64_t address); /* the one that contains it */
struct range *tree_before(const struct tree *tree, uint64_t base);
struct range *tree_after(const struct tree *tree, uint64_t base);
struct range *tree_first_fit(const struct tree *tree, uint64_t span); /* the lowest free one */

/* ------------------------------------------------------------------ device memory (arena.c) */

struct arena {
	uint64_t base, reserved;
	uint64_t limit, used; /* used: also what pools and physical VMM allocations take */
	struct tree tree;
};

extern pthread_mutex_t memory_lock;

CUresult arena_create(struct arena **arena, const struct device *device);
/* All of these take memory_lock themselves. */
CUresult arena_allocate(struct device *device, uint64_t size, enum range_kind kind, struct context *context,
			struct pool *pool, uint64_t *address);
CUresult arena_free(uint64_t address, enum range_kind kind);
int arena_take(struct device *device, uint64_t bytes); /* against the limit; 0 when there is not that much */
void arena_give(struct device *device, uint64_t bytes);

/* ------------------------------------------------------------------ every other range, and lookup (range.c) */

extern struct tree host_ranges; /* host, registered, managed, mapped; under memory_lock */
CUresult range_add(uint64_t base, uint64_t size, enum range_kind kind, struct context *context, unsigned flags);
CUresult range_add_locked(struct range *range, int visible);
void range_drop_locked(struct range *range);
struct range *range_find_locked(uint64_t address); /* device or other, not free, not a bare reservation */
int range_lookup(uint64_t address, struct range *copy); /* 1 found */
uint64_t range_next_id(void);

/* How a copy may use an address. */
enum place {
	PLACE_PAGEABLE, /* the program's own memory: nothing is known of it */
	PLACE_PINNED,
	PLACE_DEVICE,
	PLACE_INVALID, /* no such device memory, or less than asked for */
};
enum place memory_place(uint64_t address, uint64_t size);
CUresult memory_check_device(uint64_t address, uint64_t size); /* must be memory that CUDA knows */

/* ------------------------------------------------------------------ host.c */

CUresult managed_allocate(struct context *context, uint64_t size, unsigned flags, uint64_t *address);
CUresult managed_free(uint64_t address);

/* ------------------------------------------------------------------ pools (pool.c) */

struct pool {
	struct object object;
	struct device *device;
	int is_default, ended;
	uint64_t release_threshold, used, high;
	/* what its allocations take of the arena; what it keeps beside, of what was freed */
	uint64_t held, kept, reserved_high;
	struct pool *next; /* of the device */
	int reuse[3];
};
/* With memory_lock held. */
void pool_takes(struct pool *pool, uint64_t span);
void pool_keeps(struct pool *pool, uint64_t span);
void pool_gives(struct pool *pool, uint64_t most); /* back to the arena, of what it keeps */
void pool_shrinks(struct pool *pool, uint64_t most); /* until it has that much, where it can */
/* A call has waited: pools keep no more than they were told to. */
void pools_synchronized(struct device *device);
CUresult pool_take(struct pool *pool, struct context *context, uint64_t size, uint64_t *address);
CUresult pool_free_now(uint64_t address);
/* From now on the program has it no more, whenever its stream gets there. */
CUresult pool_begin_free(uint64_t address);
void pool_undo_free(uint64_t address); /* where it was begun */
CUresult pool_free_begun(uint64_t address); /* memory of graphs stays theirs */
int pool_is_graphs(uint64_t address);
CUresult pool_defaults(struct device *device);

#endif
