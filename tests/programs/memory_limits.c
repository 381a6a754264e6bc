/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory there is, said three ways, and how much can really be had.
 *
 *     memory_limits [PERCENT_OF_TOTAL [SECONDS|-]]   holds that share for that long; -: until standard input ends
 */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16 << 20, MOST = 4096 };

static CUdeviceptr chunks[MOST];

static void check(CUresult status, const char *what)
{
	const char *name = "?";

	if (!status)
		return;
	cuGetErrorName(status, &name);
	printf("%s: %s\n", what, name);
	exit(1);
}

int main(int argc, char **argv)
{
	int percent = argc > 1 ? atoi(argv[1]) : 200, seconds = argc > 2 ? atoi(argv[2]) : 0, devices, count = 0;
	size_t total, available, wanted, after, before;
	const char *name = "none";
	CUcontext context;
	CUdevice device;
	CUresult status = CUDA_SUCCESS;

	check(cuInit(0), "cuInit");
	check(cuDeviceGetCount(&devices), "cuDeviceGetCount");
	check(cuDeviceGet(&device, 0), "cuDeviceGet");
	check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
	check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
	check(cuDeviceTotalMem_v2(&total, device), "cuDeviceTotalMem");
	check(cuMemGetInfo_v2(&before, &wanted), "cuMemGetInfo");
	printf("devices %d, total %zu MiB, by cuMemGetInfo %zu MiB\n", devices, total >> 20, wanted >> 20);
	wanted = total / 100 * percent;
	while (count < MOST && (size_t)(count + 1) * CHUNK <= wanted) {
		status = cuMemAlloc_v2(&chunks[count], CHUNK);
		if (status)
			break;
		count++;
	}
	if (status)
		cuGetErrorName(status, &name);
	check(cuMemGetInfo_v2(&available, &wanted), "cuMemGetInfo");
	printf("got %d MiB, error %s, free %zu MiB\n", count * (CHUNK >> 20), name, available >> 20);
	fflush(stdout);
	sleep(seconds);
	while (argc > 2 && !strcmp(argv[2], "-") && getchar() != EOF)
		;
	while (count)
		check(cuMemFree_v2(chunks[--count]), "cuMemFree");
	check(cuMemGetInfo_v2(&after, &wanted), "cuMemGetInfo");
	printf("all given back: %d\n", after == before);
	return 0;
}
