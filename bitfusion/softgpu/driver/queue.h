/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams and the work in them. Each stream is a queue; its first piece of work is ready when everything it
 * depends on, a position in some other stream, is complete. Executors (threads, as many as there are streams
 * with ready work) run it; a thread that waits for a stream runs its work itself where it can.
 */
#ifndef SOFTGPU_QUEUE_H
#define SOFTGPU_QUEUE_H

#include "driver.h"

enum work_kind {
	WORK_MARKER, /* nothing: waits for its dependencies */
	WORK_RECORD, /* an event */
	WORK_KERNEL,
	WORK_COPY,
	WORK_SET,
	WORK_HOST,
	WORK_FREE, /* cuMemFreeAsync */
	WORK_WAIT_VALUE,
	WORK_WRITE_VALUE,
	WORK_GRAPH,
	/* in graphs only */
	WORK_EVENT_WAIT,
	WORK_CHILD,
	WORK_ALLOCATE,
	WORK_RELEASE, /* what a graph allocated lives as long as the graph: nothing to do */
};

struct kernel_work {
	struct function *function;
	CUfunction handle; /* as the program gave it */
	uint32_t grid[3], block[3], cluster[3], dynamic_shared;
	int cooperative;
	void *parameters; /* in the work's tail */
	size_t size;
};

/* Any copy: a box of `width` bytes, `height` rows, `depth` slices; heights and pitches in bytes. */
struct copy_work {
	uint64_t source, target;
	uint64_t width, height, depth;
	uint64_t source_pitch, source_slice, target_pitch, target_slice;
	void *staged; /* the source's bytes, freed with the work */
	uint64_t staged_size;
};

struct set_work {
	uint64_t target, pitch, width, height; /* width in elements */
	unsigned value, element;
};

struct host_work {
	CUhostFn function;
	CUstreamCallback callback; /* the older kind: also told of errors */
	CUstream stream;
	void *data;
};

struct value_work {
	uint64_t address, value;
	unsigned flags;
	int bits; /* 32 or 64 */
};

struct dependency {
	struct stream *stream;
	uint64_t position;
};

/* Memory of an allocation node (graphmemory.c). */
struct graph_memory {
	_Atomic int references;
	uint64_t address;
};

struct work {
	enum work_kind kind;
	struct work *next;
	struct dependency *dependencies, few[2];
	unsigned dependency_count, dependencies_met;
	union {
		struct kernel_work kernel;
		struct copy_work copy;
		struct set_work set;
		struct host_work host;
		struct value_work value;
		struct {
			struct event *event;
			uint64_t generation;
			int external;
		} record;
		struct {
			uint64_t address, size;
			struct graph_memory *owned; /* of WORK_ALLOCATE */
		} memory;
		struct exec_plan *plan;
		struct graph *child;
	};
	_Alignas(16) unsigned char tail[]; /* kernel parameters */
};

enum stream_state { STREAM_IDLE, STREAM_READY, STREAM_RUNNING, STREAM_WAITING };

struct stream {
	struct object object;
	struct context *context;
	uint64_t id;
	unsigned flags;
	int priority, is_legacy, destroyed;
	struct stream *next_in_context;
	/* under queue_lock from here */
	int references; /* the handle, events, dependencies, waiting threads, its own work */
	struct work *head, *tail;
	uint64_t submitted;
	_Atomic uint64_t completed;
	enum stream_state state;
	struct stream *next_ready;
	struct stream *waiters, *next_waiter; /* streams whose first work waits for this one */
	uint64_t wanted; /* the nearest position that a sleeping thread waits for */
	pthread_cond_t progressed;
	struct capture *capture;
	struct node **frontier; /* in a capture: what the next node depends on */
	unsigned frontier_count;
};

struct event {
	struct object object;
	unsigned flags;
	struct device *device;
	/* under queue_lock */
	int references;
	struct stream *stream; /* of the latest record, NULL when never recorded */
	uint64_t position, generation;
	uint64_t time_ns; /* when the latest record was executed, 0 before */
	struct capture *capture; /* the latest record was made in it */
	struct node **captured; /* what the latest record stands for, inside a capture */
	unsigned captured_count;
};

extern pthread_mutex_t queue_lock;

