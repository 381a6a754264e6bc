/* SPDX-License-Identifier: Apache-2.0
 *
 * What the workers of one session share with each other and with the server: memory held (ledger.c), device time
 * spent and allowed (ledger_time.c).
 */
#ifndef BITFUSION_LEDGER_H
#define BITFUSION_LEDGER_H

#include "core.h"

/* Of one device, in nanoseconds. Of CLOCK_MONOTONIC where it ends in _at. */
struct bf_spent {
	_Atomic uint64_t busy;  /* device time that the session has used */
	_Atomic uint64_t until; /* it may use so much; the server moves it on */
	uint64_t debt, debt_at; /* what it used beyond its share */
};

/* Of one worker. */
struct bf_activity {
	_Atomic uint64_t last_at; /* its client called */
	_Atomic uint32_t waiting; /* calls of its client that wait for the device, batches that it runs */
	_Atomic uint32_t host_mib; /* of this machine's memory, that it holds */
};

struct bf_ledger_header {
	uint64_t magic;
	uint32_t devices, slots;
	pthread_mutex_t lock;
	uint64_t limit[BF_MAX_DEVICES];
	_Atomic uint64_t sum[BF_MAX_DEVICES];
	_Atomic uint32_t share;       /* of each device's time, in millionths; 0: all */
	_Atomic uint64_t rationed_at; /* `until` holds since then, for a moment */
	struct bf_spent spent[BF_MAX_DEVICES];
};

struct bf_ledger {
	struct bf_ledger_header *header;
	size_t size;
	uint32_t devices, slots; /* a copy that no other process can change */
};

static inline _Atomic uint64_t *bf_ledger_cell(struct bf_ledger *ledger, uint32_t slot, uint32_t device)
{
	return (_Atomic uint64_t *)(ledger->header + 1) + (size_t)slot * ledger->devices + device;
}

static inline struct bf_activity *bf_ledger_activity(struct bf_ledger *ledger, uint32_t slot)
{
	return (struct bf_activity *)bf_ledger_cell(ledger, ledger->slots, 0) + slot;
}

/* Workers alone. One must not hang on another that was stopped inside: past a deadline this returns false, and it goes
 * on unlocked. */
bool bf_ledger_lock(struct bf_ledger *ledger);
void bf_ledger_unlock(struct bf_ledger *ledger, bool locked);
/* What the driver has taken counts, be there room for it or not. */
void bf_ledger_take(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size);

#endif
