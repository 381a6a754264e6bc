/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the fake driver share. None of it is seen outside: names as these are others' too.
 */
#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H

#include "cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum { MAGIC_STREAM = 0x57a3, MAGIC_EVENT = 0xe7e7, MAGIC_CONTEXT = 0xc0c0, MAGIC_MODULE = 0x3d3d, DEVICES = 2 };
enum what { STORE, SPIN, FAULT, PRINT, NAP, KERNELS, COPY, RECORD, WAIT_EVENT, HOST, CALLBACK, FILL, FREE };

struct object {
	unsigned magic;
};

struct event {
	struct object object;
	_Atomic unsigned recorded, reached;
	double at_ms; /* when it was reached */
};

struct work {
	struct work *next;
	enum what what;
	void *to;
	const void *from;
	void *owned;
	size_t size;
	unsigned number;
	struct event *event;
	CUhostFn host;
	CUstreamCallback callback;
};

struct stream {
	struct object object;
	pthread_t thread;
	struct work *first, **last;
	unsigned busy;
	bool stop;
};

struct context {
	struct object object;
	int device, retained;
	size_t limits[CU_LIMIT_MAX]; /* beyond what they begin with */
	struct stream *legacy;
};

extern pthread_mutex_t lock;
extern pthread_cond_t changed;
extern __thread struct context *current;
extern _Atomic int sticky;
extern unsigned queue_size; /* of a stream, 0 for no limit */
extern bool stored; /* a kernel has */

__attribute__((noreturn)) void misuse(const char *what);
CUresult enter(const char *function);
void *check(void *object, unsigned magic, const char *what);

#define ENTER() \
	do { \
		CUresult entered = enter(__func__); \
		if (entered) \
			return entered; \
	} while (0)

#define NEED_DEVICE(device) \
	do { \
		if ((device) < 0 || (device) >= DEVICES) \
			return CUDA_ERROR_INVALID_DEVICE; \
	} while (0)

#define NEED_CONTEXT() \
	do { \
		if (!current) \
			return CUDA_ERROR_INVALID_CONTEXT; \
	} while (0)

/* NULL is the program's mistake; anything else that is not alive is the executor's. */
#define CHECK(object, magic, what) \
	({ \
		if (!(object)) \
			return CUDA_ERROR_INVALID_HANDLE; \
		check(object, magic, what); \
	})

/* fake_stream.c */
struct stream *new_stream(void);
struct stream *stream_of(CUstream stream);
CUresult add(CUstream to, struct work work);
void wait_idle(void); /* with the lock held */
CUresult wait_for(struct stream *stream);

/* fake_memory.c */
enum { MEMORY = 64 << 20 };
bool valid(CUdeviceptr address, size_t size);
bool give_back(CUdeviceptr address); /* with the lock held */
CUresult take(CUdeviceptr *address, size_t size, bool pooled);
extern size_t memory_used; /* under the lock */

/* fake_pool.c, with the lock held */
void pool_lends(size_t size); /* for an allocation that comes next */
void pool_takes(size_t size);
void pool_frees(size_t size); /* a stream is to */
void pool_keeps(size_t size); /* it has */
void pool_shrinks(void); /* a call has waited */

#pragma GCC visibility pop

#endif