/* ------------------------------------------------------------------ queue.c */

struct work *work_new(enum work_kind kind, size_t tail);
struct work *work_copy(const struct work *work); /* of anything a graph may hold */
void work_free(struct work *work);    /* with queue_lock held */
void work_discard(struct work *work); /* the same without it */

/* What the caller of a submission wants. */
enum submit_flags { SUBMIT_WAIT = 1, SUBMIT_NO_CAPTURE = 2 };
/* Takes the work over, also when it fails. While the stream is captured it becomes a node instead. */
CUresult submit(struct stream *stream, struct work *work, int flags);
/* With queue_lock held: */
void queue_append(struct stream *stream, struct work *work, int wake);
void queue_make_room(struct stream *stream); /* waits while its queue is full */
CUresult work_depend(struct work *work, struct stream *stream, uint64_t position);
void queue_wait_locked(struct stream *stream, uint64_t position);
uint64_t queue_now_ns(void);
void stream_unref(struct stream *stream); /* with queue_lock held */
void event_unref(struct event *event);
void queue_forget(void); /* in a fork child */

/* ------------------------------------------------------------------ execute.c */

/* Runs one piece of work. The error is the context's from then on. */
CUresult work_run(struct context *context, struct work *work);

/* ------------------------------------------------------------------ stream.c, perthread.c */

CUresult stream_create(struct stream **stream, struct context *context, unsigned flags, int priority);
/* The stream that a handle means, for the calling thread in this context; NULL for a bad one. */
struct stream *stream_resolve(struct context *context, CUstream handle);
struct stream *per_thread_stream(struct context *context);
CUresult stream_synchronize(struct stream *stream);
/* Opens a function that takes a stream: the stream's own context becomes `context`. */
CUresult stream_enter(CUstream handle, struct context **context, struct stream **stream);
void streams_abandon(struct context *context); /* the context dies */
#define PER_THREAD(stream) ((stream) == NULL ? CU_STREAM_PER_THREAD : (stream))

/* ------------------------------------------------------------------ capture.c */

CUresult capture_check_unsafe(void); /* for calls that a capture in progress forbids */
/* With queue_lock held: the work becomes a node of the stream's capture. */
CUresult capture_add(struct stream *stream, struct work *work, struct node **node);
CUresult capture_record(struct stream *stream, struct event *event);
CUresult capture_wait(struct stream *stream, struct event *event);
void event_forget_capture(struct event *event);
/* 0, or why a stream that waits for everything may not be used just now */
CUresult capture_check_legacy(struct context *context, struct stream *stream);
void capture_invalidate(struct stream *stream);
void capture_drop(struct stream *stream); /* the stream dies */

/* ------------------------------------------------------------------ copies (copy.c) */

struct box {
	uint64_t base, pitch, slice; /* of the first byte; bytes per row, bytes per slice */
};
/* How a copy was asked for; the last kind is over when the call returns. */
enum copy_mode { COPY_ASYNCHRONOUS, COPY_SYNCHRONOUS, COPY_ACROSS };
/* Checks both ends, stages pageable memory, waits where CUDA waits. */
CUresult copy_submit(struct stream *stream, const struct copy_work *copy, enum copy_mode mode);
/* Of a call that names the contexts of both ends; NULL: it does not. Waits where the copy has to come later. */
CUresult copy_between(CUcontext to, CUcontext from, enum copy_mode *mode);
void copy_unstage(struct copy_work *copy);
CUresult copy_from_3d(const CUDA_MEMCPY3D *request, struct copy_work *copy);
CUresult copy_box(CUstream handle, const CUDA_MEMCPY3D *box, enum copy_mode mode);

/* ------------------------------------------------------------------ launches (launch.c) */

/* cluster.c: the launch's clusters, of what it and its kernel say. */
CUresult cluster_prepare(struct kernel_work *kernel);
/* `caller` is an address in the code that launches; NULL: nobody launches now. */
CUresult launch_check_shape(const uint32_t grid[3], const uint32_t block[3], const void *caller);
CUresult launch_prepare(struct context *context, CUfunction handle, const uint32_t grid[3], const uint32_t block[3],
			uint32_t dynamic_shared, void **parameters, void **extra, struct work **work);

#endif
