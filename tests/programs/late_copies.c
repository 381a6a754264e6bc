/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies from pinned memory that earlier work of the stream has yet to write: they take what is there when the
 * stream gets to them, and the caller does not wait for that.
 */
#include "program.h"

#include <semaphore.h>
#include <string.h>
#include <unistd.h>

enum { WORDS = 600000, WIDTH = 24, HEIGHT = 3, PITCH = 40 };

struct gate {
	sem_t opened;
	unsigned *words;
};

static void CUDA_CB wait_for_caller(void *data)
{
	struct gate *gate = data;

	sem_wait(&gate->opened);
	for (int i = 0; i < WORDS; i++)
		gate->words[i] += 1;
}

/* All of it is in the stream before the function can return, because only this thread lets it. */
static void copy_behind_function(CUstream stream, CUdeviceptr x, struct gate *gate)
{
	unsigned first[4], last;
	CUDA_MEMCPY2D box = { .srcMemoryType = CU_MEMORYTYPE_HOST,
			      .srcHost = gate->words,
			      .srcPitch = PITCH,
			      .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			      .dstDevice = x,
			      .dstPitch = WIDTH,
			      .WidthInBytes = WIDTH,
			      .Height = HEIGHT };

	CHECK(cuLaunchHostFunc(stream, wait_for_caller, gate));
	CHECK(cuMemcpyHtoDAsync_v2(x, gate->words, WORDS * 4, stream));

	CHECK(cuLaunchHostFunc(stream, wait_for_caller, gate));
	CHECK(cuMemcpy2DAsync_v2(&box, stream));
	for (int i = 0; i < WORDS; i++)
		gate->words[i] = i;
	sem_post(&gate->opened);
	sem_post(&gate->opened);
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuMemcpyDtoH_v2(first, x + WIDTH, 16));
	CHECK(cuMemcpyDtoH_v2(&last, x + (WORDS - 1) * 4, 4));
	printf("second row %u %u %u %u, last %u\n", first[0], first[1], first[2], first[3], last);
}

/* The memory that a copy brings is sent on by the next one, without a wait between. */
static void copy_what_comes(CUstream stream, CUdeviceptr x, CUdeviceptr y, unsigned *words)
{
	unsigned value = 0;

	memset(words, 0, WORDS * 4);
	for (unsigned i = 1; i <= 5; i++) {
		CHECK(cuMemsetD32Async(x, i, WORDS, stream));
		CHECK(cuMemcpyDtoHAsync_v2(words, x, WORDS * 4, stream));
		CHECK(cuMemcpyHtoDAsync_v2(y, words, WORDS * 4, stream));
	}
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuMemcpyDtoH_v2(&value, y + (WORDS - 1) * 4, 4));
	printf("sent on %u\n", value);
}

/* Freed while a copy has yet to read it. */
static void free_behind_function(CUstream stream, CUdeviceptr x)
{
	unsigned *words, value = 0;
	struct gate gate;

	CHECK(cuMemHostAlloc((void **)&words, WORDS * 4, 0));
	memset(words, 0, WORDS * 4);
	gate.words = words;
	sem_init(&gate.opened, 0, 1);
	CHECK(cuLaunchHostFunc(stream, wait_for_caller, &gate));
	CHECK(cuMemcpyHtoDAsync_v2(x, words, WORDS * 4, stream));
	CHECK(cuMemFreeHost(words));
	CHECK(cuMemcpyDtoHAsync_v2(&value, x + (WORDS - 1) * 4, 4, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("freed %u\n", value);
}

int main(void)
{
	CUstream stream;
	CUdeviceptr x, y;
	struct gate gate;

	open_device();
	CHECK(cuMemAlloc_v2(&x, WORDS * 4));
	CHECK(cuMemAlloc_v2(&y, WORDS * 4));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemHostAlloc((void **)&gate.words, WORDS * 4, 0));
	sem_init(&gate.opened, 0, 0);
	copy_behind_function(stream, x, &gate);
	copy_what_comes(stream, x, y, gate.words);
	free_behind_function(stream, x);
	CHECK(cuMemFreeHost(gate.words));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
