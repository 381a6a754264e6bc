/* SPDX-License-Identifier: Apache-2.0
 *
 * What a capture forbids: each call that CUDA names unsafe during captures, for each mode of the capture and of the
 * thread that calls, in the thread that began it and in another one; and what is left of the capture.
 */
#include "program.h"

#include <pthread.h>

static CUstream stream;
static CUevent before, within;
static CUdeviceptr memory, other;
static char host[64];

struct made {
	CUdeviceptr device, pitched, managed;
	void *pinned;
};

static CUresult note(CUresult result)
{
	printf(" %d", result);
	return result;
}

/* What is allocated is freed by the main thread, when the capture is over. */
static void call_all(struct made *made)
{
	size_t pitch;
	CUDA_MEMCPY2D box = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
			      .srcDevice = memory,
			      .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			      .dstDevice = other,
			      .WidthInBytes = 16,
			      .Height = 1 };

	*made = (struct made){ 0 };
	note(cuMemAlloc_v2(&made->device, 100));
	note(cuMemAllocPitch_v2(&made->pitched, &pitch, 100, 2, 4));
	note(cuMemAllocManaged(&made->managed, 100, CU_MEM_ATTACH_GLOBAL));
	note(cuMemAllocHost_v2(&made->pinned, 100));
	if (!note(cuMemHostRegister_v2(host, sizeof host, 0)))
		note(cuMemHostUnregister(host));
	note(cuMemcpyHtoD_v2(memory, host, sizeof host));
	note(cuMemcpyDtoH_v2(host, memory, sizeof host));
	note(cuMemcpyDtoD_v2(other, memory, sizeof host));
	note(cuMemcpy2D_v2(&box));
	note(cuMemFree_v2(made->device ? made->device : 64)); /* the capture comes before the address */
	note(cuMemFreeHost(made->pinned ? made->pinned : host));
	note(cuEventQuery(before));
	note(cuEventQuery(within));
	note(cuCtxSynchronize());
	/* what is not unsafe */
	note(cuMemGetInfo_v2(&pitch, &pitch));
	note(cuMemcpyDtoDAsync_v2(other, memory, 16, CU_STREAM_PER_THREAD));
	note(cuStreamSynchronize(CU_STREAM_PER_THREAD));
	printf("\n");
}

struct case_ {
	CUstreamCaptureMode mode;
	struct made made;
	CUcontext context;
};

static void *in_thread(void *argument)
{
	struct case_ *this = argument;
	CUgraph graph;
	CUstreamCaptureMode mode = this->mode;

	CHECK(cuCtxSetCurrent(this->context));
	CHECK(cuThreadExchangeStreamCaptureMode(&mode));
	call_all(&this->made);
	printf("    ended by another thread: %d\n", cuStreamEndCapture(stream, &graph));
	return NULL;
}

static void drop(const struct made *made)
{
	if (made->pitched)
		CHECK(cuMemFree_v2(made->pitched));
	if (made->managed)
		CHECK(cuMemFree_v2(made->managed));
}

static void finish(CUresult more)
{
	CUstreamCaptureStatus status = 9;
	CUgraph graph = NULL;
	size_t nodes = 0;
	CUresult end;

	CHECK(cuStreamIsCapturing(stream, &status));
	end = cuStreamEndCapture(stream, &graph);
	if (graph) {
		CHECK(cuGraphGetNodes(graph, NULL, &nodes));
		CHECK(cuGraphDestroy(graph));
	}
	printf("    capturing %d, the end %d, %zu nodes", status, end, nodes);
	printf(", work in it: %s\n", more ? error_name(more) : "taken");
}

static void begin(CUstreamCaptureMode mode)
{
	CHECK(cuStreamBeginCapture_v2(stream, mode));
	CHECK(cuMemsetD8Async(memory, 1, 16, stream));
	CHECK(cuEventRecord(within, stream));
}

static CUresult go_on(void)
{
	return cuMemcpyDtoDAsync_v2(memory + 32, memory, 16, stream);
}

static const char *const names[] = { "global", "thread-local", "relaxed" };

static void same_thread(CUstreamCaptureMode capture, CUstreamCaptureMode thread)
{
	CUstreamCaptureMode mode = thread;
	struct made made;

	printf("%s capture, %s call:\n   ", names[capture], names[thread]);
	begin(capture);
	CHECK(cuThreadExchangeStreamCaptureMode(&mode));
	call_all(&made);
	CHECK(cuThreadExchangeStreamCaptureMode(&mode));
	finish(go_on());
	drop(&made);
}

static void other_thread(CUcontext context, CUstreamCaptureMode capture, CUstreamCaptureMode thread)
{
	struct case_ this = { .mode = thread, .context = context };
	pthread_t id;

	printf("%s capture, %s call of another thread:\n   ", names[capture], names[thread]);
	begin(capture);
	pthread_create(&id, NULL, in_thread, &this);
	pthread_join(id, NULL);
	finish(capture == CU_STREAM_CAPTURE_MODE_RELAXED ? CUDA_SUCCESS : go_on());
	drop(&this.made);
}

/* Each of several is broken, and of two only the one that forbids. */
static void two_captures(void)
{
	CUstream second;
	CUgraph graph;
	CUdeviceptr address;
	CUstreamCaptureStatus status;

	CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	CHECK(cuStreamBeginCapture_v2(second, CU_STREAM_CAPTURE_MODE_GLOBAL));
	SHOW(cuMemAlloc_v2(NULL, 100));
	SHOW(cuMemAlloc_v2(&address, 100));
	CHECK(cuStreamIsCapturing(second, &status));
	printf("the second: %d\n", status);
	SHOW(cuMemsetD8Async(memory, 1, 16, second));
	SHOW(cuStreamEndCapture(second, &graph));
	finish(go_on());
	SHOW(cuMemAlloc_v2(&address, 100));
	SHOW(cuMemFree_v2(address));
	CHECK(cuStreamDestroy_v2(second));
}

int main(void)
{
	CUcontext context = open_device();

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&before, 0));
	CHECK(cuEventCreate(&within, 0));
	CHECK(cuMemAlloc_v2(&memory, 64));
	CHECK(cuMemAlloc_v2(&other, 64));
	CHECK(cuEventRecord(before, stream));
	CHECK(cuStreamSynchronize(stream));
	for (int capture = 0; capture < 3; capture++)
		for (int thread = 0; thread < 3; thread++) {
			same_thread((CUstreamCaptureMode)capture, (CUstreamCaptureMode)thread);
			other_thread(context, (CUstreamCaptureMode)capture, (CUstreamCaptureMode)thread);
		}
	two_captures();
	return 0;
}
