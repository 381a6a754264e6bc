/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files about stream capture share (capture.c, capture_query.c, capture_mode.c).
 */
#ifndef BITFUSION_CAPTURE_H
#define BITFUSION_CAPTURE_H

#include "graph.h"

struct bf_capture {
	struct bf_capture *next;
	uint64_t number; /* ours: streams and events know it by this, also when it is over */
	uint64_t origin; /* the stream that it began in and must end in */
	CUstreamCaptureMode mode;
	pthread_t thread; /* that began it */
	bool broken; /* by a call that its mode forbids */
	struct bf_graph_work *before; /* what the graph that it goes to had when it began */
	struct bf_graph_work *work; /* that, and what has been captured */
	struct bf_graph kept; /* stands for the graph that it will be */
	CUgraphNode *nodes; /* what the latest cuStreamGetCaptureInfo told */
	CUgraphEdgeData *edges;
	size_t room;
};

extern pthread_mutex_t bf_capture_lock;
extern struct bf_capture *bf_open_captures; /* under the lock */

/* With the lock held; NULL when it is over. */
struct bf_capture *bf_capture_numbered(uint64_t number);
struct bf_capture *bf_capture_begun_in(uint64_t stream);

#endif
