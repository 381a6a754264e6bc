/* SPDX-License-Identifier: Apache-2.0
 *
 * A small libcuda.so.1 for the executor's tests: streams are real threads, so that waits are real waits, and it
 * is strict: a handle that is not alive, or memory that is not allocated, ends the process with a line that says so.
 *
 * FAKE_QUEUE=N: a call that would be a stream's N+1st piece of work waits. FAKE_FAIL=N[:CODE] makes the N-th call (from 1, cuInit not counted) fail; FAKE_CALLS=FILE gets the number of
 * calls made and the name of the one that failed. Kernels: spin(address) waits until a byte is not 0; store(address, byte); fault() makes everything
 * fail with 700 from then on; print(); nap(ms). What is called "held" is not found before a kernel has stored something.
 */
#define _GNU_SOURCE
#include "cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAGIC_STREAM = 0x57a3, MAGIC_EVENT = 0xe7e7, MAGIC_CONTEXT = 0xc0c0, MAGIC_MODULE = 0x3d3d, DEVICES = 2 };
enum what { STORE, SPIN, FAULT, PRINT, NAP, KERNELS, COPY, RECORD, WAIT_EVENT, HOST, CALLBACK, FILL };

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
	struct stream *legacy;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct context primary[DEVICES];
static __thread struct context *current;
static _Atomic int sticky, calls;
static unsigned busy; /* operations of all streams */
static bool stored; /* a kernel has */
static int fail_at, fail_with;
static unsigned queue_size; /* of a stream, 0 for no limit */
static const char *_Atomic failed = "nothing";

static struct memory {
	struct memory *next;
	uint8_t *at;
	size_t size;
} *memory;
static size_t memory_used;
enum { MEMORY = 64 << 20 };

__attribute__((noreturn)) static void misuse(const char *what)
{
	const char *path = getenv("FAKE_REPORT"); /* standard error belongs to the client */
	FILE *file = path ? fopen(path, "w") : NULL;
	fprintf(file ? file : stderr, "fake driver: misuse: %s\n", what);
	fflush(NULL);
	abort();
}

__attribute__((constructor)) static void configure(void)
{
	const char *fail = getenv("FAKE_FAIL"), *colon = fail ? strchr(fail, ':') : NULL;
	fail_at = fail ? atoi(fail) : 0;
	queue_size = getenv("FAKE_QUEUE") ? (unsigned)atoi(getenv("FAKE_QUEUE")) : 0;
	fail_with = colon ? atoi(colon + 1) : CUDA_ERROR_UNKNOWN;
}

__attribute__((destructor)) static void report(void)
{
	const char *path = getenv("FAKE_CALLS");
	FILE *file = path ? fopen(path, "w") : NULL;
	if (file) {
		fprintf(file, "%d %s\n", calls, failed);
		fclose(file);
	}
}

static CUresult enter(const char *function)
{
	if (++calls == fail_at) {
		failed = function;
		return (CUresult)fail_with;
	}
	return (CUresult)sticky;
}

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

static void *check(void *object, unsigned magic, const char *what)
{
	if (!object || ((uintptr_t)object & 7) || ((struct object *)object)->magic != magic)
		misuse(what);
	return object;
}

/* NULL is the program's mistake; anything else that is not alive is the executor's. */
#define CHECK(object, magic, what) \
	({ \
		if (!(object)) \
			return CUDA_ERROR_INVALID_HANDLE; \
		check(object, magic, what); \
	})

/* ------------------------------------------------------------------ streams */

