/* SPDX-License-Identifier: Apache-2.0
 *
 * What is done beside the issue thread: jobs on threads of their own, the code that they use, and what is given back.
 */
#ifndef BITFUSION_EXECUTOR_WAITERS_H
#define BITFUSION_EXECUTOR_WAITERS_H

#include "base.h"

struct bf_session;

/* ------------------------------------------------------------------ wait.c */

struct bf_job {
	struct bf_job *next;
	void (*run)(struct bf_session *session, struct bf_job *job); /* frees the job */
	uint32_t request;
	uint32_t context;
	bool urgent; /* goes first, on a thread of its own if need be */
};
struct bf_waiters {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct bf_job *first, **last;
	unsigned queued, idle, threads;
};
void bf_waiters_init(struct bf_session *session);
bool bf_submit(struct bf_session *session, struct bf_job *job);

/* ------------------------------------------------------------------ use.c */

/* In the memory of the call that uses it. */
struct bf_use {
	struct bf_use *next;
	uint64_t number; /* the client's, of a module, library, link or stream, or 0 */
	uint32_t context;
};
struct bf_uses {
	pthread_mutex_t lock;
	pthread_cond_t ended; /* one more of them */
	struct bf_use *first;
};
void bf_uses_init(struct bf_session *session);
/* A call that names `number` begins beside the issue thread: on the issue thread, or before the number is resolved. */
void bf_use_begin(struct bf_session *session, struct bf_use *use, uint32_t context, uint64_t number);
void bf_use_end(struct bf_session *session, struct bf_use *use);
/* Waits until no such call uses this module, library, link, stream or context. */
void bf_use_wait(struct bf_session *session, uint64_t number);

/* ------------------------------------------------------------------ freed.c */

struct bf_freed {
	pthread_mutex_t lock;
	struct bf_freed_stream *streams;
	bool watched; /* a waiter looks now and then */
	bool open; /* frees have no event behind them yet: the issue thread's own */
	_Atomic unsigned pending, settled; /* batches of frees; of those that were */
	_Atomic uint64_t bytes[BF_MAX_DEVICES]; /* of those that are, without graphs' */
};

/* ------------------------------------------------------------------ reaper.c */

struct bf_reaper {
	pthread_mutex_t lock;
	pthread_cond_t done; /* one more of them */
	struct bf_reap_queue *queues;
	_Atomic unsigned pending, nodes; /* of those, of memory that a graph may allocate again */
};

#endif
