/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the executor share. Threads of a worker:
 *   issue    reads commands and makes the driver's calls, in the order of the stream (serve.c)
 *   ahead    while the issue thread is stuck in the driver, finds the answers that it may be stuck for (ahead.c)
 *   sender   empties the outbox when the socket is full (outbox.c)
 *   copier   delivers device-to-host copies as they complete (download.c)
 *   waiters  one per call that has to wait (wait.c), one per context that has something to give back (reaper.c)
 *   measurer waits for batches of work and takes their time (pace.c)
 *   watcher  notices that the client is gone, forwards what the driver prints (output.c)
 */
#ifndef BITFUSION_EXECUTOR_CORE_H
#define BITFUSION_EXECUTOR_CORE_H

#include "container.h"
#include "cuda.h"
#include "executor.h"
#include "pace.h"
#include "row.h"
#include "transport.h"
#include "wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_EXPORT __attribute__((visibility("default")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A status of our own, never sent: the client broke the rules and its session ends. */
#define BF_VIOLATION ((CUresult)0x7fffff01)

static inline size_t bf_pad(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

/* ------------------------------------------------------------------ wrapper.c */

struct bf_wrapper {
	struct code_wrapper code; /* the driver looks at this */
	const void **parts;
};

/* Of a load's bulk, which must live as long; false if that is not what its own sizes say. */
bool bf_wrapper_fill(struct bf_wrapper *wrapper, const uint8_t *bulk, uint64_t size, uint32_t input_count);
const void *bf_wrapper_code(const struct bf_wrapper *wrapper); /* for the driver */
void bf_wrapper_free(struct bf_wrapper *wrapper);

/* ------------------------------------------------------------------ driver.c */

/* Functions that the executor calls by itself; each may be NULL in an old driver. */
#define BF_DRIVER_FUNCTIONS(X) \
	X(cuInit) \
	X(cuDriverGetVersion) \
	X(cuDeviceGet) \
	X(cuDeviceGetCount) \
	X(cuDeviceGetName) \
	X(cuDeviceGetUuid) \
	X(cuDeviceGetUuid_v2) \
	X(cuDeviceGetPCIBusId) \
	X(cuDeviceGetAttribute) \
	X(cuDeviceTotalMem_v2) \
	X(cuDevicePrimaryCtxRetain) \
	X(cuDevicePrimaryCtxGetState) \
	X(cuCtxSetCurrent) \
	X(cuCtxGetDevice) \
	X(cuCtxGetStreamPriorityRange) \
	X(cuCtxSynchronize) \
	X(cuStreamQuery) \
	X(cuStreamSynchronize) \
	X(cuStreamIsCapturing) \
	X(cuThreadExchangeStreamCaptureMode) \
	X(cuStreamWaitEvent) \
	X(cuStreamGetFlags) \
	X(cuStreamAddCallback) \
	X(cuLaunchHostFunc) \
	X(cuEventCreate) \
	X(cuEventDestroy_v2) \
	X(cuEventElapsedTime) \
	X(cuEventRecord) \
	X(cuEventQuery) \
	X(cuEventSynchronize) \
	X(cuLaunchKernel) \
	X(cuLaunchKernelEx) \
	X(cuLaunchCooperativeKernel) \
	X(cuPointerGetAttribute) \
	X(cuMemGetInfo_v2) \
	X(cuMemAlloc_v2) \
	X(cuMemAllocPitch_v2) \
	X(cuMemFree_v2) \
	X(cuMemHostRegister_v2) \
	X(cuMemcpyHtoDAsync_v2) \
	X(cuMemcpyDtoHAsync_v2) \
	X(cuMemcpy3DAsync_v2) \
	X(cuModuleLoadDataEx) \
	X(cuModuleUnload) \
	X(cuLibraryUnload) \
	X(cuModuleEnumerateFunctions) \
	X(cuModuleGetFunction) \
	X(cuModuleGetFunctionCount) \
	X(cuLibraryLoadData) \
	X(cuLibraryEnumerateKernels) \
	X(cuLibraryGetKernel) \
	X(cuLibraryGetKernelCount) \
	X(cuKernelGetFunction) \
	X(cuLinkCreate_v2) \
	X(cuLinkAddData_v2) \
	X(cuLinkComplete) \
	X(cuFuncGetName) \
	X(cuFuncGetParamInfo) \
	X(cuGraphKernelNodeGetParams_v2) \
	X(cuKernelGetName) \
	X(cuKernelGetParamInfo) \
	X(cuFuncGetAttribute) \
	X(cuKernelGetAttribute)

#define BF_DRIVER_MEMBER(name) __typeof__(&name) name;
struct bf_driver {
	void *library;
	char path[4096];
	bool ready; /* cuInit has succeeded in this process */
	BF_DRIVER_FUNCTIONS(BF_DRIVER_MEMBER)
};

/* Loads the library and, if asked, initialises it; 0, or a CUresult with the reason in text. */
CUresult bf_driver_load(struct bf_driver *driver, const char *path, bool init, char *text, size_t size);
void *bf_driver_symbol(struct bf_driver *driver, const char *name);
extern struct bf_driver bf_driver; /* the one of this process; warm spares have it filled in already */

/* ------------------------------------------------------------------ handles.c
 *
 * Only the issue thread looks handles up while others may bind them, so an entry is published by one store.
 */
struct bf_entry {
	_Atomic uint64_t value; /* the driver's handle, 0 when free */
	uint32_t owner;         /* packed kind and index whose end is this handle's end, 0 for none */
	uint32_t second;        /* another owner: it ends with whichever ends first */
	uint32_t flags;         /* streams: enum bf_stream_flags */
};
enum bf_stream_flags { BF_STREAM_NON_BLOCKING = 1 };

enum { BF_HANDLE_CHUNK = 4096 };
struct bf_handles {
	pthread_mutex_t lock;
	_Atomic(struct bf_entry *) chunk[BF_HANDLE_KINDS][BF_MAX_HANDLES / BF_HANDLE_CHUNK];
	struct bf_reverse {
		uint64_t *slot; /* pairs: driver handle, index */
		size_t size, used, live;
	} reverse[BF_HANDLE_KINDS];
	uint32_t minted[BF_HANDLE_KINDS]; /* handles that the executor had to number, from the top */
};

void bf_handles_init(struct bf_handles *handles);
/* The entry if it was ever bound, else NULL. */
static inline struct bf_entry *bf_handle_entry(struct bf_handles *handles, unsigned kind, uint32_t index)
{
	if (unlikely(index >= BF_MAX_HANDLES || kind >= BF_HANDLE_KINDS))
		return NULL;
	struct bf_entry *chunk =
		atomic_load_explicit(&handles->chunk[kind][index / BF_HANDLE_CHUNK], memory_order_acquire);
	return likely(chunk != NULL) ? &chunk[index % BF_HANDLE_CHUNK] : NULL;
}
/* Translates a number from the client into the driver's handle. False: no such handle. */
bool bf_handle_resolve(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t *value);
/* False: the number is not one that a client may mint for this kind, or there is no memory. */
bool bf_handle_bind(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t value, uint32_t owner);
void bf_handle_drop(struct bf_handles *handles, uint64_t number);
void bf_handle_own(struct bf_handles *handles, uint64_t number, uint32_t second);
/* Drops what ends together with `number` (the functions of a module, all of a context). */
void bf_handle_drop_owned(struct bf_handles *handles, uint64_t number);
/* The client's number for a driver handle; if there is none yet, `proposed` or, for 0, one of our own. */
uint64_t bf_handle_find(struct bf_handles *handles, unsigned kind, uint64_t value, uint64_t proposed, uint32_t owner);
/* The client's number for a driver handle, 0 if it has none. */
uint64_t bf_handle_known(struct bf_handles *handles, unsigned kind, uint64_t value);
bool bf_handle_is(uint64_t number, unsigned kind);
static inline uint32_t bf_handle_pack(uint64_t number)
{
	return (uint32_t)BF_HANDLE_KIND(number) << 24 | (BF_HANDLE_INDEX(number) & 0xffffff);
}
static inline uint64_t bf_handle_unpack(uint32_t packed)
{
	return packed ? BF_HANDLE(packed >> 24, packed & 0xffffff) : 0;
}

/* ------------------------------------------------------------------ staging.c: pinned host memory */

struct bf_session;

/* An event of the executor's own, of the context that was current when it was taken. */
struct bf_marker {
	struct bf_marker *next;
	CUevent event;
	uint32_t context, generation;
};
struct bf_marker *bf_marker_take(struct bf_session *session, CUresult *status);
void bf_marker_give(struct bf_session *session, struct bf_marker *marker);

struct bf_slot {
	struct bf_slot *next;
	uint8_t *data;
	size_t size;
	struct bf_marker *marker;
	bool kept, pinned;
};
struct bf_staging {
	pthread_mutex_t lock;
	struct bf_slot *idle[2];          /* large, small */
	struct bf_slot *busy, **busy_tail; /* host-to-device, in issue order; the issue thread's alone */
	unsigned busy_count;
	size_t total;
	struct bf_marker *markers;
};
enum { BF_STAGING_CHUNK = 1 << 20, BF_STAGING_SMALL = 64 << 10 };
void bf_staging_init(struct bf_session *session);
/* A buffer for at most BF_STAGING_CHUNK bytes; fails only when there is no memory at all. */
struct bf_slot *bf_staging_take(struct bf_session *session, size_t size);
/* The same, and the driver has it pinned; NULL when it will not. */
struct bf_slot *bf_staging_take_pinned(struct bf_session *session, size_t size);
/* The same, but waits for earlier host-to-device copies rather than take ever more. Issue thread. */
struct bf_slot *bf_staging_take_busy(struct bf_session *session, size_t size);
void bf_staging_give(struct bf_session *session, struct bf_slot *slot);
/* Gives the buffer back once the work that the stream has now is over. Issue thread. */
void bf_staging_retire(struct bf_session *session, struct bf_slot *slot, CUstream stream);
bool bf_staging_full(struct bf_session *session);
/* Makes a little time for copies on their way to the client. */
void bf_staging_relieve(struct bf_session *session);

/* ------------------------------------------------------------------ outbox.c */

struct bf_outbox {
	pthread_mutex_t lock;
	pthread_cond_t work, room;
	pthread_t sender;
	bool started, broken;
	bool taken; /* a thread is sending by itself: others queue */
	_Atomic bool over; /* the issue thread should stop reading until the queue has drained */
	size_t queued;     /* bytes */
	struct bf_item *first, **last;
};
void bf_outbox_init(struct bf_session *session);
/* Queues or sends a reply; takes the slot over (may be NULL), whose bytes are the bulk. Never blocks. */
void bf_send(struct bf_session *session, struct bf_reply *reply, const void *body, size_t body_size, const void *bulk,
	     size_t bulk_size, struct bf_slot *slot);
void bf_reply(struct bf_session *session, uint32_t request, CUresult status, const void *body, size_t size);
/* Sends a part of a copy to the client from where it lies and returns when it has left: sleeps while the client
 * does not read, so only for one that waits for it. */
void bf_send_data(struct bf_session *session, uint32_t request, uint64_t offset, const void *bytes, size_t size);
/* Waits until the client has read enough; call it on the issue thread only. */
void bf_outbox_throttle(struct bf_session *session);
/* Gives the last replies a moment to leave. */
void bf_outbox_finish(struct bf_session *session, int timeout_ms);

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
	unsigned idle, threads;
};
void bf_waiters_init(struct bf_session *session);
bool bf_submit(struct bf_session *session, struct bf_job *job);

