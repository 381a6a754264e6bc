/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts, streams and events, and how much work a stream has that is not over (credit.c).
 */
#ifndef BITFUSION_PROXY_STREAM_H
#define BITFUSION_PROXY_STREAM_H

#include "handle.h"

/* ------------------------------------------------------------------ work that is not over (credit.c) */

struct bf_credit {
	_Atomic uint64_t added, done; /* pieces of work since the start; a large one counts for several */
	pthread_mutex_t lock;         /* all zeros is one that is not locked */
	struct bf_mark *mark;
};

enum { BF_CREDIT_CHECK = 64, BF_CREDIT_BYTES = 16 << 10, BF_CREDIT_MOST = 64 };

void bf_credit_wait(struct bf_credit *credit, CUstream stream, uint64_t added);
struct bf_credit *bf_credit_of(CUstream stream);
void bf_credit_done(struct bf_credit *credit, uint64_t position); /* all that was added up to there is over */

/* Before work with this many bytes of the program's memory goes to a stream: waits while that has too much. */
static inline void bf_credit_take(struct bf_credit *credit, CUstream stream, size_t bytes)
{
	uint64_t cost = 1 + bytes / BF_CREDIT_BYTES, added;

	if (BF_UNLIKELY(!credit))
		return;
	cost = cost < BF_CREDIT_MOST ? cost : BF_CREDIT_MOST;
	added = atomic_fetch_add_explicit(&credit->added, cost, memory_order_relaxed) + cost;
	if (BF_UNLIKELY(added % BF_CREDIT_CHECK < cost))
		bf_credit_wait(credit, stream, added);
}

static inline void bf_stream_admit(CUstream stream, size_t bytes)
{
	bf_credit_take(bf_credit_of(stream), stream, bytes);
}

/* ------------------------------------------------------------------ contexts (context.c) */

struct bf_context {
	struct bf_entry entry;
	CUdevice device;
	bool primary;
	_Atomic bool active; /* a primary one: retained, or made current */
	_Atomic bool ending; /* one that was made: its end is being told */
	_Atomic uint32_t retained;
	_Atomic unsigned flags;
	uint64_t id;
	_Atomic uint64_t synced; /* number of the last command known to be complete */
	_Atomic int fault;       /* a CUresult that stays until the context ends (fault.c) */
	struct bf_credit credit; /* of the legacy stream */
};

bool bf_is_fault(CUresult status);
void bf_fault_note(CUresult status); /* a call that waited got this */
CUresult bf_fault_of(uint32_t context);
CUresult bf_contexts_open(void);
struct bf_context *bf_context_find(CUcontext context); /* NULL unless alive */
struct bf_context *bf_context_at(uint32_t index);
CUcontext bf_context_handle(uint32_t index);
CUresult bf_context_check(void); /* is there a living current one without a fault? */
uint32_t bf_context_any(void); /* the current one if it lives on, else the first device's primary one */

/* ------------------------------------------------------------------ streams and events (stream.c, event.c) */

struct bf_stream {
	struct bf_entry entry;
	unsigned flags;
	int priority;
	uint64_t id;
	_Atomic uint64_t synced;
	_Atomic uint64_t capture; /* number of the latest that it got into (capture.c) */
	struct bf_credit credit;
};

struct bf_record {
	uint64_t number; /* of the command, 0 before the first */
	uint64_t stream, stream_id;
};

struct bf_event {
	struct bf_entry entry;
	unsigned flags;
	pthread_mutex_t lock;      /* of the next two; all zeros is one that is not locked */
	struct bf_record latest;
	unsigned recording;        /* threads that are about to */
	_Atomic uint64_t complete; /* the record known to be complete */
	_Atomic uint64_t capture;  /* number of the one that the latest record was in, 0 for none */
	_Atomic bool external;     /* something else records it too, so that only the server knows */
};

CUresult bf_stream_check(CUstream stream); /* a special one, or alive */
/* What every entry point with a stream begins with: the library works, a context is current, and *stream, resolved
 * for the entry's flavour, is one of them. */
CUresult bf_stream_enter(CUstream *stream, bool per_thread);
bool bf_stream_passed(uint64_t stream, uint64_t stream_id, uint32_t context, uint64_t sequence);
uint64_t bf_stream_number(CUstream stream);
CUresult bf_stream_wait(CUstream stream);
CUresult bf_stream_query(CUstream stream);

#endif
