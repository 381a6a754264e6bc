/* SPDX-License-Identifier: Apache-2.0
 *
 * All that there is of one client's session.
 */
#ifndef BITFUSION_EXECUTOR_SESSION_H
#define BITFUSION_EXECUTOR_SESSION_H

#include "driver.h"
#include "handles.h"
#include "host_memory.h"
#include "outbox.h"
#include "pace.h"
#include "staging.h"
#include "waiters.h"

/* ------------------------------------------------------------------ virtual.c */

struct bf_virtual {
	pthread_mutex_t lock;
	struct bf_physical *physical;
	struct bf_mapping *mappings;
};
void bf_virtual_init(struct bf_session *session);

/* ------------------------------------------------------------------ reserve.c */

struct bf_reserve {
	pthread_mutex_t lock;
	pthread_mutex_t ending;  /* pools are trimmed, or one is destroyed */
	struct bf_reserve_pool *pools; /* the program's own */
	_Atomic uint64_t devices, graphs; /* whose pools have been used; for which graphs have allocated */
	_Atomic uint64_t nodes[BF_MAX_DEVICES]; /* bytes that count as allocations of graphs */
	uint64_t pooled[BF_MAX_DEVICES], graphed[BF_MAX_DEVICES]; /* what counts beside */
	_Atomic uint64_t total; /* of both */
};
void bf_reserve_init(struct bf_session *session);

/* ------------------------------------------------------------------ limits.c */

struct bf_limits {
	pthread_mutex_t lock;
	struct bf_limit *first;
};
void bf_limits_init(struct bf_session *session);

struct bf_frame;
typedef CUresult (*bf_around)(struct bf_session *session, struct bf_frame *frame);

/* How a row is carried out. */
struct bf_route {
	void *function; /* the driver's, looked up at first use */
	const struct bf_row *row;
	bf_around around; /* does more than the call, or NULL */
	bool resolved, has_arrays, has_locations, waits, allocates;
	bool makes;  /* something that lasts */
	bool works;  /* enqueues work for the device */
	bool closes; /* a batch must not lie open across it */
};

struct bf_input {
	uint8_t *base;
	size_t start, end, capacity;
	uint8_t *aligned;      /* where a command goes that follows bulk data of an odd size */
	uint64_t received;     /* bytes from the start of the session up to `end` */
	_Atomic uint64_t next; /* where the command after the present one begins, counted so; while there is `ahead` */
	struct bf_ahead *ahead;
};

struct bf_questions {
	pthread_mutex_t lock;
	pthread_cond_t asked; /* the first one of several */
	struct bf_question *first;
	uint64_t next_token;
};

struct bf_allocation {
	uint64_t address, size;
	uint32_t device;
	uint32_t context; /* index of the one that it dies with, or BF_OUTLIVES */
	bool graph; /* a node of one allocates it */
};
enum { BF_OUTLIVES = 0 };

struct bf_session {
	struct bf_serve_options options;
	struct bf_transport transport;
	struct bf_input input;
	struct bf_driver *driver;
	struct bf_handles handles;
	struct bf_route *routes;
	struct bf_ledger *ledger;
	struct bf_outbox outbox;
	struct bf_staging staging;
	struct bf_waiters waiters;
	struct bf_uses uses;
	struct bf_reaper reaper;
	struct bf_freed freed;
	struct bf_virtual virtual;
	struct bf_reserve reserve;
	struct bf_limits limits;
	struct bf_pace pace;
	struct bf_host_memory host_memory;

	_Atomic unsigned lines_said; /* bf_log */

	/* one-way failure to report: call << 32 | status */
	_Atomic uint64_t deferred;

	/* contexts (context.c) */
	CUdevice ordinal[BF_MAX_DEVICES];
	pthread_mutex_t context_lock;
	bool implicit[BF_MAX_DEVICES]; /* we retained the primary context ourselves */
	_Atomic uint32_t context_generation;

	/* device-to-host copies under way, in issue order (download.c) */
	pthread_mutex_t pending_lock;
	pthread_cond_t pending_work;
	struct bf_pending *pending, **pending_tail;
	_Atomic unsigned pending_count;
	bool copier_started;

	/* allocations (memory.c) */
	pthread_mutex_t memory_lock;
	struct bf_allocation *allocation;
	size_t allocation_size, allocation_used;

	/* host functions (callback.c), and what they ask of the client (question.c) */
	struct bf_questions questions;
	_Atomic unsigned host_functions; /* registered and not yet returned */

	/* output (output.c) */
	int output[2]; /* read ends of what the driver prints to descriptors 1 and 2, or -1 */
	int saved[2];
	pthread_mutex_t output_lock;
	int stop[2];
	pthread_t watcher;
	_Atomic bool over;

	/* images that the driver wants kept (module.c) */
	struct bf_image *images;
	pthread_mutex_t image_lock;

	/* the issue thread's own */
	CUresult context_status; /* of the command being carried out */
	bool captures; /* a stream may be capturing */
	CUstream synced_stream; /* where the last synchronous upload went (order.c) */
	uint32_t synced_context, synced_epoch;
	bool stopped;
	enum bf_ended ended;
	uint64_t spin_ns;
	uint8_t *scratch; /* output arguments of rows on the issue thread */
	uint8_t *answer; /* a reply's body on the issue thread */
};

#endif