static void run(struct work *work)
{
	switch (work->what) {
	case STORE: __atomic_store_n((uint8_t *)work->to, (uint8_t)work->number, __ATOMIC_RELEASE); break;
	case SPIN:
		while (!__atomic_load_n((uint8_t *)work->to, __ATOMIC_ACQUIRE))
			usleep(50);
		break;
	case FAULT: sticky = CUDA_ERROR_ILLEGAL_ADDRESS; break;
	case PRINT:
		fprintf(stdout, "printed by a kernel\n");
		fflush(stdout);
		break;
	case NAP: usleep(work->number * 1000); break;
	case COPY: memcpy(work->to, work->from, work->size); break;
	case FILL: memset(work->to, (int)work->number, work->size); break;
	case HOST: work->host(work->to); break;
	case CALLBACK: work->callback(NULL, CUDA_SUCCESS, work->to); break;
	default: break;
	}
}

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void *stream_thread(void *argument)
{
	struct stream *stream = argument;
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!stream->first && !stream->stop)
			pthread_cond_wait(&changed, &lock);
		struct work *work = stream->first;
		if (!work)
			break;
		if (work->what == WAIT_EVENT) {
			while (work->event->reached < work->number)
				pthread_cond_wait(&changed, &lock);
		} else if (work->what == RECORD) {
			work->event->at_ms = now_ms();
			if (work->event->reached < work->number)
				work->event->reached = work->number;
		} else {
			pthread_mutex_unlock(&lock);
			run(work);
			pthread_mutex_lock(&lock);
			stored |= work->what == STORE;
		}
		stream->first = work->next;
		if (!stream->first)
			stream->last = &stream->first;
		stream->busy--;
		busy--;
		free(work->owned);
		free(work);
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&lock);
	free(stream);
	return NULL;
}

static struct stream *new_stream(void)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	stream->object.magic = MAGIC_STREAM;
	stream->last = &stream->first;
	pthread_create(&stream->thread, NULL, stream_thread, stream);
	pthread_detach(stream->thread);
	return stream;
}

static struct stream *stream_of(CUstream stream)
{
	if ((uintptr_t)stream > 2)
		return check(stream, MAGIC_STREAM, "stream");
	pthread_mutex_lock(&lock);
	if (!current->legacy)
		current->legacy = new_stream();
	pthread_mutex_unlock(&lock);
	return current->legacy;
}

static void add_locked(struct stream *stream, struct work work)
{
	struct work *copy = malloc(sizeof(*copy));
	*copy = work;
	copy->next = NULL;
	*stream->last = copy;
	stream->last = &copy->next;
	stream->busy++;
	busy++;
	pthread_cond_broadcast(&changed);
}

