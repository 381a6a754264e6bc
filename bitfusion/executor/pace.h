/* SPDX-License-Identifier: Apache-2.0
 *
 * Device time: measured in batches, and rationed where a share was asked for or sessions share a GPU (pace.c).
 */
#ifndef BITFUSION_PACE_H
#define BITFUSION_PACE_H

#include "cuda.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct bf_session;

struct bf_pace {
	/* the issue thread's own */
	bool attentive; /* work belongs to a batch, which it opens if need be */
	bool paced;     /* every batch is measured, and waits for its time */
	struct bf_batch *open;
	unsigned limit; /* launches in a batch that is paced */
	uint32_t random;
	unsigned stands_for; /* batches: the next one that is measured, where not all are */
	uint64_t turned_ns;  /* when the issue thread looked for input last */
	uint64_t gap_ns;     /* between two looks, about */
	/* shared with the thread that measures */
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	struct bf_batch *closed, **last, *spare;
	unsigned under_way;
	uint64_t took_ns; /* the last batch */
	bool started;
};

void bf_pace_init(struct bf_session *session);
/* Work is about to go to this stream of the current context. */
void bf_pace_work(struct bf_session *session, uint64_t stream);
/* The issue thread is about to look for more input. */
void bf_pace_turn(struct bf_session *session);
/* Ends the open batch: before a stream or context ends, or a capture begins. */
void bf_pace_close(struct bf_session *session);

#endif
