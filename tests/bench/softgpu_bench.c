/* SPDX-License-Identifier: Apache-2.0
 *
 * softgpu_bench: what the software GPU takes to begin and to compute, on whichever libcuda.so.1 the loader finds.
 *
 *     softgpu_bench FILE.ptx [MILLISECONDS]
 *
 * loads the PTX that many milliseconds after its context is there, and prints a JSON line for each figure. FILE.ptx is
 * what nvcc makes of kernels.cu. Results are checked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t CUdeviceptr;

#define DRIVER_CALLS(X) \
	X(cuInit, cuInit, (unsigned)) \
	X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (void **, int)) \
	X(cuCtxSetCurrent, cuCtxSetCurrent, (void *)) \
	X(cuCtxSynchronize, cuCtxSynchronize, (void)) \
	X(cuModuleLoadData, cuModuleLoadData, (void **, const void *)) \
	X(cuModuleGetFunction, cuModuleGetFunction, (void **, void *, const char *)) \
	X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr *, size_t)) \
	X(cuMemcpyHtoD, cuMemcpyHtoD_v2, (CUdeviceptr, const void *, size_t)) \
	X(cuMemcpyDtoH, cuMemcpyDtoH_v2, (void *, CUdeviceptr, size_t)) \
	X(cuLaunchKernel, cuLaunchKernel, \
	  (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **))

#define DECLARE(name, symbol, parameters) static int(*name) parameters;
DRIVER_CALLS(DECLARE)

#define CHECK(call) check(call, #call)

static void check(int result, const char *call)
{
	if (!result)
		return;
	fprintf(stderr, "softgpu_bench: %s gives %d\n", call, result);
	exit(1);
}

static void open_driver(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW);

	if (!library) {
		fprintf(stderr, "softgpu_bench: %s\n", dlerror());
		exit(1);
	}
#define RESOLVE(name, symbol, parameters) name = (int(*) parameters)(uintptr_t)dlsym(library, #symbol);
	DRIVER_CALLS(RESOLVE)
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static void report(const char *metric, double value)
{
	printf("{\"metric\": \"%s\", \"unit\": \"ms\", \"value\": %.4f}\n", metric, value);
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	char *text = calloc(1, 1 << 20);

	if (!file || !text || !fread(text, 1, (1 << 20) - 1, file)) {
		fprintf(stderr, "softgpu_bench: cannot read %s\n", path);
		exit(1);
	}
	fclose(file);
	return text;
}

struct arrays {
	CUdeviceptr device[3];
	float *host[3];
	int count; /* of each */
};

static struct arrays make_arrays(int count)
{
	struct arrays made = { .count = count };
	const size_t bytes = (size_t)count * sizeof(float);

	for (int k = 0; k < 3; k++) {
		made.host[k] = calloc(1, bytes);
		for (int i = 0; i < count; i++)
			made.host[k][i] = (float)((i * (k + 3) + i / 1000) % 17 - 8);
		CHECK(cuMemAlloc(&made.device[k], bytes));
		CHECK(cuMemcpyHtoD(made.device[k], made.host[k], bytes));
	}
	return made;
}

static double launch(void *function, struct arrays *arrays, unsigned grid, unsigned rows, unsigned block, int n)
{
	void *parameters[] = { &arrays->device[0], &arrays->device[1], &arrays->device[2], &n };
	const double start = now();

	CHECK(cuLaunchKernel(function, grid, rows, 1, block, rows > 1 ? block : 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuCtxSynchronize());
	return now() - start;
}

static void wrong(const char *what, int at)
{
	fprintf(stderr, "softgpu_bench: wrong %s at %d\n", what, at);
	exit(1);
}

static void measure_add(void *function, struct arrays *arrays)
{
	double best = INFINITY;

	for (int turn = 0; turn < 10; turn++)
		best = fmin(best, launch(function, arrays, (unsigned)arrays->count / 256, 1, 256, arrays->count));
	report("add_1M", best);
	CHECK(cuMemcpyDtoH(arrays->host[2], arrays->device[2], (size_t)arrays->count * sizeof(float)));
	for (int i = 0; i < arrays->count; i++)
		if (arrays->host[2][i] != arrays->host[0][i] + arrays->host[1][i])
			wrong("sum", i);
}

static void measure_product(void *function, struct arrays *arrays, int n)
{
	double best = INFINITY;

	for (int turn = 0; turn < 3; turn++)
		best = fmin(best, launch(function, arrays, (unsigned)n / 32, (unsigned)n / 32, 32, n));
	report("product_1024", best);
	CHECK(cuMemcpyDtoH(arrays->host[2], arrays->device[2], (size_t)n * (size_t)n * sizeof(float)));
	for (int at = 0; at < n * n; at += 4099) {
		float sum = 0; /* whole numbers: exact in any order */

		for (int k = 0; k < n; k++)
			sum += arrays->host[0][at / n * n + k] * arrays->host[1][k * n + at % n];
		if (arrays->host[2][at] != sum)
			wrong("product", at);
	}
}

int main(int argc, char **argv)
{
	const int wait = argc > 2 ? atoi(argv[2]) : 0;
	void *context, *module, *add, *product;

	if (argc < 2)
		return 2;
	char *text = read_file(argv[1]);

	open_driver();
	double start = now();
	CHECK(cuInit(0));
	CHECK(cuDevicePrimaryCtxRetain(&context, 0));
	CHECK(cuCtxSetCurrent(context));
	report("init_and_context", now() - start);
	struct arrays small = make_arrays(256);
	nanosleep(&(struct timespec){ .tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000l }, NULL);

	start = now();
	CHECK(cuModuleLoadData(&module, text));
	const double loaded = now();
	CHECK(cuModuleGetFunction(&add, module, "add"));
	launch(add, &small, 1, 1, 256, 256);
	report("first_load", loaded - start);
	report("first_launch", now() - loaded);
	report("first_load_and_launch", now() - start);
	report("launch_again", launch(add, &small, 1, 1, 256, 256));
	if (wait)
		return 0;
	struct arrays large = make_arrays(1 << 20);
	CHECK(cuModuleGetFunction(&product, module, "product"));
	measure_add(add, &large);
	measure_product(product, &large, 1024);
	return 0;
}
