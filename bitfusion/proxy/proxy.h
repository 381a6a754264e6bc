/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the proxy share. The proxy is a guest in somebody else's process: it never ends it, never
 * writes to stdout by itself, keeps silent without BITFUSION_DEBUG but for one line when it gets no server or
 * loses it, and opens no connection and starts no thread before cuInit.
 */
#ifndef BITFUSION_PROXY_H
#define BITFUSION_PROXY_H

#include "abi.h"
#include "calls.h"
#include "cuda.h"
#include "row.h"
#include "wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bf_transport;

#define BF_EXPORT __attribute__((visibility("default")))
#define BF_LIKELY(x) __builtin_expect(!!(x), 1)
#define BF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BF_PAD8(size) (((size) + 7) & ~(size_t)7)

/* ------------------------------------------------------------------ the calling thread (thread.c) */

struct bf_thread {
	uint32_t current; /* index of the current context, 0 for none */
	uint32_t depth, capacity;
	uint32_t *stack; /* the contexts under the current one */
	struct bf_thread_stream *streams;
	int capture_mode;
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
CUresult bf_absent(const char *name); /* names the function once in the debug log; NOT_SUPPORTED */
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

/* ------------------------------------------------------------------ handles (handle.c)
 *
 * One growing table per kind. Entries never move and are never freed, so a look-up takes no lock and a stale
 * handle finds a dead entry, not freed memory. Each entry begins with struct bf_entry.
 */
enum bf_life { BF_DEAD, BF_ALIVE, BF_MINTED /* the number is taken, nothing is found by it yet */ };

struct bf_entry {
	_Atomic uint32_t life; /* enum bf_life */
	uint32_t context;      /* index of the context it was made in */
};

static inline bool bf_is_alive(const struct bf_entry *entry)
{
	return atomic_load_explicit(&entry->life, memory_order_acquire) == BF_ALIVE;
}

uint64_t bf_handle_new(enum bf_handle_kind kind, void *entry); /* 0 when there are too many */
void *bf_handle_reserve(enum bf_handle_kind kind, uint32_t index); /* a number with a fixed meaning */
void bf_handle_start(enum bf_handle_kind kind, uint64_t handle); /* from now on it is found */
void bf_handle_free(uint64_t handle); /* once, however often it is called */
void bf_handle_free_context(uint32_t context); /* all that die with a context */
void *bf_handle_find(enum bf_handle_kind kind, uint64_t handle); /* NULL unless alive */
void *bf_handle_entry(enum bf_handle_kind kind, uint32_t index);
uint32_t bf_handle_count(enum bf_handle_kind kind); /* indices below were handed out */

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

/* ------------------------------------------------------------------ work that is not over (credit.c) */

struct bf_credit {
	_Atomic uint64_t added, done; /* pieces of work since the start; a large one counts for several */
	pthread_mutex_t lock;         /* all zeros is one that is not locked */
	struct bf_mark *mark;
};

enum { BF_CREDIT_CHECK = 64, BF_CREDIT_BYTES = 16 << 10, BF_CREDIT_MOST = 64 };

void bf_credit_wait(struct bf_credit *credit, CUstream stream, uint64_t added);
struct bf_credit *bf_credit_of(CUstream stream);
void bf_credit_done(struct bf_credit *credit, uint64_t position); /* all that was added up to there is over */

/* Before work with this many bytes of the program's memory goes to a stream: waits while that has too much. */
static inline void bf_credit_take(struct bf_credit *credit, CUstream stream, size_t bytes)
{
	uint64_t cost = 1 + bytes / BF_CREDIT_BYTES, added;

	if (BF_UNLIKELY(!credit))
		return;
	cost = cost < BF_CREDIT_MOST ? cost : BF_CREDIT_MOST;
	added = atomic_fetch_add_explicit(&credit->added, cost, memory_order_relaxed) + cost;
	if (BF_UNLIKELY(added % BF_CREDIT_CHECK < cost))
		bf_credit_wait(credit, stream, added);
}

static inline void bf_stream_admit(CUstream stream, size_t bytes)
{
	bf_credit_take(bf_credit_of(stream), stream, bytes);
}

/* ------------------------------------------------------------------ contexts (context.c) */

struct bf_context {
	struct bf_entry entry;
	CUdevice device;
	bool primary;
	_Atomic bool active; /* a primary one: retained, or made current */
	_Atomic uint32_t retained;
	_Atomic unsigned flags;
	uint64_t id;
	_Atomic uint64_t synced; /* number of the last command known to be complete */
	_Atomic int fault;       /* a CUresult that stays until the context ends (fault.c) */
	struct bf_credit credit; /* of the legacy stream */
};

bool bf_is_fault(CUresult status);
void bf_fault_note(CUresult status); /* a call that waited got this */
CUresult bf_fault_of(uint32_t context);
CUresult bf_contexts_open(void);
struct bf_context *bf_context_find(CUcontext context); /* NULL unless alive */
struct bf_context *bf_context_at(uint32_t index);
CUcontext bf_context_handle(uint32_t index);
CUresult bf_context_check(void); /* is there a living current one without a fault? */
uint32_t bf_context_any(void); /* the current one, else the first device's primary one */

/* ------------------------------------------------------------------ streams and events (stream.c, event.c) */

struct bf_stream {
	struct bf_entry entry;
	unsigned flags;
	int priority;
	uint64_t id;
	_Atomic uint64_t synced;
	_Atomic uint64_t capture; /* number of the latest that it got into (capture.c) */
	struct bf_credit credit;
};

struct bf_record {
	uint64_t number; /* of the command, 0 before the first */
	uint64_t stream, stream_id;
};

struct bf_event {
	struct bf_entry entry;
	unsigned flags;
	pthread_mutex_t lock;      /* of the next two; all zeros is one that is not locked */
	struct bf_record latest;
	unsigned recording;        /* threads that are about to */
	_Atomic uint64_t complete; /* the record known to be complete */
	_Atomic uint64_t capture;  /* number of the one that the latest record was in, 0 for none */
	_Atomic bool external;     /* something else records it too, so that only the server knows */
};

CUresult bf_stream_check(CUstream stream); /* a special one, or alive */
/* What every entry point with a stream begins with: the library works, a context is current, and *stream, resolved
 * for the entry's flavour, is one of them. */
CUresult bf_stream_enter(CUstream *stream, bool per_thread);
bool bf_stream_passed(uint64_t stream, uint64_t stream_id, uint32_t context, uint64_t sequence);
uint64_t bf_stream_number(CUstream stream);
CUresult bf_stream_wait(CUstream stream);
CUresult bf_stream_query(CUstream stream);

/* ------------------------------------------------------------------ functions (function.c) */

enum { BF_PROVED_SHAPES = 4 };

struct bf_proof {
	_Atomic uint64_t block;                   /* the one block shape, 0: none yet, BF_ANY_BLOCK: several */
	_Atomic uint64_t shape[BF_PROVED_SHAPES]; /* of cooperative launches and clusters: digests of all that counts */
	_Atomic uint32_t next;
};

struct bf_function {
	struct bf_entry entry;
	uint32_t parameter_count;
	uint32_t parameters_size;
	const struct bf_parameter *parameters;
	_Atomic int32_t attribute[BF_FUNCTION_ATTRIBUTES];
	_Atomic uint32_t attribute_valid;
	_Atomic bool loaded; /* was used once, and the server said that this went well */
	struct bf_proof proof; /* shapes in which the driver has launched it */
	CUdevice device; /* that the attributes are of */
	uint64_t parent; /* module or library */
	uint64_t function; /* of a kernel: its CUfunction, once asked for */
	char *name;
};

/* Levels of a mipmapped array are arrays, too. */
struct bf_array {
	struct bf_entry entry;
	uint64_t parent; /* of a level: the mipmapped array that it goes with */
	CUDA_ARRAY3D_DESCRIPTOR shape;
};

/* Is there such an array, and does the box, x in bytes, lie in it? */
CUresult bf_array_check(CUarray array, const size_t offset[3], const size_t size[3]);
void bf_texture_end_context(uint32_t context);

struct bf_parameter {
	uint32_t offset, size;
};

/* Else the server's driver could not, or was not asked to, load it: nobody knows yet whether it can. */
static inline bool bf_function_is_loaded(struct bf_function *function)
{
	return atomic_load_explicit(&function->attribute_valid, memory_order_relaxed) ||
	       atomic_load_explicit(&function->loaded, memory_order_relaxed);
}

/* A function, or a kernel where a function is declared: the runtime passes either. */
static inline struct bf_function *bf_function_find(CUfunction function)
{
	uint64_t handle = (uint64_t)(uintptr_t)function;
	unsigned kind = BF_HANDLE_KIND(handle);

	if (BF_UNLIKELY(kind != BF_FUNCTION && kind != BF_KERNEL))
		return NULL;
	return bf_handle_find((enum bf_handle_kind)kind, handle);
}
/* Of a launch's or a node's `extra`; what it does not say stays. */
CUresult bf_extra_read(void **extra, const void **values, size_t *size);
CUresult bf_function_get(uint64_t parent, enum bf_handle_kind kind, const char *name, uint64_t *handle);
/* The first of all that a module or library has, at most `capacity`. */
CUresult bf_function_list(uint64_t parent, enum bf_handle_kind kind, uint64_t *handles, unsigned capacity,
			  unsigned count);
void bf_function_free_parent(uint64_t parent);

/* ------------------------------------------------------------------ memory (map.c, memory.c, host.c, copy.c) */

enum bf_range_kind {
	BF_RANGE_DEVICE,
	BF_RANGE_GLOBAL,
	BF_RANGE_POOL,
	BF_RANGE_MAPPED,
	BF_RANGE_MANAGED,
	BF_RANGE_PINNED,
	BF_RANGE_REGISTERED
};

/* Under a sanitizer, whose own tables may lie where a driver has its memory, no addresses are taken. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { BF_MAP_MAY_RESERVE = false };
#else
enum { BF_MAP_MAY_RESERVE = true };
#endif

struct bf_twin;

struct bf_range {
	uint64_t base, size;
	enum bf_range_kind kind;
	uint32_t context;
	CUdevice device;
	unsigned flags;
	uint64_t id;
	uint64_t parent; /* the module or library of a variable, the pool of an allocation, what is mapped */
	bool reserved; /* the same numbers are taken in this process too */
	bool usable; /* of a managed variable of code: the program has memory there */
	uint64_t place; /* of one that could not be where it is on the server: its address there, else 0 */
	int advice[3]; /* of managed memory (managed.c) */
	struct bf_twin *twin; /* of memory that kernels use too (shared.h), or NULL */
	bool settled; /* no copy writes it that began before there was a twin */
};