static CUresult add(CUstream to, struct work work)
{
	if (!current)
		return CUDA_ERROR_INVALID_CONTEXT;
	struct stream *stream = stream_of(to);
	pthread_mutex_lock(&lock);
	while (queue_size && stream->busy >= queue_size)
		pthread_cond_wait(&changed, &lock);
	add_locked(stream, work);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

/* Like a real driver before it gives something back: whatever runs may still use it. */
static void wait_idle(void)
{
	while (busy)
		pthread_cond_wait(&changed, &lock);
}

static CUresult wait_for(struct stream *stream)
{
	pthread_mutex_lock(&lock);
	while (stream->busy)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return (CUresult)sticky;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
	ENTER();
	NEED_CONTEXT();
	if (!stream)
		return CUDA_ERROR_INVALID_VALUE;
	*stream = (CUstream)new_stream();
	return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
	ENTER();
	struct stream *stream = CHECK(handle, MAGIC_STREAM, "stream to destroy");
	pthread_mutex_lock(&lock);
	stream->object.magic = 0;
	stream->stop = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle)
{
	ENTER();
	NEED_CONTEXT();
	struct stream *stream = stream_of(handle);
	pthread_mutex_lock(&lock);
	bool busy = stream->busy;
	pthread_mutex_unlock(&lock);
	return busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	return wait_for(stream_of(stream));
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned flags)
{
	ENTER();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to wait for");
	return add(stream, (struct work){ .what = WAIT_EVENT, .event = event, .number = event->recorded });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data)
{
	ENTER();
	return add(stream, (struct work){ .what = HOST, .host = function, .to = data });
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *data, unsigned flags)
{
	ENTER();
	return add(stream, (struct work){ .what = CALLBACK, .callback = callback, .to = data });
}

/* ------------------------------------------------------------------ events: memory is never reused, only marked */

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
	ENTER();
	NEED_CONTEXT();
	if (!event)
		return CUDA_ERROR_INVALID_VALUE;
	struct event *made = calloc(1, sizeof(*made));
	made->object.magic = MAGIC_EVENT;
	*event = (CUevent)made;
	return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
	ENTER();
	((struct event *)CHECK(event, MAGIC_EVENT, "event to destroy"))->object.magic = 0;
	return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to record");
	struct stream *to = stream_of(stream);
	pthread_mutex_lock(&lock);
	add_locked(to, (struct work){ .what = RECORD, .event = event, .number = ++event->recorded });
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent handle)
{
	ENTER();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to query");
	return event->reached < event->recorded ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle)
{
	ENTER();
	/* a program may destroy an event that another thread of it waits for */
	struct event *event = (struct event *)handle;
	if (!event || !event->object.magic)
		return CUDA_ERROR_INVALID_HANDLE;
	unsigned number = event->recorded;
	pthread_mutex_lock(&lock);
	while (event->reached < number)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return (CUresult)sticky;
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	ENTER();
	struct event *start = CHECK(from, MAGIC_EVENT, "event that time starts at");
	struct event *end = CHECK(to, MAGIC_EVENT, "event that time ends at");
	if (start->reached < start->recorded || end->reached < end->recorded)
		return CUDA_ERROR_NOT_READY;
	*ms = (float)(end->at_ms - start->at_ms);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ memory */

static struct memory **find(CUdeviceptr address, size_t size)
{
	for (struct memory **link = &memory; *link; link = &(*link)->next) {
		uint64_t at = (uint64_t)(uintptr_t)(*link)->at;
		if (address >= at && address - at <= (*link)->size && size <= (*link)->size - (address - at))
			return link;
	}
	return NULL;
}

static bool valid(CUdeviceptr address, size_t size)
{
	pthread_mutex_lock(&lock);
	bool found = find(address, size) != NULL;
	pthread_mutex_unlock(&lock);
	return found;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
	ENTER();
	NEED_CONTEXT();
	if (!size)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	struct memory *made = size <= MEMORY - memory_used ? calloc(1, sizeof(*made)) : NULL;
	if (made) {
		made->at = aligned_alloc(256, (size + 255) / 256 * 256);
		memset(made->at, 0, size);
		made->size = size;
		made->next = memory;
		memory = made;
		memory_used += size;
		*address = (CUdeviceptr)(uintptr_t)made->at;
	}
	pthread_mutex_unlock(&lock);
	return made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element)
{
	*pitch = (width + 255) / 256 * 256;
	return cuMemAlloc_v2(address, *pitch * height);
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
	ENTER();
	NEED_CONTEXT();
	if (!address)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	wait_idle();
	struct memory **link = find(address, 0), *gone = link ? *link : NULL;
	if (gone && (CUdeviceptr)(uintptr_t)gone->at == address) {
		*link = gone->next;
		memory_used -= gone->size;
		free(gone->at);
		free(gone);
	} else {
		gone = NULL;
	}
	pthread_mutex_unlock(&lock);
	return gone ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream)
{
	stream_of(stream); /* looks at it */
	return cuMemAlloc_v2(address, size);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
	return cuMemFree_v2(address);
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	ENTER();
	NEED_CONTEXT();
	/* FAKE_NEIGHBOUR: somebody else takes a quarter of what is left, each time */
	static _Atomic size_t others;
	if (getenv("FAKE_NEIGHBOUR"))
		others += (MEMORY - memory_used - others) / 4;
	*free = MEMORY - memory_used - others;
	*total = MEMORY;
	return CUDA_SUCCESS;
}

static struct pinned {
	struct pinned *next;
	const uint8_t *at;
	size_t size;
} *pinned;

CUresult cuMemHostRegister_v2(void *at, size_t size, unsigned flags)
{
	ENTER();
	struct pinned *made = malloc(sizeof(*made));
	pthread_mutex_lock(&lock);
	*made = (struct pinned){ pinned, at, size };
	pinned = made;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static bool is_pinned(const uint8_t *at)
{
	pthread_mutex_lock(&lock);
	struct pinned *found = pinned;
	while (found && (at < found->at || at >= found->at + found->size))
		found = found->next;
	pthread_mutex_unlock(&lock);
	return found;
}

/* What is not registered is captured at once, as a real driver does with pageable memory. */
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(to, size))
		return CUDA_ERROR_INVALID_VALUE;
	void *owned = NULL;
	if (!is_pinned(from))
		from = owned = memcpy(malloc(size + 1), from, size);
	return add(
		stream,
		(struct work){ .what = COPY, .to = (void *)(uintptr_t)to, .from = from, .size = size, .owned = owned });
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(from, size))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream,
		   (struct work){ .what = COPY, .to = to, .from = (const void *)(uintptr_t)from, .size = size });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(to, size))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream, (struct work){ .what = FILL, .to = (void *)(uintptr_t)to, .number = value, .size = size });
}

