/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs and captures. The server's driver has the graph; this side keeps only what a graph needs of the program
 * at each launch: its memory, read and written anew every time, and its functions.
 */
#ifndef BITFUSION_GRAPH_H
#define BITFUSION_GRAPH_H

#include "proxy.h"

/* Device memory of ours (graph_buffer.c): a node copies from or to it in place of host memory, and is known by it. */
struct bf_graph_buffer {
	_Atomic unsigned references;
	struct bf_graph_buffer *next;
	CUdeviceptr address;
	uint8_t *host;
	uint64_t size;
	bool to_host;
	CUDA_MEMCPY3D given; /* by the program to the node; its width is 0 where the copy was captured */
};

struct bf_graph_copy {
	struct bf_graph_buffer *buffer;
	uint64_t node; /* 0: not known; copies that were captured */
	CUstream stream; /* that it was captured in */
	bool brought; /* out by a function behind it, before the program's own runs */
	bool crossed; /* a copy to the device is behind one to the host: they may not be of the same memory */
	bool disabled;
};

/* A host function of a graph: of the works that have it, and of launches in which it has yet to run. */
struct bf_graph_function {
	_Atomic unsigned references;
	uint64_t ticket;
	struct bf_graph_work *before; /* what it brings out, when that is something; by a stream beside the graph's */
	CUstream stream;
	uint32_t context;
};

struct bf_graph_call {
	struct bf_graph_function *function;
	uint64_t node; /* 0: not known */
};

/* In the order of capture, or in one that dependencies allow. Never changed once others know of it, so that graphs
 * share it; counted. */
struct bf_graph_work {
	_Atomic unsigned references;
	unsigned function_count, copy_count;
	struct bf_graph_call *functions;
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
	CUresult broken; /* why an instance may not be launched any more */
};

/* Objects of the program that a graph keeps (user_object.c). Either graph may be NULL. */
void bf_keep_copy(struct bf_graph *to, const struct bf_graph *from);
CUresult bf_keep_add(struct bf_graph *to, const struct bf_graph *from);
void bf_keep_drop(struct bf_graph *graph);
bool bf_keeps(const struct bf_graph *graph);
CUresult bf_keep_launched(struct bf_graph *graph, CUstream stream);

/* One for [host, host + size), which the node in the graph does not copy itself. */
CUresult bf_buffer_new(void *host, uint64_t size, bool to_host, struct bf_graph_buffer **buffer);
struct bf_graph_buffer *bf_buffer_find(CUdeviceptr address); /* counted; NULL: it is no such buffer's */
void bf_buffer_drop(struct bf_graph_buffer *buffer);
bool bf_buffers_overlap(const struct bf_graph_buffer *one, const struct bf_graph_buffer *two); /* on the host */

/* What a capture adds, in that order. */
CUresult bf_work_add_copy(struct bf_graph_work **work, struct bf_graph_buffer *buffer, CUstream stream);
CUresult bf_work_add_function(struct bf_graph_work **work, struct bf_graph_function *function, CUstream stream);
struct bf_graph_function *bf_graph_function_new(void);
void bf_graph_function_drop(struct bf_graph_function *function);
void bf_graph_function_bring_out(const struct bf_graph_function *function); /* in the thread that is about to run it */
void bf_work_drop(struct bf_graph_work *work); /* may be NULL */
struct bf_graph_work *bf_work_new(unsigned copies, unsigned functions); /* empty, with room */
/* A new one with what `from`, which may be NULL, has, but for one buffer's copy or one function (NULL: all of it), and
 * with room for one more of each. */
struct bf_graph_work *bf_work_without(const struct bf_graph_work *from, const struct bf_graph_buffer *buffer,
				      const struct bf_graph_function *function);
