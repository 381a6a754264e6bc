/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the executor share. Threads of a worker:
 *   issue    reads commands and makes the driver's calls, in the order of the stream (serve.c)
 *   ahead    while the issue thread is stuck in the driver, finds the answers that it may be stuck for (ahead.c)
 *   sender   empties the outbox when the socket is full (outbox.c)
 *   copier   delivers device-to-host copies as they complete (download.c)
 *   waiters  one per call that has to wait (wait.c), one per context that has something to give back (reaper.c),
 *            one that looks at what streams have freed (freed.c)
 *   measurer waits for batches of work and takes their time (pace.c)
 *   watcher  notices that the client is gone, forwards what the driver prints (output.c)
 */
#ifndef BITFUSION_EXECUTOR_CORE_H
#define BITFUSION_EXECUTOR_CORE_H

#include "input.h"
#include "memory.h"
#include "session.h"

/* ------------------------------------------------------------------ serve.c */

void bf_log(struct bf_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Logs why, ends the session; always returns BF_VIOLATION. */
CUresult bf_violation(struct bf_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bf_defer(struct bf_session *session, uint32_t call, CUresult status);

/* ------------------------------------------------------------------ environment.c */

/* text: size bytes, and room for one more. */
void bf_set_environment(struct bf_session *session, char *text, size_t size);

/* ------------------------------------------------------------------ order.c */

/* A synchronous upload has been enqueued on this stream. */
void bf_stream_synced(struct bf_session *session, uint32_t context, CUstream stream);
CUresult bf_stream_order(struct bf_session *session, uint64_t number, uint64_t stream);
/* Before work goes to a stream: makes it wait for such uploads if it would not by itself. */
static inline CUresult bf_stream_ready(struct bf_session *session, uint64_t number, uint64_t stream)
{
	if (likely(!session->synced_epoch || number <= 2))
		return CUDA_SUCCESS;
	return bf_stream_order(session, number, stream);
}

/* Before work goes to a stream of the current context, once it may. */
static inline void bf_pace_ready(struct bf_session *session, uint64_t stream)
{
	if (unlikely(session->pace.attentive))
		bf_pace_work(session, stream);
}

/* ------------------------------------------------------------------ context.c */

/* Makes the context with this index current on the calling thread. */
CUresult bf_context_use(struct bf_session *session, uint32_t index);
extern __thread uint32_t bf_context_current; /* index + 1, 0 for unknown; see bf_context_ensure */
extern __thread uint32_t bf_context_seen;
static inline CUresult bf_context_ensure(struct bf_session *session, uint32_t index)
{
	if (likely(bf_context_current == index + 1 &&
		   bf_context_seen == atomic_load_explicit(&session->context_generation, memory_order_relaxed)))
		return CUDA_SUCCESS;
	return bf_context_use(session, index);
}
bool bf_context_resolve(struct bf_session *session, uint32_t index, uint64_t *context);
/* The session's index of the driver's device, or -1. */
int bf_device_of(struct bf_session *session, uint64_t ordinal);
/* The same of the current context's device; -1 with a failure. */
CUresult bf_context_device(struct bf_session *session, int *device);
/* Index of the calling thread's current context. */
static inline uint32_t bf_context_index(void)
{
	return bf_context_current ? bf_context_current - 1 : 0;
}

/* ------------------------------------------------------------------ call.c */

struct bf_frame {
	struct bf_route *route;
	const struct bf_command *command;
	uint64_t argument[BF_MAX_ARGUMENTS]; /* what the driver gets */
	uint64_t given[BF_MAX_ARGUMENTS]; /* as they came: handle numbers, capacities */
	uint8_t *scratch;
	size_t scratch_size;
};
enum { BF_SCRATCH = BF_MAX_COMMAND + 4096 };
bool bf_routes_init(struct bf_session *session);
void bf_row_command(struct bf_session *session, const struct bf_command *command);
CUresult bf_invoke(struct bf_frame *frame);
/* Binds and drops handles, composes the answer, replies. */
void bf_finish(struct bf_session *session, struct bf_frame *frame, CUresult status, uint8_t *answer);
/* rows that need more than the call (rows.c) */
bf_around bf_row_around(const char *name);
bool bf_row_allocates(bf_around around);
/* A call that allocates at what *place is then, or frees; what that counts for changes with it. */
CUresult bf_row_charged(struct bf_session *session, struct bf_frame *frame, uint64_t size, uint64_t *place,
			uint64_t key);
CUresult bf_row_refunded(struct bf_session *session, struct bf_frame *frame, uint64_t key);
/* rows about nodes of graphs that name the program's functions and memory (graph_rows.c, callback.c) */
CUresult bf_node_alloc(struct bf_session *session, struct bf_frame *frame);
CUresult bf_node_alloc_params(struct bf_session *session, struct bf_frame *frame);
CUresult bf_node_copy(struct bf_session *session, struct bf_frame *frame);
CUresult bf_node_free(struct bf_session *session, struct bf_frame *frame);
CUresult bf_node_function(struct bf_session *session, struct bf_frame *frame);
/* Ends a command that had no row: defers or replies. */
void bf_done(struct bf_session *session, const struct bf_command *command, CUresult status, const void *body,
	     size_t size);

/* ------------------------------------------------------------------ operations; body checked for its fixed part */

typedef void (*bf_operation_function)(struct bf_session *session, const struct bf_command *command, const uint8_t *body,
				      size_t size);
void bf_op_devices(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_launch(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_htod(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_dtoh(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_refresh(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_copy3d(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_alloc(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_free(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_load(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_get_function(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_host_function(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
/* A host function of the program has yet to return, and may be waiting for what other threads of it do: the issue
 * thread must not wait for anything that may be queued behind it, and takes as many buffers as it needs instead. */
bool bf_host_function_pending(struct bf_session *);
void bf_op_callback_done(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_kernel_node(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_program_node(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_graph_shape(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
/* The client's number for a host function of a node, 0 for one that is not the client's. */
uint64_t bf_host_function_number(const CUDA_HOST_NODE_PARAMS *params);
void bf_op_progress(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_late(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);
void bf_op_memory_info(struct bf_session *, const struct bf_command *, const uint8_t *, size_t);

/* ------------------------------------------------------------------ reaper.c */

void bf_reaper_init(struct bf_session *session);
/* Frees memory, or makes a one-way call whose arguments are all values, once the driver gets round to it. */
void bf_reap_free(struct bf_session *session, const struct bf_command *command, uint64_t address);
bool bf_reap_row(struct bf_session *session, const struct bf_frame *frame);
static inline bool bf_reap_pending(struct bf_session *session)
{
	return atomic_load_explicit(&session->reaper.pending, memory_order_acquire) != 0;
}
enum { BF_ANY_CONTEXT = UINT32_MAX };
/* Waits for those of a context, and for the one that ends this handle (0: all). Not on the issue thread, unless it finds
 * answers while it waits (ahead.c). */
void bf_reap_wait(struct bf_session *session, uint32_t context, uint64_t handle);
/* Gives them a moment; returns the bytes that are yet to be freed. */
uint64_t bf_reap_memory(struct bf_session *session, uint32_t device, int wait_ms);

/* ------------------------------------------------------------------ freed.c */

void bf_freed_init(struct bf_session *session);
/* This stream, of that context, has been told to free what counted so much; false: it is to be given back at once. On
 * the issue thread. */
bool bf_freed_add(struct bf_session *session, uint64_t stream, uint32_t context, const struct bf_allocation *gone);
/* Records events behind what was freed. On the issue thread. */
void bf_freed_close(struct bf_session *session);
static inline bool bf_freed_pending(struct bf_session *session)
{
	return atomic_load_explicit(&session->freed.pending, memory_order_acquire) != 0;
}
/* Gives back what streams have got to, but for what the driver keeps of it. */
void bf_freed_look(struct bf_session *session);
/* Until some of it is given back since freed.settled was `seen`; false when none is to be expected. */
bool bf_freed_wait(struct bf_session *session, unsigned seen);
/* Before a context ends, and after. */
struct bf_freed_stream *bf_freed_leave(struct bf_session *session, uint32_t context);
void bf_freed_end(struct bf_session *session, struct bf_freed_stream *left, bool ended);

/* What was freed so and counts still. */
static inline uint64_t bf_freed_bytes(struct bf_session *session, uint32_t device)
{
	return atomic_load(&session->freed.bytes[device]);
}

/* ------------------------------------------------------------------ reserve.c */

/* Has the ledger count what the driver keeps now. */
void bf_reserve_update(struct bf_session *session);
static inline bool bf_reserve_counted(struct bf_session *session)
{
	return atomic_load_explicit(&session->reserve.total, memory_order_acquire) != 0;
}
/* Nothing that streams have yet to free is the driver's no more. */
bool bf_reserve_exact(struct bf_session *session, uint32_t device);
/* Has the driver give back what it can: all of it, or what the program's next wait would; false: that was nothing. Not
 * on the issue thread. */
bool bf_reserve_trim(struct bf_session *session, bool all);

/* ------------------------------------------------------------------ limits.c */

void bf_limits_end_context(struct bf_session *session, uint32_t context);

/* ------------------------------------------------------------------ ledger_time.c */

/* The worker's client called. */
void bf_ledger_called(struct bf_ledger *ledger, uint32_t slot, uint64_t now);
/* One more, or less, of its calls waits. */
void bf_ledger_waits(struct bf_ledger *ledger, uint32_t slot, int change);
/* The session's device time is rationed. */
bool bf_ledger_paced(struct bf_ledger *ledger, uint64_t now);
void bf_ledger_spend(struct bf_ledger *ledger, uint32_t device, uint64_t busy);
bool bf_ledger_may_go_on(struct bf_ledger *ledger, uint32_t device);

/* ------------------------------------------------------------------ launch.c */

/* Translates the handles in launch attributes. */
CUresult bf_launch_attributes(struct bf_session *session, CUlaunchAttribute *attributes, unsigned count);

/* ------------------------------------------------------------------ copy.c, wait.c, output.c */

void bf_copy_init(struct bf_session *session);
/* Sends the device-to-host copies that have completed. */
void bf_copy_deliver(struct bf_session *session);
/* What the client has to get before the reply of something that waited. */
void bf_settle(struct bf_session *session);

/* Index of the context that a stream belongs to: only there events can be recorded in it. */
uint32_t bf_stream_context(struct bf_session *session, const struct bf_command *command, uint64_t number);
/* No event of ours may be recorded in it then. Also where nobody can tell. */
bool bf_is_capturing(struct bf_session *session, CUstream stream);
enum bf_wait_kind { BF_WAIT_CONTEXT, BF_WAIT_STREAM, BF_WAIT_EVENT };
/* Waits for what the frame's row waits for, here or on a waiter, and replies. */
void bf_wait_row(struct bf_session *session, struct bf_frame *frame);
/* Polls a stream for a moment, unless new commands arrive: CUDA_ERROR_NOT_READY when it takes longer. */
CUresult bf_wait_briefly(struct bf_session *session, CUstream stream);

bool bf_output_start(struct bf_session *session);
void bf_output_drain(struct bf_session *session, bool all);
void bf_output_stop(struct bf_session *session);

void bf_image_drop(struct bf_session *session, uint64_t handle);

#endif
