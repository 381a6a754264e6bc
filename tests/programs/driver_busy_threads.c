/* SPDX-License-Identifier: Apache-2.0
 *
 * Six threads that share a context and have everything else to themselves: each makes, uses and ends modules,
 * streams, events, memory of all kinds, graphs and host functions, while the others wait, copy and launch.
 */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 6, ROUNDS = 12, COUNT = 4096, BYTES = COUNT * 4, COPY_AT_ONCE = 300 << 10 };

static CUcontext context;
static CUfunction shared_scale;
static _Atomic unsigned called;

struct worker {
	pthread_t thread;
	unsigned number, round, wrong;
	CUstream stream;
	CUevent event;
	unsigned *pinned;
	unsigned pageable[COUNT];
};

static void CUDA_CB count_call(void *data)
{
	((struct worker *)data)->pageable[0]++;
	atomic_fetch_add(&called, 1);
}

static void expect(struct worker *self, const unsigned *found, unsigned factor)
{
	for (unsigned i = 0; i < COUNT; i++)
		self->wrong += found[i] != (i ^ self->number) * factor + i;
}

static void fill(const struct worker *self, unsigned *data)
{
	for (unsigned i = 0; i < COUNT; i++)
		data[i] = i ^ self->number;
}

static void launch(const struct worker *self, CUfunction function, CUdeviceptr memory, unsigned factor)
{
	unsigned count = COUNT;
	void *parameters[] = { &memory, &factor, &count };

	CHECK(cuLaunchKernel(function, COUNT / 64, 1, 1, 64, 1, 1, 0, self->stream, parameters, NULL));
}

/* Pinned memory both ways, an event between, and a function of the program's behind it. */
static void use_stream(struct worker *self)
{
	CUdeviceptr memory;

	fill(self, self->pinned);
	CHECK(cuMemAlloc_v2(&memory, BYTES));
	CHECK(cuMemcpyHtoDAsync_v2(memory, self->pinned, BYTES, self->stream));
	launch(self, shared_scale, memory, 3);
	CHECK(cuEventRecord(self->event, self->stream));
	CHECK(cuMemcpyDtoHAsync_v2(self->pinned, memory, BYTES, self->stream));
	CHECK(cuLaunchHostFunc(self->stream, count_call, self));
	if (self->round % 2)
		while (cuEventQuery(self->event) == CUDA_ERROR_NOT_READY)
			;
	CHECK(cuStreamSynchronize(self->stream));
	expect(self, self->pinned, 3);
	CHECK(cuMemFree_v2(memory));
}

/* Pageable memory, on the stream that all threads share, and a module that comes and goes. */
static void use_module(struct worker *self)
{
	CUdeviceptr memory;
	CUmodule module;
	int threads;

	fill(self, self->pageable);
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CUfunction scale = get_function(module, "scale");
	CHECK(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, scale));
	self->wrong += threads < 64;
	CHECK(cuMemAllocAsync(&memory, BYTES, self->stream));
	CHECK(cuStreamSynchronize(self->stream));
	CHECK(cuMemcpyHtoD_v2(memory, self->pageable, BYTES));
	CHECK(cuCtxSynchronize());
	launch(self, scale, memory, 5);
	CHECK(cuStreamSynchronize(self->stream));
	CHECK(cuMemcpyDtoH_v2(self->pageable, memory, BYTES));
	expect(self, self->pageable, 5);
	CHECK(cuMemFreeAsync(memory, self->stream));
	CHECK(cuModuleUnload(module));
}

static void use_graph(struct worker *self)
{
	CUdeviceptr memory;
	CUgraphExec program;
	CUgraph graph;

	CHECK(cuMemAlloc_v2(&memory, BYTES));
	fill(self, self->pinned);
	CHECK(cuMemcpyHtoD_v2(memory, self->pinned, BYTES));
	CHECK(cuStreamBeginCapture_v2(self->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	launch(self, shared_scale, memory, 7);
	CHECK(cuStreamEndCapture(self->stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&program, graph, 0));
	CHECK(cuGraphLaunch(program, self->stream));
	CHECK(cuStreamSynchronize(self->stream));
	CHECK(cuMemcpyDtoH_v2(self->pinned, memory, BYTES));
	expect(self, self->pinned, 7);
	CHECK(cuGraphExecDestroy(program));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuMemFree_v2(memory));
}

/* A copy of many pieces, while the others' calls cross it; questions that are answered without the server. */
static void use_memory(struct worker *self)
{
	static const unsigned char pattern[THREADS] = { 1, 2, 3, 4, 5, 6 };
	unsigned char *large = malloc(COPY_AT_ONCE);
	CUmemorytype type;
	CUdeviceptr memory, base;
	size_t size;

	CHECK(cuMemAlloc_v2(&memory, COPY_AT_ONCE));
	CHECK(cuMemsetD8Async(memory, pattern[self->number], COPY_AT_ONCE, self->stream));
	CHECK(cuMemcpyDtoHAsync_v2(large, memory, COPY_AT_ONCE, self->stream));
	CHECK(cuStreamSynchronize(self->stream));
	for (unsigned i = 0; i < COPY_AT_ONCE; i++)
		self->wrong += large[i] != pattern[self->number];
	CHECK(cuMemGetAddressRange_v2(&base, &size, memory + 100));
	self->wrong += base != memory || size < COPY_AT_ONCE;
	CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory));
	self->wrong += type != CU_MEMORYTYPE_DEVICE;
	CHECK(cuMemFree_v2(memory));
	free(large);
}

static void *run(void *argument)
{
	struct worker *self = argument;

	CHECK(cuCtxSetCurrent(context));
	for (self->round = 0; self->round < ROUNDS; self->round++) {
		CHECK(cuStreamCreate(&self->stream, CU_STREAM_NON_BLOCKING));
		CHECK(cuEventCreate(&self->event, CU_EVENT_DISABLE_TIMING));
		CHECK(cuMemAllocHost_v2((void **)&self->pinned, BYTES));
		switch ((self->number + self->round) % 4) {
		case 0: use_stream(self); break;
		case 1: use_module(self); break;
		case 2: use_graph(self); break;
		default: use_memory(self); break;
		}
		CHECK(cuMemFreeHost(self->pinned));
		CHECK(cuEventDestroy_v2(self->event));
		CHECK(cuStreamDestroy_v2(self->stream));
	}
	return NULL;
}

int main(void)
{
	static struct worker workers[THREADS];
	CUmodule module;

	context = open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	shared_scale = get_function(module, "scale");
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].number = i;
		pthread_create(&workers[i].thread, NULL, run, &workers[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		printf("thread %u: %u wrong\n", i, workers[i].wrong);
	}
	printf("functions called: %u\n", called);
	CHECK(cuModuleUnload(module));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