/* ------------------------------------------------------------------ use.c */

/* In the memory of the call that uses it. */
struct bf_use {
	struct bf_use *next;
	uint64_t code; /* the client's number of a module, library or link, or 0 */
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
/* Waits until no such call uses this module, library, link or context. */
void bf_use_wait(struct bf_session *session, uint64_t number);

/* ------------------------------------------------------------------ reaper.c */

struct bf_reaper {
	pthread_mutex_t lock;
	pthread_cond_t done; /* one more of them */
	struct bf_reap_queue *queues;
	_Atomic unsigned pending;
};

/* ------------------------------------------------------------------ virtual.c */

struct bf_virtual {
	pthread_mutex_t lock;
	struct bf_physical *physical;
	struct bf_mapping *mappings;
};
void bf_virtual_init(struct bf_session *session);

struct bf_frame;
typedef CUresult (*bf_around)(struct bf_session *session, struct bf_frame *frame);

/* How a row is carried out. */
struct bf_route {
	void *function; /* the driver's, looked up at first use */
	const struct bf_row *row;
	bf_around around; /* does more than the call, or NULL */
	bool resolved, has_arrays, has_locations, waits, allocates;
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
	struct bf_virtual virtual;
	struct bf_pace pace;

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

/* ------------------------------------------------------------------ serve.c */

void bf_log(struct bf_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Logs why, ends the session; always returns BF_VIOLATION. */
CUresult bf_violation(struct bf_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bf_defer(struct bf_session *session, uint32_t call, CUresult status);

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

/* ------------------------------------------------------------------ input.c */

bool bf_input_init(struct bf_session *session);
/* More bytes: 1; nothing there (only without wait): 0; the client is gone: -1. */
int bf_input_more(struct bf_session *session, bool wait);
/* Takes exactly size bytes of bulk data. */
bool bf_input_take(struct bf_session *session, void *data, size_t size);
bool bf_input_skip(struct bf_session *session, uint64_t size);
/* Makes `size` (at most BF_STAGING_SMALL) bytes of bulk lie together; NULL when the client is gone. */
const uint8_t *bf_input_peek(struct bf_session *session, size_t size);
static inline void bf_input_consume(struct bf_input *input, size_t size)
{
	input->start += size;
}

/* ------------------------------------------------------------------ ahead.c
 *
 * Whatever blocks the issue thread in the driver may be waiting for a host function, and so for an answer that lies
 * further on in the stream. So from the first such function on, all of input.c happens under a lock, and a thread
 * reads on when the issue thread does not; what it has read and not needed, the issue thread takes from it.
 */
void bf_ahead_start(struct bf_session *session);
void bf_ahead_lock(struct bf_input *input);
void bf_ahead_unlock(struct bf_input *input);
/* With the lock held: at most `size` bytes of what has been read. */
size_t bf_ahead_take(struct bf_input *input, void *data, size_t size);

/* ------------------------------------------------------------------ question.c */

/* From a host function: sends the client a frame of this kind, whose body starts with a token, after all that the
 * stream brought before; waits for the answer. `to` takes the bytes that come with it. False: there will be none. */
bool bf_ask(struct bf_session *session, uint32_t context, enum bf_reply_kind kind, void *body, size_t size, uint8_t *to,
	    uint64_t to_size);
/* Of answers that come both through the issue thread and ahead of it one is claimed, and then must be given.
 * Where the bytes go, or NULL. */
bool bf_question_claim(struct bf_session *session, uint64_t token, uint64_t size, uint8_t **to);
void bf_question_answer(struct bf_session *session, uint64_t token, bool good);

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
/* Waits for those of a context, and for the one that ends this handle (0: all). Not on the issue thread. */
void bf_reap_wait(struct bf_session *session, uint32_t context, uint64_t handle);
/* Gives them a moment; returns the bytes that are yet to be freed. */
uint64_t bf_reap_memory(struct bf_session *session, uint32_t device, int wait_ms);

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

/* ------------------------------------------------------------------ copy.c, wait.c, output.c, memory.c, callback.c */

void bf_copy_init(struct bf_session *session);
/* Sends the device-to-host copies that have completed. */
void bf_copy_deliver(struct bf_session *session);
/* What the client has to get before the reply of something that waited. */
void bf_settle(struct bf_session *session);

enum bf_wait_kind { BF_WAIT_CONTEXT, BF_WAIT_STREAM, BF_WAIT_EVENT };
/* Waits for what the frame's row waits for, here or on a waiter, and replies. */
void bf_wait_row(struct bf_session *session, struct bf_frame *frame);
/* Polls a stream for a moment, unless new commands arrive: CUDA_ERROR_NOT_READY when it takes longer. */
CUresult bf_wait_briefly(struct bf_session *session, CUstream stream);

bool bf_output_start(struct bf_session *session);
void bf_output_drain(struct bf_session *session, bool all);
void bf_output_stop(struct bf_session *session);

CUresult bf_memory_charge(struct bf_session *session, uint64_t size, int *device);
void bf_memory_refund(struct bf_session *session, int device, uint64_t size);
bool bf_memory_add(struct bf_session *session, const struct bf_allocation *allocation);
/* A context has ended, and with it what was allocated in it. */
void bf_memory_end_context(struct bf_session *session, uint32_t context);
/* Index of the calling thread's current context. */
static inline uint32_t bf_context_index(void)
{
	return bf_context_current ? bf_context_current - 1 : 0;
}
bool bf_memory_remove(struct bf_session *session, uint64_t address, struct bf_allocation *allocation);
/* Frees, and gives back what that counted for. */
CUresult bf_memory_release(struct bf_session *session, uint64_t address);
bool bf_memory_find(struct bf_session *session, uint64_t address, struct bf_allocation *allocation);
CUresult bf_memory_info(struct bf_session *session, uint64_t info[2]);
uint64_t bf_memory_total(struct bf_session *session, uint32_t device, uint64_t total);

/* What this process takes of a device, whose context is current; false where nobody can say (process_memory.c). */
bool bf_process_memory(struct bf_session *session, int device, uint64_t *used);

/* Code's variables (code_memory.c): measure before a call that may load some, charge after it. handle: the client's
 * number of the module or library; context: what it dies with, or BF_OUTLIVES. */
struct bf_code_memory {
	int device; /* -1: nothing to count against */
	uint64_t used, allocated;
};
void bf_code_measure(struct bf_session *session, struct bf_code_memory *before);
CUresult bf_code_charge(struct bf_session *session, const struct bf_code_memory *before, uint64_t handle,
			uint32_t context);
void bf_code_refund(struct bf_session *session, uint64_t handle);

void bf_image_drop(struct bf_session *session, uint64_t handle);

#endif
