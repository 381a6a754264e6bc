/* SPDX-License-Identifier: Apache-2.0
 *
 * Six threads, each with a stream, memory and an event of its own, and one buffer that all add to in turn.
 */
#include "program.h"

#include <pthread.h>

enum { THREADS = 6, ROUNDS = 20, COUNT = 2048 };

static CUcontext context;
static CUfunction scale, work;
static CUdeviceptr shared;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int wrong[THREADS];

static void take_turn(CUstream stream)
{
	unsigned rounds = 100;
	void *parameters[] = { &shared, &rounds };

	pthread_mutex_lock(&turn);
	CHECK(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuStreamSynchronize(stream));
	pthread_mutex_unlock(&turn);
}

static void one_round(CUstream stream, CUdeviceptr x, CUevent event, int thread, unsigned round)
{
	static unsigned host[THREADS][COUNT];
	unsigned *mine = host[thread], n = COUNT, factor = round + 1;
	void *parameters[] = { &x, &factor, &n };

	for (unsigned i = 0; i < COUNT; i++)
		mine[i] = i + (unsigned)thread * round;
	CHECK(cuMemcpyHtoDAsync_v2(x, mine, sizeof host[0], stream));
	CHECK(cuLaunchKernel(scale, COUNT / 64, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuEventRecord(event, stream));
	CHECK(cuEventSynchronize(event));
	memset(mine, 0, sizeof host[0]);
	CHECK(cuMemcpyDtoHAsync_v2(mine, x, sizeof host[0], stream));
	CHECK(cuStreamSynchronize(stream));
	for (unsigned i = 0; i < COUNT; i++)
		wrong[thread] += mine[i] != (i + (unsigned)thread * round) * factor + i;
}

static void *run(void *argument)
{
	int thread = (int)(size_t)argument;
	CUdeviceptr x;
	CUstream stream;
	CUevent event;

	CHECK(cuCtxSetCurrent(context));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	for (unsigned round = 0; round < ROUNDS; round++) {
		CHECK(cuMemAlloc_v2(&x, COUNT * 4));
		one_round(stream, x, event, thread, round);
		take_turn(stream);
		CHECK(cuMemFree_v2(x));
	}
	CHECK(cuEventDestroy_v2(event));
	CHECK(cuStreamDestroy_v2(stream));
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	CUmodule module;
	unsigned total;

	context = open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE PTX_WORK));
	scale = get_function(module, "scale");
	work = get_function(module, "work");
	CHECK(cuMemAlloc_v2(&shared, 4));
	CHECK(cuMemsetD32_v2(shared, 0, 1));
	CHECK(cuCtxSynchronize());
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, run, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		printf("thread %d: %d wrong\n", i, wrong[i]);
	}
	CHECK(cuMemcpyDtoH_v2(&total, shared, 4));
	printf("turns taken: %u\n", total);
	CHECK(cuMemFree_v2(shared));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
