/* SPDX-License-Identifier: Apache-2.0
 *
 * Order within a stream, between streams by events, and with the default stream.
 */
#include "program.h"

enum { COUNT = 4096, STREAMS = 4, BUSY = 300000 };

static CUfunction scale, work;

static void launch_scale(CUdeviceptr x, unsigned factor, CUstream stream)
{
	unsigned n = COUNT;
	void *parameters[] = { &x, &factor, &n };

	CHECK(cuLaunchKernel(scale, COUNT / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
}

static void launch_work(CUdeviceptr x, unsigned rounds, CUstream stream)
{
	void *parameters[] = { &x, &rounds };

	CHECK(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

static unsigned read_one(CUdeviceptr x)
{
	unsigned value;

	CHECK(cuMemcpyDtoH_v2(&value, x, sizeof value));
	return value;
}

static void within_streams(CUdeviceptr x)
{
	CUstream streams[STREAMS];
	unsigned *host[STREAMS];
	int wrong = 0;

	for (int s = 0; s < STREAMS; s++) {
		CHECK(cuStreamCreateWithPriority(&streams[s], CU_STREAM_NON_BLOCKING, -(s & 1)));
		CHECK(cuMemHostAlloc((void **)&host[s], COUNT * 4, 0));
		for (int i = 0; i < COUNT; i++)
			host[s][i] = (unsigned)(i * 7 + s);
	}
	for (int s = 0; s < STREAMS; s++) {
		CUdeviceptr mine = x + (unsigned)s * COUNT * 4;

		CHECK(cuMemcpyHtoDAsync_v2(mine, host[s], COUNT * 4, streams[s]));
		launch_scale(mine, 3, streams[s]);
		launch_scale(mine, 5, streams[s]);
		CHECK(cuMemcpyDtoHAsync_v2(host[s], mine, COUNT * 4, streams[s]));
	}
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cuStreamSynchronize(streams[s]));
		for (unsigned i = 0; i < COUNT; i++)
			wrong += host[s][i] != ((i * 7 + (unsigned)s) * 3 + i) * 5 + i;
		CHECK(cuMemFreeHost(host[s]));
		CHECK(cuStreamDestroy_v2(streams[s]));
	}
	printf("four streams: %d wrong\n", wrong);
}

static void between_streams(CUdeviceptr x)
{
	CUstream first, second;
	CUevent done, start;
	float milliseconds = -1;

	CHECK(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&start, CU_EVENT_DEFAULT));
	CHECK(cuEventCreate(&done, CU_EVENT_DEFAULT));
	SHOW(cuEventQuery(done));
	SHOW(cuEventElapsedTime_v2(&milliseconds, start, done));
	CHECK(cuMemsetD32_v2(x, 0, 1));
	CHECK(cuCtxSynchronize());
	CHECK(cuEventRecord(start, first));
	launch_work(x, BUSY, first);
	CHECK(cuEventRecord(done, first));
	CHECK(cuStreamWaitEvent(second, done, 0));
	launch_scale(x, 10, second);
	CHECK(cuStreamSynchronize(second));
	printf("after the event: %u\n", read_one(x));
	SHOW(cuEventQuery(done));
	CHECK(cuEventElapsedTime_v2(&milliseconds, start, done));
	printf("time went by: %s\n", milliseconds > 0 ? "yes" : "no");
	CHECK(cuEventDestroy_v2(start));
	CHECK(cuEventDestroy_v2(done));
	CHECK(cuStreamDestroy_v2(first));
	CHECK(cuStreamDestroy_v2(second));
}

static void with_default_stream(CUdeviceptr x)
{
	CUstream blocking, other;

	CHECK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
	CHECK(cuStreamCreate(&other, CU_STREAM_DEFAULT));
	CHECK(cuMemsetD32_v2(x, 0, COUNT));
	launch_work(x, BUSY, blocking);
	launch_scale(x, 100, NULL);
	launch_work(x, 1, other);
	CHECK(cuStreamSynchronize(other));
	printf("work, scale, work: %u\n", read_one(x));
	CHECK(cuStreamDestroy_v2(blocking));
	CHECK(cuStreamDestroy_v2(other));
}

static void describe_stream(void)
{
	CUstream stream;
	unsigned flags;
	int priority, least, greatest;
	unsigned long long id, other_id;
	CUcontext context, current;

	CHECK(cuCtxGetStreamPriorityRange(&least, &greatest));
	printf("priorities: %s\n", greatest < least ? "several" : "one");
	CHECK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest - 100));
	CHECK(cuStreamGetFlags(stream, &flags));
	CHECK(cuStreamGetPriority(stream, &priority));
	CHECK(cuStreamGetId(stream, &id));
	CHECK(cuStreamGetId(NULL, &other_id));
	CHECK(cuStreamGetCtx(stream, &context));
	CHECK(cuCtxGetCurrent(&current));
	printf("flags %u, priority %s, ids %s, context %s\n", flags, priority == greatest ? "clamped" : "odd",
	       id != other_id ? "differ" : "are one", context == current ? "current" : "another");
	SHOW(cuStreamQuery(stream));
	CHECK(cuStreamDestroy_v2(stream));
}

int main(void)
{
	CUdeviceptr x;
	CUmodule module;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE PTX_WORK));
	scale = get_function(module, "scale");
	work = get_function(module, "work");
	CHECK(cuMemAlloc_v2(&x, STREAMS * COUNT * 4));
	within_streams(x);
	between_streams(x);
	with_default_stream(x);
	describe_stream();
	CHECK(cuMemFree_v2(x));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
