/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that the program and its kernels both use. The two are on different machines, so it exists twice: ordinary
 * memory here, and its twin on the server. What the program changed is sent before work that may read it; what work
 * changed is fetched when the program has waited for that work. In between the two differ, as CUDA allows where
 * CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS is 0.
 */
#ifndef BITFUSION_SHARED_H
#define BITFUSION_SHARED_H

#include "proxy.h"

/* ------------------------------------------------------------------ addresses (arena.c)
 *
 * Memory here whose addresses the server has reserved as well, so that a twin can have the same ones.
 */
void *bf_arena_take(size_t size); /* zeros, on pages of its own; NULL: none, and no twin at this address then */
void bf_arena_give(void *memory, size_t size);
bool bf_arena_holds(const void *memory);
CUresult bf_arena_back(const void *memory); /* the server has memory there from now on */
extern _Atomic uint64_t bf_arena_low, bf_arena_high; /* all of it is between these */

static inline bool bf_arena_may_hold(uint64_t address)
{
	return address >= atomic_load_explicit(&bf_arena_low, memory_order_relaxed) &&
	       address < atomic_load_explicit(&bf_arena_high, memory_order_relaxed);
}

/* ------------------------------------------------------------------ twins (sharing.c, shared.c) */

/* Some memory could have a twin: only then is there anything to do around a launch. */
extern _Atomic bool bf_shared_used;

static inline bool bf_shared_in_use(void)
{
	return BF_UNLIKELY(atomic_load_explicit(&bf_shared_used, memory_order_relaxed));
}

/* Gives the memory of this process that holds the address a twin, unless it has one. */
CUresult bf_shared_touch(uint64_t address);
/* The same for every word that may be an address of such memory. */
CUresult bf_shared_touch_words(const void *words, size_t size);
/* A copy that nobody waits for writes the memory from now on. If that has got a twin meanwhile, it is waited for. */
CUresult bf_shared_copying(const void *memory, size_t size);
/* Has all of the memory a twin? Then its device address. */
bool bf_shared_find(const void *memory, size_t size, CUdeviceptr *device);
/* Before work that may use twins goes to the stream. With `writes` it may change them: then bf_shared_after follows,
 * whether or not the work could be sent. */
CUresult bf_shared_before(CUstream stream, bool writes);
void bf_shared_after(CUstream stream);
/* Before the program waits: a kernel may be waiting for what the program wrote. */
CUresult bf_shared_before_wait(void);
/* The program has waited: for the stream with this number, up to the command with this number. 0: for no one stream. */
CUresult bf_shared_waited(uint64_t stream_number, uint64_t sequence);
CUresult bf_shared_waited_context(uint32_t context, uint64_t sequence);
/* Behind a copy after which, in CUDA, all that the stream had before is over. */
CUresult bf_shared_finish(CUstream stream);
/* The stream is about to be destroyed, and will still do what it has to do. */
void bf_shared_end_stream(CUstream stream);
/* What is found to be there does not end in between: streams, and contexts for who asks. */
void bf_ends_hold(void);
void bf_ends_release(void);
/* As freeing memory does: for all work that may use shared memory. */
void bf_shared_wait_for_all(void);
/* A host function of the program is about to run, in its place in a stream, and has run. */
void bf_shared_enter_function(void);
void bf_shared_leave_function(void);
void bf_managed_free(const struct bf_range *range);
/* The memory is about to go. */
void bf_shared_drop(const struct bf_range *range);
void bf_shared_drop_variables(uint64_t parent); /* the twins of all that a module or library has */
/* Where the program has the variable that is at this address on the server; 0: nowhere yet. */
uint64_t bf_shared_variable(uint64_t parent, CUdeviceptr address);
void bf_shared_end_context(uint32_t context);

/* ------------------------------------------------------------------ variables of code (variable.c) */

void bf_variables_drop(uint64_t parent); /* a module or library is about to be unloaded */

/* ------------------------------------------------------------------ finding what changed (difference.c) */

struct bf_run {
	size_t start, end;
};

/* The first run at or after `from` of bytes that differ; equal ones may be part of it, but no more than `gap` in a
 * row. A gap of 0 is exact, others are at least 8. */
bool bf_difference_next(const uint8_t *one, const uint8_t *other, size_t size, size_t from, size_t gap,
			struct bf_run *run);
void bf_difference_copy(uint8_t *to, const uint8_t *from, size_t size);
/* What differs between `agreed` and `from` goes to both others; no other byte of `to` changes. */
void bf_difference_apply(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t size);

/* ------------------------------------------------------------------ memory that may be gone (reach.c) */

/* Bytes in pages that cannot be read are taken from `otherwise`; false when there are some. */
bool bf_reach_read(uint8_t *to, const uint8_t *from, const uint8_t *otherwise, size_t size);
/* As bf_difference_apply, but pages that cannot be written stay different; false when there are some. */
bool bf_reach_apply(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t size);

#endif
