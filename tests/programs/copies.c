/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of many sizes, both ways, synchronous and asynchronous, from pinned and pageable memory: every byte must come back,
 * also when the host's memory is overwritten right after a copy that has captured it.
 */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(CUresult status, const char *what)
{
	const char *name = "?";

	if (!status)
		return;
	cuGetErrorName(status, &name);
	printf("%s: %s\n", what, name);
	exit(1);
}

#define CHECK(call) check(call, #call)

static void fill(unsigned char *memory, size_t size, unsigned seed)
{
	unsigned state = seed * 2654435761u + 1;

	for (size_t i = 0; i < size; i++) {
		state = state * 1664525u + 1013904223u;
		memory[i] = (unsigned char)(state >> 24);
	}
}

struct buffers {
	unsigned char *from, *to, *expected;
	CUdeviceptr device;
	CUstream stream;
};

/* Bytes that came back wrong. */
static size_t round_trip(const struct buffers *b, size_t size, int in_async, int out_async, int overwrite,
			 unsigned seed)
{
	size_t wrong = 0;

	fill(b->from, size, seed);
	memcpy(b->expected, b->from, size);
	memset(b->to, 0x5a, size);
	if (in_async)
		CHECK(cuMemcpyHtoDAsync_v2(b->device, b->from, size, b->stream));
	else
		CHECK(cuMemcpyHtoD_v2(b->device, b->from, size));
	if (overwrite)
		memset(b->from, 0xee, size);
	if (out_async) {
		CHECK(cuMemcpyDtoHAsync_v2(b->to, b->device, size, b->stream));
		CHECK(cuStreamSynchronize(b->stream));
	} else {
		if (in_async)
			CHECK(cuStreamSynchronize(b->stream));
		CHECK(cuMemcpyDtoH_v2(b->to, b->device, size));
	}
	for (size_t i = 0; i < size; i++)
		wrong += b->to[i] != b->expected[i];
	return wrong;
}

static void by_context(CUstream stream, CUevent event)
{
	CHECK(cuCtxSynchronize());
}

static void by_stream(CUstream stream, CUevent event)
{
	CHECK(cuStreamSynchronize(stream));
}

static void by_event(CUstream stream, CUevent event)
{
	CHECK(cuEventSynchronize(event));
}

static void by_stream_query(CUstream stream, CUevent event)
{
	CUresult status;

	while ((status = cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY)
		;
	CHECK(status);
}

static void by_event_query(CUstream stream, CUevent event)
{
	CUresult status;

	while ((status = cuEventQuery(event)) == CUDA_ERROR_NOT_READY)
		;
	CHECK(status);
}

/* Whatever says that the stream's work is done must not say so before the bytes are in the program's memory. */
static void ordered(const struct buffers *b, size_t size)
{
	static const struct {
		const char *name;
		void (*wait)(CUstream stream, CUevent event);
	} ways[] = {
		{ "cuCtxSynchronize", by_context }, { "cuStreamSynchronize", by_stream },
		{ "cuEventSynchronize", by_event }, { "cuStreamQuery", by_stream_query },
		{ "cuEventQuery", by_event_query },
	};
	CUevent event;

	fill(b->expected, size, 99);
	CHECK(cuMemcpyHtoD_v2(b->device, b->expected, size));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
		memset(b->to, 0x5a, size);
		CHECK(cuMemcpyDtoHAsync_v2(b->to, b->device, size, b->stream));
		CHECK(cuEventRecord(event, b->stream));
		ways[i].wait(b->stream, event);
		printf("%9zu bytes, ordered by %s: %s\n", size, ways[i].name,
		       memcmp(b->to, b->expected, size) ? "wrong" : "right");
	}
	CHECK(cuEventDestroy_v2(event));
}

int main(void)
{
	static const size_t sizes[] = { 1, 7, 4096, 65535, 65536, 65537, 1 << 20, 3000001, 8 << 20, (size_t)40 << 20 };
	size_t largest = (size_t)64 << 20;
	struct buffers pageable, pinned;
	CUcontext context;
	unsigned seed = 0;

	CHECK(cuInit(0));
	CHECK(cuDevicePrimaryCtxRetain(&context, 0));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuMemAlloc_v2(&pageable.device, largest));
	CHECK(cuStreamCreate(&pageable.stream, CU_STREAM_NON_BLOCKING));
	pinned = pageable;
	pageable.from = malloc(largest);
	pageable.to = malloc(largest);
	pinned.expected = pageable.expected = malloc(largest);
	CHECK(cuMemHostAlloc((void **)&pinned.from, largest, 0));
	CHECK(cuMemHostAlloc((void **)&pinned.to, largest, 0));
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		printf("%9zu bytes, wrong:", sizes[i]);
		for (int mode = 0; mode < 4; mode++) {
			printf(" %zu", round_trip(&pageable, sizes[i], mode & 1, mode >> 1, !(mode & 1), ++seed));
			printf(" %zu", round_trip(&pinned, sizes[i], mode & 1, mode >> 1, 0, ++seed));
		}
		printf("\n");
	}
	ordered(&pinned, largest);
	CHECK(cuMemFreeHost(pinned.from));
	CHECK(cuMemFreeHost(pinned.to));
	CHECK(cuMemFree_v2(pageable.device));
	CHECK(cuStreamDestroy_v2(pageable.stream));
	return 0;
}
