/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of the program in the order of a stream.
 */
#include "program.h"

#include <semaphore.h>
#include <unistd.h>

static int steps[16], step_count;

static void CUDA_CB note(void *data)
{
	usleep(2000);
	steps[step_count++] = (int)(size_t)data;
}

static void CUDA_CB note_status(CUstream stream, CUresult status, void *data)
{
	(void)stream;
	steps[step_count++] = status == CUDA_SUCCESS ? (int)(size_t)data : -1;
}

static void CUDA_CB wait_for_caller(void *gate)
{
	sem_wait(gate);
}

static void CUDA_CB write_seven(void *data)
{
	usleep(20000);
	*(volatile unsigned *)data = 7;
}

static unsigned read_back(CUdeviceptr x, CUstream stream)
{
	unsigned value = 0;

	CHECK(cuMemcpyDtoHAsync_v2(&value, x, 4, stream));
	CHECK(cuStreamSynchronize(stream));
	return value;
}

/* A function that waits for this thread holds up its own stream and no copy of another. One that writes pinned
 * memory has done so when a later copy of the stream, or of one that waits for it, reads there. */
static void copy_beside(CUstream stream, CUstream other, CUevent event, CUdeviceptr x)
{
	unsigned *pinned, pageable = 3;
	sem_t gate;

	sem_init(&gate, 0, 0);
	CHECK(cuMemHostAlloc((void **)&pinned, 4, 0));
	*pinned = 5;
	CHECK(cuLaunchHostFunc(stream, wait_for_caller, &gate));
	CHECK(cuMemcpyHtoDAsync_v2(x, pinned, 4, other));
	printf("beside a host function: pinned %u", read_back(x, other));
	CHECK(cuMemcpyHtoDAsync_v2(x, &pageable, 4, other));
	printf(", pageable %u", read_back(x, other));
	sem_post(&gate);
	CHECK(cuLaunchHostFunc(stream, write_seven, pinned));
	CHECK(cuMemcpyHtoDAsync_v2(x, pinned, 4, stream));
	printf(", after it %u", read_back(x, stream));
	*pinned = 6;
	CHECK(cuLaunchHostFunc(stream, write_seven, pinned));
	CHECK(cuEventRecord(event, stream));
	CHECK(cuStreamWaitEvent(other, event, 0));
	CHECK(cuMemcpyHtoDAsync_v2(x, pinned, 4, other));
	printf(", after its event %u\n", read_back(x, other));
	CHECK(cuMemFreeHost(pinned));
}

int main(void)
{
	CUmodule module;
	CUstream stream, other;
	CUevent event;
	CUdeviceptr x;
	unsigned n = 1, factor = 10, value = 0;
	void *parameters[] = { &x, &factor, &n };

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CUfunction scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&x, 4));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	CHECK(cuMemsetD32Async(x, 1, 1, stream));
	CHECK(cuLaunchHostFunc(stream, note, (void *)1));
	CHECK(cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuLaunchHostFunc(stream, note, (void *)2));
	CHECK(cuStreamAddCallback(stream, note_status, (void *)3, 0));
	CHECK(cuEventRecord(event, stream));
	CHECK(cuStreamWaitEvent(other, event, 0));
	CHECK(cuLaunchHostFunc(other, note, (void *)4));
	CHECK(cuMemcpyDtoHAsync_v2(&value, x, 4, stream));
	CHECK(cuStreamSynchronize(other));
	CHECK(cuStreamSynchronize(stream));
	printf("value %u, steps", value);
	for (int i = 0; i < step_count; i++)
		printf(" %d", steps[i]);
	printf("\n");
	copy_beside(stream, other, event, x);
	SHOW(cuLaunchHostFunc(stream, NULL, NULL));
	SHOW(cuStreamAddCallback(stream, note_status, NULL, 1));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