static void copy_rows(const CUDA_MEMCPY3D_v2 *c, uint8_t *to, const uint8_t *from)
{
	for (size_t z = 0; z < c->Depth; z++) {
		for (size_t y = 0; y < c->Height; y++) {
			size_t t = ((c->dstZ + z) * c->dstHeight + c->dstY + y) * c->dstPitch + c->dstXInBytes;
			size_t f = ((c->srcZ + z) * c->srcHeight + c->srcY + y) * c->srcPitch + c->srcXInBytes;
			memcpy(to + t, from + f, c->WidthInBytes);
		}
	}
}

/* In order, but at once. */
CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D_v2 *c, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	size_t rows = c->Depth * c->Height;
	if ((c->dstMemoryType == CU_MEMORYTYPE_DEVICE && !valid(c->dstDevice, rows * c->dstPitch)) ||
	    (c->srcMemoryType == CU_MEMORYTYPE_DEVICE && !valid(c->srcDevice, rows * c->srcPitch)))
		return CUDA_ERROR_INVALID_VALUE;
	wait_for(stream_of(stream));
	uint8_t *to = c->dstMemoryType == CU_MEMORYTYPE_HOST ? c->dstHost : (uint8_t *)(uintptr_t)c->dstDevice;
	const uint8_t *from =
		c->srcMemoryType == CU_MEMORYTYPE_HOST ? c->srcHost : (const uint8_t *)(uintptr_t)c->srcDevice;
	copy_rows(c, to, from);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ contexts and devices */

