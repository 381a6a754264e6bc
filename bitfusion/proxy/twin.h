/* SPDX-License-Identifier: Apache-2.0
 *
 * Between shared.c, which knows when the two sides have to agree, and twin.c, which makes them.
 */
#ifndef BITFUSION_TWIN_H
#define BITFUSION_TWIN_H

#include "shared.h"

/* What carries bytes for the twins of one context: a stream beside those of the program. */
struct bf_carrier {
	struct bf_carrier *next;
	uint32_t context;
	uint64_t context_id; /* indices of contexts are used again */
	CUstream stream;
	CUevent sent_event;       /* recorded behind the latest upload */
	bool unmarked;            /* it is not yet */
	uint64_t sent, arrived;   /* uploads */
	uint64_t ordered, ordered_stream; /* the stream that last was made to wait for that many of them */
	CUstream heir; /* waits for work whose own stream nobody can wait for; NULL before the first */
};

struct bf_twin {
	struct bf_twin *next;
	uint8_t *host; /* the program's side */
	uint64_t size;
	CUdeviceptr device;
	bool allocated;  /* at an address of its own: with cuMemAlloc, or that of a variable of code */
	bool managed;    /* by cuMemAllocManaged, or a variable of a module: dies with its context */
	uint64_t parent; /* the module or library of a variable */
	uint8_t *agreed; /* what both sides had when they last agreed */
	uint64_t *digests; /* of its pieces */
	bool *digested;    /* this one is still right */
	struct bf_carrier *carrier; /* NULL: its context has ended, another will do */
};

/* ------------------------------------------------------------------ all that there are (sharing.c) */

void bf_shared_lock(void);
void bf_shared_unlock(void);
extern struct bf_twin *bf_twins; /* with the lock held */
extern _Atomic unsigned bf_twin_count;

static inline bool bf_twins_exist(void)
{
	return atomic_load_explicit(&bf_twin_count, memory_order_relaxed);
}

/* ------------------------------------------------------------------ one of them (twin.c) */

/* With the lock held. */
CUresult bf_twin_make(const struct bf_range *range, struct bf_twin **twin);
void bf_twin_free(struct bf_twin *twin, bool context_lives);
/* Sends what the program changed. `alone`: no work that may write is under way. */
CUresult bf_twin_send(struct bf_twin *twin, bool alone);
/* Fetches what work changed, of all in the list. */
CUresult bf_twins_fetch(struct bf_twin *first);
/* Waits until all that was sent has arrived. */
CUresult bf_twins_arrive(void);
struct bf_carrier *bf_carriers(void);
CUresult bf_carrier_find(struct bf_carrier **found); /* that of the current context, or of the first device */
void bf_carriers_end(uint32_t context);

/* ------------------------------------------------------------------ work under way (flight.c) */

struct bf_flight {
	uint64_t number; /* bf_stream_number */
	CUstream stream;
	uint32_t context;
	unsigned starting; /* threads that are sending some */
	uint64_t sequence; /* of the latest command */
	bool orphaned;     /* the stream is gone, only its context can be waited for */
	bool heir;         /* the stream is one: nobody waits for it but who waits for all */
	bool over;         /* so the server said of an heir */
};

bool bf_flight_none(void);
bool bf_flight_known(CUstream stream);
/* A copy of all, to be freed; NULL when there are none, or no memory (then *count is not 0). */
struct bf_flight *bf_flights_now(size_t *count);
/* Before the work is sent: from then on it may write, and a host function in it may look. */
CUresult bf_flight_start(CUstream stream);
void bf_flight_sent(CUstream stream);
/* What of that stream, or context, was sent up to there is over. */
void bf_flight_settle(uint64_t stream_number, uint32_t context, uint64_t sequence);
/* The stream is about to be destroyed. Its heir has its work, or there is none. */
void bf_flight_end(CUstream stream, bool inherited);
/* No wait of the program's is for an heir. Before a fetch the server is asked, behind it those that are over settle. */
void bf_flight_ask_heirs(void);
void bf_flight_settle_heirs(void);
CUresult bf_flight_wait(const struct bf_flight *flight); /* without the lock; leaves another context current */

/* ------------------------------------------------------------------ work whose stream nobody can wait for (heir.c) */

bool bf_is_heir(CUstream stream); /* with the lock held */
void bf_inherit_all(void); /* what was sent before there was any shared memory */
/* Ahead of the first such memory and behind bf_inherit_all: streams that end in between leave what they have. */
void bf_inherit_begin(void);
void bf_inherit_end(void);

#endif
