/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs and captures. The server's driver has the graph; this side keeps only what a graph needs of the program
 * at each launch: its memory, read and written anew every time, and its functions.
 */
#ifndef BITFUSION_GRAPH_H
#define BITFUSION_GRAPH_H

#include "proxy.h"

struct bf_graph_buffer {
	_Atomic unsigned references;
	CUdeviceptr address;
};

struct bf_graph_copy {
	uint8_t *host;
	uint64_t size;
	bool to_host;
	struct bf_graph_buffer *buffer;
};

/* What launches need of this side. Never changed once made, so that graphs share it; counted. */
struct bf_graph_work {
	_Atomic unsigned references;
	unsigned functions, copy_count;
	struct bf_graph_copy copies[];
};

/* Entry of a BF_GRAPH and of a BF_GRAPHEXEC. */
struct bf_graph {
	struct bf_entry entry;
	struct bf_graph_work *work; /* under the lock of graph.c, NULL for most */
	struct bf_keep *keep;     /* under the lock of user_object.c, NULL for most */
	uint64_t
		passed; /* of an instance that keeps something: an event behind its latest launch, 0 before the first */
	uint32_t context; /* of that */
};

/* Objects of the program that a graph keeps (user_object.c). Either graph may be NULL. */
void bf_keep_copy(struct bf_graph *to, const struct bf_graph *from);
CUresult bf_keep_add(struct bf_graph *to, const struct bf_graph *from);
void bf_keep_drop(struct bf_graph *graph);
bool bf_keeps(const struct bf_graph *graph);
CUresult bf_keep_launched(struct bf_graph *graph, CUstream stream);

/* A copy of [host, host + size): the node in the graph copies to or from `device` instead. */
CUresult bf_work_add_copy(struct bf_graph_work **work, bool to_host, void *host, size_t size, CUdeviceptr *device);
CUresult bf_work_add_function(struct bf_graph_work **work);
void bf_work_drop(struct bf_graph_work *work); /* may be NULL */
/* A new one with the contents of both, either of which may be NULL, and room for `more` copies. */
struct bf_graph_work *bf_work_join(const struct bf_graph_work *one, const struct bf_graph_work *two, unsigned more);
bool bf_work_is_sound(const struct bf_graph_work *work);
extern _Atomic unsigned bf_works; /* that exist */
/* The graph that a capture became takes it over. */
void bf_graph_set_work(uint64_t graph, struct bf_graph_work *work);

extern _Atomic unsigned bf_captures; /* open ones that this process began */

CUresult bf_capture_ask(CUstream stream, uint64_t *number); /* of the capture that the stream is in, or 0 */

/* Is the stream in a capture? Free of cost while none is open. */
static inline CUresult bf_capture_find(CUstream stream, uint64_t *number)
{
	*number = 0;
	if (BF_LIKELY(!atomic_load_explicit(&bf_captures, memory_order_relaxed)))
		return CUDA_SUCCESS;
	return bf_capture_ask(stream, number);
}

CUresult bf_capture_check_unsafe(void);

/* Before a call that CUDA names unsafe during captures: an error, and broken captures, where a mode forbids it. */
static inline CUresult bf_capture_permit(void)
{
	return BF_LIKELY(!atomic_load_explicit(&bf_captures, memory_order_relaxed)) ? CUDA_SUCCESS
										    : bf_capture_check_unsafe();
}

CUresult bf_capture_ask_broken(CUstream stream);

/* Before work that is one-way: a capture that such a call has broken takes no more. */
static inline CUresult bf_capture_takes(CUstream stream)
{
	return BF_LIKELY(!atomic_load_explicit(&bf_captures, memory_order_relaxed)) ? CUDA_SUCCESS
										    : bf_capture_ask_broken(stream);
}

CUresult bf_capture_copy(uint64_t number, bool to_host, CUdeviceptr device, void *host, size_t size, CUstream stream);
CUresult bf_capture_function(uint64_t number);
/* What CUDA can capture and we cannot: tells so, and breaks the capture off, else its graph would lack a node. */
CUresult bf_capture_refuse(uint64_t number, const char *what);
CUresult bf_capture_keep(uint64_t number, const struct bf_graph *graph); /* what that has */
/* What makes a stream join a capture. */
void bf_capture_recorded(struct bf_event *event, CUstream stream);
void bf_capture_awaited(const struct bf_event *event, CUstream stream);
void bf_capture_stream_destroyed(CUstream stream);

void bf_callback_expect(unsigned count); /* so many host functions are about to be asked for */

#endif
