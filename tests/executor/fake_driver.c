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
#include "fake_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct context primary[DEVICES];
__thread struct context *current;
_Atomic int sticky;
static _Atomic int calls;
bool stored; /* a kernel has */
static int fail_at, fail_with;
unsigned queue_size; /* of a stream, 0 for no limit */
static const char *_Atomic failed = "nothing";

void misuse(const char *what)
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

CUresult enter(const char *function)
{
	if (++calls == fail_at) {
		failed = function;
		return (CUresult)fail_with;
	}
	return (CUresult)sticky;
}

void *check(void *object, unsigned magic, const char *what)
{
	if (!object || ((uintptr_t)object & 7) || ((struct object *)object)->magic != magic)
		misuse(what);
	return object;
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
	NEED_CONTEXT();
	if (!value || limit >= CU_LIMIT_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	*value = 1000 + limit + current->limits[limit];
	return CUDA_SUCCESS;
}

/* FAKE_LIMIT=SIZE: none is set beyond that. */
CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
	ENTER();
	NEED_CONTEXT();
	const char *most = getenv("FAKE_LIMIT");
	if (limit >= CU_LIMIT_MAX || (most && value > strtoull(most, NULL, 0)))
		return CUDA_ERROR_INVALID_VALUE;
	current->limits[limit] = value - 1000 - limit;
	return CUDA_SUCCESS;
}
