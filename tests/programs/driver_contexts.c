/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: the stack of each thread, primary and created ones, what dies with them.
 */
#include "program.h"

#include <pthread.h>

static void *ask_current(void *unused)
{
	CUcontext current = (CUcontext)(size_t)1;

	(void)unused;
	CHECK(cuCtxGetCurrent(&current));
	printf("another thread starts with: %s\n", current ? "a context" : "none");
	return NULL;
}

static void created(CUcontext primary)
{
	CUcontext first, second, current, popped;
	CUdeviceptr x;
	CUstream stream;
	unsigned flags;
	unsigned version;
	CUdevice device;

	CHECK(cuCtxCreate_v4(&first, NULL, CU_CTX_SCHED_SPIN, 0));
	CHECK(cuCtxCreate_v4(&second, NULL, 0, 0));
	CHECK(cuCtxGetCurrent(&current));
	printf("the latest is current: %s\n", current == second ? "yes" : "no");
	CHECK(cuCtxPopCurrent_v2(&popped));
	CHECK(cuCtxGetCurrent(&current));
	printf("popped the latest: %s, current is the first: %s\n", popped == second ? "yes" : "no",
	       current == first ? "yes" : "no");
	CHECK(cuCtxGetFlags(&flags));
	CHECK(cuCtxGetDevice(&device));
	CHECK(cuCtxGetApiVersion(first, &version));
	printf("spins: %s, device %d, version known: %s\n", flags & CU_CTX_SCHED_SPIN ? "yes" : "no", device,
	       version ? "yes" : "no");
	CHECK(cuMemAlloc_v2(&x, 100));
	CHECK(cuStreamCreate(&stream, 0));
	CHECK(cuCtxDestroy_v2(first));
	CHECK(cuCtxGetCurrent(&current));
	printf("current again: %s\n", current == primary ? "the primary" : "something else");
	SHOW(cuCtxPushCurrent_v2(NULL));
	CHECK(cuCtxPushCurrent_v2(second));
	CHECK(cuCtxDestroy_v2(second));
	CHECK(cuCtxGetCurrent(&current));
	printf("and again: %s\n", current == primary ? "the primary" : "something else");
}

static void primaries(void)
{
	CUcontext first, second;
	unsigned flags;
	int active;

	CHECK(cuDevicePrimaryCtxGetState(0, &flags, &active));
	printf("active: %d\n", active);
	CHECK(cuDevicePrimaryCtxRetain(&first, 0));
	CHECK(cuDevicePrimaryCtxRetain(&second, 0));
	printf("the same each time: %s\n", first == second ? "yes" : "no");
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	CHECK(cuDevicePrimaryCtxGetState(0, &flags, &active));
	printf("active: %d\n", active);
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	CHECK(cuDevicePrimaryCtxGetState(0, &flags, &active));
	printf("active: %d\n", active);
	SHOW(cuDevicePrimaryCtxRelease_v2(0));
}

static void limits(void)
{
	size_t value;

	CHECK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
	CHECK(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
	printf("stack: %zu\n", value);
	CHECK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 16 << 20));
	CHECK(cuCtxGetLimit(&value, CU_LIMIT_MALLOC_HEAP_SIZE));
	printf("heap: %s\n", value >= 16 << 20 ? "as asked for" : "less");
	SHOW(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1ull << 40));
	SHOW(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, (512 << 10) + 1));
	SHOW(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 1ull << 50));
	SHOW(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, SIZE_MAX));
	SHOW(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 1ull << 50));
	SHOW(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, SIZE_MAX));
	CHECK(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
	printf("stack: %zu\n", value);
	SHOW(cuCtxSetLimit((CUlimit)1000, 1));
	SHOW(cuCtxGetLimit(&value, (CUlimit)1000));
	SHOW(cuCtxGetLimit(NULL, CU_LIMIT_STACK_SIZE));
}

int main(void)
{
	CUcontext primary = open_device();
	pthread_t thread;

	pthread_create(&thread, NULL, ask_current, NULL);
	pthread_join(thread, NULL);
	created(primary);
	limits();
	primaries();
	return 0;
}
