/* SPDX-License-Identifier: Apache-2.0
 *
 * usage: busy_kernels [ROUNDS PAUSE_MS]
 * Launches kernels of so many rounds until it is stopped: one after the other with pauses between them, or some ahead of
 * those that it waits for, so that the device always has one to run. Prints "ready" once it is under way, and a line for
 * each kernel where there is a pause. Without arguments, a few and their count.
 */
#include "program.h"

#include <unistd.h>

enum { FEW = 20, AHEAD = 16 };

static const char code[] = PTX_HEADER PTX_WORK;

int main(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atol(argv[1]) : 1000, count = 0;
	useconds_t pause = argc > 2 ? (useconds_t)atol(argv[2]) * 1000 : 0;
	unsigned ahead = pause ? 1 : AHEAD;
	CUevent done[AHEAD];
	CUdeviceptr memory;
	CUmodule module;
	CUfunction work;

	open_device();
	CHECK(cuModuleLoadData(&module, code));
	work = get_function(module, "work");
	CHECK(cuMemAlloc_v2(&memory, sizeof count));
	CHECK(cuMemsetD32_v2(memory, 0, 1));
	for (unsigned i = 0; i < ahead; i++)
		CHECK(cuEventCreate(&done[i], CU_EVENT_DISABLE_TIMING));
	for (unsigned launched = 0; argc > 2 || launched < FEW; launched++) {
		void *parameters[] = { &memory, &rounds };

		CHECK(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
		CHECK(cuEventRecord(done[launched % ahead], NULL));
		CHECK(cuEventSynchronize(done[(launched + 1) % ahead]));
		if (launched == 0 || pause)
			printf(launched ? "done\n" : "ready\n");
		usleep(pause);
	}
	CHECK(cuMemcpyDtoH_v2(&count, memory, sizeof count));
	printf("%u kernels\n", count);
	return 0;
}