/* With `reserved` set: CUDA_ERROR_ALREADY_MAPPED when the program has something at these addresses. */
CUresult bf_map_add(const struct bf_range *range);
bool bf_map_find(uint64_t address, struct bf_range *range); /* the one that holds the address */
bool bf_map_remove(uint64_t base, unsigned kinds, struct bf_range *range); /* a mask of 1 << kind */
void bf_map_remove_parent(uint64_t parent);
void bf_map_set_advice(uint64_t address, int kind, int advice);
void bf_map_set_twin(uint64_t base, struct bf_twin *twin, bool settled);
void bf_map_change_parent(uint64_t from, uint64_t to); /* of what is mapped */
/* Addresses alone; false: the program has something there. */
bool bf_map_reserve(uint64_t base, uint64_t size);
void bf_map_unreserve(uint64_t base, uint64_t size);
/* Addresses that nothing of the program has just now; 0 when there are none. */
uint64_t bf_map_find_free(uint64_t size, uint64_t alignment);
bool bf_is_reserved(uint64_t address); /* by cuMemAddressReserve */
bool bf_is_device_memory(uint64_t address); /* or an address where such memory could be mapped */
void bf_map_remove_context(uint32_t context);

static inline bool bf_range_is_host(const struct bf_range *range)
{
	return range->kind >= BF_RANGE_PINNED;
}