void bf_work_append_copy(struct bf_graph_work *work, struct bf_graph_buffer *buffer, uint64_t node);
void bf_work_append_function(struct bf_graph_work *work, struct bf_graph_function *function, uint64_t node);
/* The copies that the function is to bring out, in order; NULL when it is past the last. */
const struct bf_graph_copy *bf_work_brings(const struct bf_graph_work *before, unsigned *i);
/* A new one with the contents of both, either of which may be NULL. */
struct bf_graph_work *bf_work_join(const struct bf_graph_work *one, const struct bf_graph_work *two);
/* A new one with the same, of which what is captured in the stream (NULL: in any) from now on may not be behind. */
struct bf_graph_work *bf_work_apart(const struct bf_graph_work *from, CUstream stream);
bool bf_work_may_join(const struct bf_graph_work *one, const struct bf_graph_work *two);
extern _Atomic unsigned bf_works; /* that exist */
struct bf_graph_work *bf_graph_take_work(struct bf_graph *graph); /* counted; graph may be NULL */
void bf_graph_give_work(struct bf_graph *graph, struct bf_graph_work *work);
void bf_graph_copy(struct bf_graph *to, struct bf_graph *from); /* all that is kept of one here */

/* Nodes made or changed by hand (graph_plan.c): a graph's order is then the server's to tell. */
extern _Atomic bool bf_graphs_by_hand;
/* Ahead of an instance: finds out what the graph has, in which order, and who brings what. The graph's work is then that. */
CUresult bf_graph_plan(uint64_t graph);
/* What a node that copies or calls a function has; CUDA_ERROR_INVALID_VALUE for all others. */
CUresult bf_graph_ask_node(CUgraphNode node, struct bf_program_node *answer);
/* A copy's parameters as the server is to have them; *buffer: for its side on the host, NULL if it has none. */
CUresult bf_graph_settle_copy(const char *function, const CUDA_MEMCPY3D *given, CUDA_MEMCPY3D *settled,
			      struct bf_graph_buffer **buffer);
/* The buffer of a node, counted; NULL for a node without. */
struct bf_graph_buffer *bf_graph_node_buffer(const struct bf_program_node *node);
/* A new one with what the graph has, of which a capture into the graph cannot tell what is ahead of what; NULL: nothing. */
CUresult bf_graph_begin_work(uint64_t graph, struct bf_graph_work **before, struct bf_graph_work **work);
/* The graph that a capture became takes it over. `before` is what the graph had when the capture began. */
CUresult bf_graph_set_work(uint64_t graph, const struct bf_graph_work *before, struct bf_graph_work *work);

extern _Atomic unsigned bf_captures; /* open ones that this process began */

CUresult bf_capture_ask(CUstream stream, uint64_t *number); /* of the capture that the stream is in, or 0 */
uint64_t bf_capture_within(CUstream stream); /* of the one that it got into and that is open; asks nobody */

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
CUresult bf_capture_function(uint64_t number, struct bf_graph_function *function, CUstream stream);
/* What CUDA can capture and we cannot: tells so, and breaks the capture off, else its graph would lack a node. */
CUresult bf_capture_refuse(uint64_t number, const char *what);
CUresult bf_capture_keep(uint64_t number, const struct bf_graph *graph); /* what that has */
/* What makes a stream join a capture. */
void bf_capture_recorded(struct bf_event *event, CUstream stream);
void bf_capture_awaited(const struct bf_event *event, CUstream stream);
void bf_capture_stream_destroyed(CUstream stream);

/* A launch of the work's graph asks for its host functions, or was not to be after all. */
void bf_callback_expect(const struct bf_graph_work *work);
void bf_callback_forget(const struct bf_graph_work *work);
void bf_ticket_drop(uint64_t ticket);
/* What a ticket is for; NULL: nothing that a graph has. Counted. */
struct bf_graph_function *bf_ticket_function(uint64_t ticket, CUDA_HOST_NODE_PARAMS *params);
/* One that a graph may call, which brings out `before` (NULL: nothing) first; takes that over. */
CUresult bf_graph_function_make(const CUDA_HOST_NODE_PARAMS *params, struct bf_graph_work *before,
				struct bf_graph_function **made);

#endif
