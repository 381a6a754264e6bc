/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the proxy share. The proxy is a guest in somebody else's process: it never ends it, never
 * writes to stdout by itself, keeps silent without BITFUSION_DEBUG but for one line when it gets no server or
 * loses it, and opens no connection and starts no thread before cuInit.
 */
#ifndef BITFUSION_PROXY_H
#define BITFUSION_PROXY_H

#include "base.h"
#include "function.h"
#include "handle.h"
#include "image.h"
#include "memory.h"
#include "stream.h"

struct bf_transport;

/* ------------------------------------------------------------------ the calling thread (thread.c) */

struct bf_thread {
	uint32_t current; /* index of the current context, 0 for none */
	uint32_t depth, capacity;
	uint32_t *stack; /* the contexts under the current one */
	struct bf_thread_stream *streams;
	int capture_mode;
	bool admitted; /* its streams have room for what it sends: it must not wait for that now */
	bool in_callback; /* runs the program's host functions, which may make no calls */
};
extern __thread struct bf_thread bf_self;

/* ------------------------------------------------------------------ state (init.c) */

enum bf_state {
	BF_NEW,   /* cuInit has not succeeded yet */
	BF_READY,
	BF_LOST,  /* the connection broke: every call fails from now on */
	BF_FORKED, /* a child of a process that had called cuInit: CUDA does not survive fork */
	BF_ENDED, /* the library has been torn down */
};
extern _Atomic int bf_state;

CUresult bf_state_error(void); /* what a call returns in any state but BF_READY */

static inline CUresult bf_check(void)
{
	if (BF_LIKELY(atomic_load_explicit(&bf_state, memory_order_acquire) == BF_READY && !bf_self.in_callback))
		return CUDA_SUCCESS;
	return bf_state_error();
}

/* ------------------------------------------------------------------ log (debug.c) */

bool bf_debugging(void);
void bf_debug(const char *format, ...) __attribute__((format(printf, 1, 2))); /* only with BITFUSION_DEBUG */
void bf_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));  /* one line on stderr, always */
bool bf_first_time(const char *text); /* for what is told once */
CUresult bf_absent(const char *name); /* names the function once in the debug log; NOT_SUPPORTED */
CUresult bf_absent_instead(const char *name, const char *instead); /* the same on stderr, with what to do */
void bf_not_found(const char *name, int version); /* names what was looked up in vain, once */
const char *bf_call_name(unsigned call);

/* ------------------------------------------------------------------ connection (connection.c) */

CUresult bf_connect(void); /* broker and handshake; opens the queue */
void bf_connection_lost(const char *what);
void bf_connection_settle(void); /* it is lost: returns when nobody uses the program's memory any more */
void bf_connection_leave(void); /* in a forked child: it is the parent's */

/* ------------------------------------------------------------------ command queue (queue.c)
 *
 * begin takes the lock and returns room for a command of `size` bytes, header included, or NULL when the
 * connection is gone; one of the three ends releases it. Between the two nothing may block or wait.
 */
enum bf_urgency { BF_LATER, BF_NOW };

CUresult bf_queue_open(const struct bf_transport *transport);
void *bf_queue_begin(unsigned call, size_t size, unsigned flags, uint32_t context);
uint64_t bf_queue_end(enum bf_urgency urgency); /* the command's number in the stream */
/* The command has bulk: `size` bytes from data, sent from where they lie. They are captured on return. */
uint64_t bf_queue_end_with_bulk(const void *data, size_t size, enum bf_urgency urgency);
uint64_t bf_queue_sequence(void); /* number of the latest command */
void bf_queue_flush(void);
void bf_queue_goodbye(void);
struct bf_transport *bf_queue_transport(void);

/* ------------------------------------------------------------------ replies (reply.c)
 *
 * Whoever waits reads the socket: one leader at a time, for all. A wait lives on the stack of its thread; one
 * with `finish` is nobody's (an asynchronous copy): malloc'ed, and finished and freed by the reader.
 */