CUresult cuInit(unsigned flags)
{
	return getenv("FAKE_NO_DEVICE") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
	*version = 13000;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
	*count = DEVICES;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	if (ordinal < 0 || ordinal >= DEVICES)
		return CUDA_ERROR_INVALID_DEVICE;
	*device = ordinal;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
	snprintf(name, (size_t)size, "Fake \"device\" %d", device);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
	memset(uuid, 0x10 + device, sizeof(*uuid));
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
	*value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 12 : (int)attribute;
	return attribute > 150 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
	snprintf(id, (size_t)length, "0000:4%d:00.0", 2 + device);
	return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *total, CUdevice device)
{
	if (!total)
		return CUDA_ERROR_INVALID_VALUE;
	*total = MEMORY;
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	ENTER();
	NEED_DEVICE(device);
	primary[device].object.magic = MAGIC_CONTEXT;
	primary[device].device = device;
	primary[device].retained++;
	*context = (CUcontext)&primary[device];
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
	ENTER();
	NEED_DEVICE(device);
	if (primary[device].retained-- <= 0)
		misuse("released a context too often");
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
	ENTER();
	NEED_DEVICE(device);
	primary[device].retained = 0;
	return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
	ENTER();
	if (!context)
		return CUDA_ERROR_INVALID_VALUE;
	NEED_DEVICE(device);
	struct context *made = calloc(1, sizeof(*made));
	made->object.magic = MAGIC_CONTEXT;
	made->device = device;
	*context = (CUcontext)made;
	current = made;
	return CUDA_SUCCESS;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
	ENTER();
	struct context *gone = CHECK(context, MAGIC_CONTEXT, "context to destroy");
	gone->object.magic = 0;
	if (current == gone)
		current = NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
	ENTER();
	current = context ? check(context, MAGIC_CONTEXT, "context to make current") : NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
	NEED_CONTEXT();
	*device = current->device;
	return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
	ENTER();
	NEED_CONTEXT();
	return wait_for(stream_of(NULL));
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
	ENTER();
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	*value = 1000 + limit;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ code */

struct kernel {
	const char *name;
	enum what what;
	unsigned parameters;
};
static const struct kernel kernels[] = {
	{ "store", STORE, 2 }, { "spin", SPIN, 1 }, { "fault", FAULT, 0 },
	{ "print", PRINT, 0 }, { "nap", NAP, 1 },   { "held", NAP, 1 },
};

struct wrapper {
	uint32_t magic, version;
	const char *data;
	const char *const *inputs;
};

/* The code of a wrapper, and what it was linked from, in the log. */
static const char *unwrap(const void *image, char log[64])
{
	struct wrapper wrapper;
	strcpy(log, "what the compiler said");
	if (memcmp(image, "\xb1\x43\x62\x46", 4) != 0)
		return image;
	memcpy(&wrapper, image, sizeof(wrapper));
	if (wrapper.version != 2)
		return wrapper.data;
	int size = sprintf(log, "%.8s of", wrapper.data);
	for (unsigned i = 0; wrapper.inputs[i]; i++)
		size += size < 50 ? sprintf(log + size, " %.8s", wrapper.inputs[i]) : 0;
	return wrapper.data;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
	ENTER();
	NEED_CONTEXT();
	char log[64];
	const char *code = unwrap(image, log);
	for (unsigned i = 0; i < count; i++) {
		if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
			strcpy(values[i], log);
	}
	if (memcmp(code, "code", 4))
		return CUDA_ERROR_INVALID_IMAGE;
	struct object *made = calloc(1, sizeof(*made));
	made->magic = MAGIC_MODULE;
	*module = (CUmodule)made;
	return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module)
{
	ENTER();
	struct object *object = CHECK(module, MAGIC_MODULE, "module to unload");
	pthread_mutex_lock(&lock);
	wait_idle();
	pthread_mutex_unlock(&lock);
	object->magic = 0;
	return CUDA_SUCCESS;
}

static void hold(const char *name)
{
	pthread_mutex_lock(&lock);
	while (!strcmp(name, "held") && !stored)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *size, CUmodule module, const char *name)
{
	ENTER();
	CHECK(module, MAGIC_MODULE, "module of a variable");
	hold(name);
	CHECK(module, MAGIC_MODULE, "module unloaded under a variable");
	*address = 0x1000;
	*size = strlen(name);
	return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	ENTER();
	CHECK(module, MAGIC_MODULE, "module of a function");
	hold(name);
	CHECK(module, MAGIC_MODULE, "module unloaded under a function");
	for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++) {
		if (strcmp(kernels[i].name, name))
			continue;
		*function = (CUfunction)&kernels[i];
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t i, size_t *offset, size_t *size)
{
	const struct kernel *kernel = (const struct kernel *)function;
	if (i >= kernel->parameters)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = 8 * i;
	*size = i ? 4 : 8;
	return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	*value = 100 + (int)attribute;
	return attribute < 10 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
			unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra)
{
	ENTER();
	NEED_CONTEXT();
	const struct kernel *kernel = (const struct kernel *)function;
	if (kernel < kernels || kernel >= kernels + sizeof(kernels) / sizeof(*kernels))
		misuse("function to launch");
	uint64_t value[2] = { 0, 0 };
	if (extra)
		memcpy(value, extra[1], *(size_t *)extra[3] < sizeof(value) ? *(size_t *)extra[3] : sizeof(value));
	if ((kernel->what == STORE || kernel->what == SPIN) && !valid(value[0], 1))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream, (struct work){ .what = kernel->what,
					  .to = (void *)(uintptr_t)value[0],
					  .number = (unsigned)(kernel->what == NAP ? value[0] : value[1]) });
}