struct bf_physical { /* by cuMemCreate */
	struct bf_entry entry;
	CUdevice device;
	_Atomic unsigned handles;
};

CUresult bf_memory_allocate(CUdeviceptr *address, size_t size); /* also where the program may not */
CUresult bf_memory_free(CUdeviceptr address); /* one-way; not what is managed */
CUresult bf_device_range_check(uint64_t address, uint64_t size); /* inside one allocation? */
CUresult bf_host_settle(const void *data, size_t size); /* waits for copies that write this memory */
/* The same, and for host functions that the stream orders before this call. */
CUresult bf_host_settle_before(const void *data, size_t size, CUstream stream);
bool bf_host_is_pinned(const void *data);

/* A command and no more: nothing is checked, no order is kept but the stream's. *sequence: its number. */
CUresult bf_copy_send_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream);
CUresult bf_copy_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async);
/* From memory that the stream may still write, pinned or not, as a graph reads it. */
CUresult bf_copy_to_device_in_order(CUdeviceptr to, const void *from, size_t size, CUstream stream);
CUresult bf_copy_to_host(void *to, CUdeviceptr from, size_t size, CUstream stream, bool async);
CUresult bf_copy_between(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream, bool async);
CUresult bf_copy_any(uint64_t to, uint64_t from, size_t size, CUstream stream, bool async);

/* ------------------------------------------------------------------ images (image.c) */

struct bf_image {
	const void *data;
	uint64_t size;
	void *mapping; /* of a file, or of several images joined */
	uint64_t mapping_size;
	uint32_t input_count; /* as in struct bf_load */
};

CUresult bf_image_of(const void *pointer, struct bf_image *image); /* finds the size */
CUresult bf_image_of_file(const char *path, struct bf_image *image); /* CUDA_ERROR_INVALID_VALUE: it is empty */
CUresult bf_image_of_code_file(const char *path, struct bf_image *image); /* one that says how long it is */
void bf_image_close(struct bf_image *image);

struct bf_options {
	unsigned count;
	const CUjit_option *names;
	void **values;
};
CUresult bf_load(const struct bf_load *load, const char *text, const struct bf_options *options,
		 const struct bf_options *library_options, const struct bf_image *image, struct bf_wait *wait);

/* A module or a library, whose handle it mints; closes the image. */
CUresult bf_load_code(enum bf_handle_kind kind, struct bf_image *image, const struct bf_options *options,
		      const struct bf_options *library_options, uint64_t *handle);
const uint8_t *bf_load_logs(const struct bf_wait *wait, const struct bf_options *options);

/* ------------------------------------------------------------------ host functions (callback.c) */

int bf_callback_queue(const struct bf_callback *callback);
bool bf_callback_pending(void);

#endif