struct bf_wait {
	struct bf_wait *next;
	struct bf_wait *next_follower;
	uint32_t request;
	_Atomic uint32_t state; /* futex: enum bf_wait_state of reply.c */
	int32_t status;
	int32_t deferred;
	uint32_t deferred_call;
	uint32_t call; /* for messages */
	uint8_t *data; /* where BF_DATA goes, and how much room there is */
	uint64_t data_size;
	uint64_t data_came; /* bytes so far */
	bool data_grows; /* data is malloc'ed as it comes */
	uint8_t *body;
	uint32_t body_size;
	void (*finish)(struct bf_wait *wait);
	uint64_t stream;                  /* of an asynchronous copy */
	const uint8_t *host, *host_end;   /* the memory that it writes */
	uint64_t inline_body[24];
};

void bf_reply_open(void);
/* Clears all but data, finish, host; returns the request id. Between the begin and the end of the wait's command: so
 * one that is never sent waits for nothing. With `finish`, the wait may be gone when this returns. */
uint32_t bf_wait_add(struct bf_wait *wait, unsigned call);
void bf_wait_drop(struct bf_wait *wait);    /* frees the body */
void bf_reply_break(void);                 /* fails all waits: the connection is gone */
/* Stream of a copy in flight that writes into [data, data + size), if there is one. */
bool bf_reply_writes(const void *data, size_t size, uint64_t *stream);
void bf_reply_until_written(const void *data, size_t size); /* until none does */
void bf_reply_start_reader(void);

/* ------------------------------------------------------------------ what calls return (answer.c) */

CUresult bf_wait_for(struct bf_wait *wait); /* status with deferred failures folded in */
/* The same for a call that gives something to the program: it must not be lost because of an earlier failure,
 * which the next call that only waits reports instead. */
CUresult bf_wait_for_result(struct bf_wait *wait);
void bf_fail_later(CUresult status); /* of a call that has no one to tell it: the next that waits does */

/* Sends a command made of a header and a fixed body; an answer of any size is then to be waited for. */
CUresult bf_question(struct bf_wait *wait, unsigned call, const void *body, size_t size);
/* Sends such a command, waits, and copies `answer_size` bytes of the reply. */
CUresult bf_ask(unsigned call, const void *body, size_t size, void *answer, size_t answer_size);
CUresult bf_post(unsigned call, const void *body, size_t size); /* one-way */

/* ------------------------------------------------------------------ calls (call.c) */

CUresult bf_call(unsigned call, const uint64_t *args);
CUresult bf_call_per_thread(unsigned call, const uint64_t *args);
/* Either, and the command's number in the stream. */
CUresult bf_call_numbered(unsigned call, const uint64_t *args, bool per_thread, uint64_t *sequence);

#define BF_ARG(value) ((uint64_t)(uintptr_t)(value))
#define BF_CALL(name, ...) bf_call(BF_##name, (const uint64_t[]){ __VA_ARGS__ })

/* ------------------------------------------------------------------ threads (thread.c) */

int bf_thread_start(void *(*start)(void *argument)); /* a thread of ours, detached; 0 or an error number */
void bf_thread_watch(void); /* frees what bf_self holds when the thread ends */
CUresult bf_thread_stream(CUstream *stream); /* NULL and PER_THREAD become the thread's own */

/* Replaces CU_STREAM_PER_THREAD, and for a per-thread entry point NULL, by the thread's own stream. */
static inline CUresult bf_stream_resolve(CUstream *stream, bool per_thread)
{
	if (BF_LIKELY((uintptr_t)*stream > 2 || (*stream == NULL && !per_thread) || *stream == CU_STREAM_LEGACY))
		return CUDA_SUCCESS;
	return bf_thread_stream(stream);
}

/* ------------------------------------------------------------------ devices (device.c) */

CUresult bf_devices_load(void);
unsigned bf_device_count(void);
bool bf_device_valid(CUdevice device);
uint32_t bf_device_index(CUdevice device);             /* the server's number */
int bf_device_attribute(CUdevice device, int attribute); /* 0 when unknown */
CUresult bf_device_resource(CUdevice device, CUdevResource *resource, CUdevResourceType type);
const struct bf_device *bf_device(CUdevice device);
int bf_driver_version(void);

/* ------------------------------------------------------------------ host functions (callback.c) */

int bf_callback_queue(const struct bf_callback *callback);
bool bf_callback_pending(void);

#endif
