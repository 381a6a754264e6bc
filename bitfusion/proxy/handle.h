/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles (handle.c): one growing table per kind. Entries never move and are never freed, so a look-up takes no lock and
 * a stale handle finds a dead entry, not freed memory. Each entry begins with struct bf_entry.
 */
#ifndef BITFUSION_PROXY_HANDLE_H
#define BITFUSION_PROXY_HANDLE_H

#include "base.h"

enum bf_life { BF_DEAD, BF_ALIVE, BF_MINTED /* the number is taken, nothing is found by it yet */ };

struct bf_entry {
	_Atomic uint32_t life; /* enum bf_life */
	uint32_t context;      /* index of the context it was made in */
};

static inline bool bf_is_alive(const struct bf_entry *entry)
{
	return atomic_load_explicit(&entry->life, memory_order_acquire) == BF_ALIVE;
}

uint64_t bf_handle_new(enum bf_handle_kind kind, void *entry); /* 0 when there are too many */
void *bf_handle_reserve(enum bf_handle_kind kind, uint32_t index); /* a number with a fixed meaning */
void bf_handle_start(enum bf_handle_kind kind, uint64_t handle); /* from now on it is found */
void bf_handle_free(uint64_t handle); /* once, however often it is called */
void bf_handle_free_context(uint32_t context); /* all that die with a context */
void *bf_handle_find(enum bf_handle_kind kind, uint64_t handle); /* NULL unless alive */
void *bf_handle_entry(enum bf_handle_kind kind, uint32_t index);
uint32_t bf_handle_count(enum bf_handle_kind kind); /* indices below were handed out */

#endif
