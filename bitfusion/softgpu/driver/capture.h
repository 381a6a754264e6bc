/* SPDX-License-Identifier: Apache-2.0
 *
 * A capture in progress.
 */
#ifndef SOFTGPU_CAPTURE_H
#define SOFTGPU_CAPTURE_H

#include "graph.h"

struct capture {
	int references; /* streams and events that are in it */
	uint64_t id;
	struct graph *graph;
	int owns_graph; /* not begun into a graph of the program's */
	CUstreamCaptureMode mode;
	CUstreamCaptureStatus status;
	struct stream *origin;
	pthread_t thread;
	struct stream **streams; /* all that have joined */
	unsigned stream_count;
	struct node **orphans; /* the last of streams that were destroyed: to be joined like the streams' */
	unsigned orphan_count;
	struct capture *next_active;
};

/* What the next node of the stream depends on. With queue_lock held. */
CUresult set_frontier(struct stream *stream, struct node *const *nodes, unsigned count);

#endif
