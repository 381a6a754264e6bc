/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's numbers and the driver's handles (handles.c).
 */
#ifndef BITFUSION_EXECUTOR_HANDLES_H
#define BITFUSION_EXECUTOR_HANDLES_H

#include "base.h"

/* ------------------------------------------------------------------ handles.c
 *
 * Only the issue thread looks handles up while others may bind them, so an entry is published by one store.
 */
struct bf_entry {
	_Atomic uint64_t value; /* the driver's handle, 0 when free */
	uint32_t owner;         /* packed kind and index whose end is this handle's end, 0 for none */
	uint32_t second;        /* another owner: it ends with whichever ends first */
	uint32_t flags;         /* streams: enum bf_stream_flags */
};
enum bf_stream_flags { BF_STREAM_NON_BLOCKING = 1 };

enum { BF_HANDLE_CHUNK = 4096 };
struct bf_handles {
	pthread_mutex_t lock;
	_Atomic(struct bf_entry *) chunk[BF_HANDLE_KINDS][BF_MAX_HANDLES / BF_HANDLE_CHUNK];
	struct bf_reverse {
		uint64_t *slot; /* pairs: driver handle, index */
		size_t size, used, live;
	} reverse[BF_HANDLE_KINDS];
	uint32_t minted[BF_HANDLE_KINDS]; /* handles that the executor had to number, from the top */
};

void bf_handles_init(struct bf_handles *handles);
/* The entry if it was ever bound, else NULL. */
static inline struct bf_entry *bf_handle_entry(struct bf_handles *handles, unsigned kind, uint32_t index)
{
	if (unlikely(index >= BF_MAX_HANDLES || kind >= BF_HANDLE_KINDS))
		return NULL;
	struct bf_entry *chunk =
		atomic_load_explicit(&handles->chunk[kind][index / BF_HANDLE_CHUNK], memory_order_acquire);
	return likely(chunk != NULL) ? &chunk[index % BF_HANDLE_CHUNK] : NULL;
}
/* Translates a number from the client into the driver's handle. False: no such handle. */
bool bf_handle_resolve(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t *value);
/* False: the number is not one that a client may mint for this kind, or there is no memory. */
bool bf_handle_bind(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t value, uint32_t owner);
void bf_handle_drop(struct bf_handles *handles, uint64_t number);
void bf_handle_own(struct bf_handles *handles, uint64_t number, uint32_t second);
/* Drops what ends together with `number` (the functions of a module, all of a context). */
void bf_handle_drop_owned(struct bf_handles *handles, uint64_t number);
/* The client's number for a driver handle; if there is none yet, `proposed` or, for 0, one of our own. */
uint64_t bf_handle_find(struct bf_handles *handles, unsigned kind, uint64_t value, uint64_t proposed, uint32_t owner);
/* The client's number for a driver handle, 0 if it has none. */
uint64_t bf_handle_known(struct bf_handles *handles, unsigned kind, uint64_t value);
bool bf_handle_is(uint64_t number, unsigned kind);
static inline uint32_t bf_handle_pack(uint64_t number)
{
	return (uint32_t)BF_HANDLE_KIND(number) << 24 | (BF_HANDLE_INDEX(number) & 0xffffff);
}
static inline uint64_t bf_handle_unpack(uint32_t packed)
{
	return packed ? BF_HANDLE(packed >> 24, packed & 0xffffff) : 0;
}

#endif
