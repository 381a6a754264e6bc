/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_bench: what CUDA driver calls cost through whichever libcuda.so.1 the loader finds.
 *
 * Measures start-up, synchronous calls, kernel launches (rate, cost on the calling thread, launch and
 * wait), copies of several sizes, a step shaped like inference, and launches from 1 and 4 threads.
 * Needs neither CUDA headers nor the runtime library: it opens libcuda.so.1 itself, so one binary can be
 * run on a real driver, a stub or a remoting shim and the results compared.
 *
 *     cc -O2 -pthread -o driver_bench driver_bench.c -ldl
 *     LD_LIBRARY_PATH=DIR ./driver_bench > result.jsonl      (the table goes to stderr; --help lists options)
 *
 * Every figure is the median of several runs after a warm-up run. "cpu" is the user and system time of
 * this whole process, so a shim's own threads are counted and a server's are not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the driver, as far as it is used */

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream, *CUevent;

enum { STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2, ERROR_NOT_READY = 600 };

/* name in cuGetProcAddress, exported name, the API version asked for, and the type */
#define DRIVER_CALLS(X) \
	X(cuInit, cuInit, 2000, (unsigned)) \
	X(cuDriverGetVersion, cuDriverGetVersion, 2020, (int *)) \
	X(cuDeviceGet, cuDeviceGet, 2000, (CUdevice *, int)) \
	X(cuDeviceGetName, cuDeviceGetName, 2000, (char *, int, CUdevice)) \
	X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, (CUcontext *, CUdevice)) \
	X(cuCtxSetCurrent, cuCtxSetCurrent, 4000, (CUcontext)) \
	X(cuCtxSynchronize, cuCtxSynchronize, 2000, (void)) \
	X(cuModuleLoadData, cuModuleLoadData, 2000, (CUmodule *, const void *)) \
	X(cuModuleGetFunction, cuModuleGetFunction, 2000, (CUfunction *, CUmodule, const char *)) \
	X(cuMemAlloc, cuMemAlloc_v2, 3020, (CUdeviceptr *, size_t)) \
	X(cuMemFree, cuMemFree_v2, 3020, (CUdeviceptr)) \
	X(cuMemHostAlloc, cuMemHostAlloc, 2020, (void **, size_t, unsigned)) \
	X(cuMemFreeHost, cuMemFreeHost, 2000, (void *)) \
	X(cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020, (CUdeviceptr, const void *, size_t)) \
	X(cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020, (void *, CUdeviceptr, size_t)) \
	X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020, (CUdeviceptr, const void *, size_t, CUstream)) \
	X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020, (void *, CUdeviceptr, size_t, CUstream)) \
	X(cuMemsetD32Async, cuMemsetD32Async, 3020, (CUdeviceptr, unsigned, size_t, CUstream)) \
	X(cuStreamCreate, cuStreamCreate, 2000, (CUstream *, unsigned)) \
	X(cuStreamSynchronize, cuStreamSynchronize, 2000, (CUstream)) \
	X(cuEventCreate, cuEventCreate, 2000, (CUevent *, unsigned)) \
	X(cuEventRecord, cuEventRecord, 2000, (CUevent, CUstream)) \
	X(cuEventQuery, cuEventQuery, 2000, (CUevent)) \
	X(cuLaunchKernel, cuLaunchKernel, 4000, \
	  (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, \
	   void **))

#define DECLARE_CALL(name, exported, version, arguments) static CUresult(*name) arguments;
DRIVER_CALLS(DECLARE_CALL)

static const char empty_kernel_ptx[] = ".version 7.0\n"
				       ".target sm_70\n"
				       ".address_size 64\n"
				       ".visible .entry empty_kernel(.param .u64 out, .param .u64 in,\n"
				       "                             .param .u32 count, .param .f32 scale)\n"
				       "{ ret; }\n";

static void die(const char *what, CUresult status)
{
	fprintf(stderr, "driver_bench: %s: error %d\n", what, status);
	exit(1);
}

#define CHECK(call) \
	do { \
		CUresult status_ = (call); \
		if (status_) \
			die(#call, status_); \
	} while (0)

static void *find_call(void *library, const char *name, const char *exported, int version)
{
	CUresult (*get)(const char *, void **, int, uint64_t, int *) = dlsym(library, "cuGetProcAddress_v2");
	void *found = NULL;

	if (!get || get(name, &found, version, 0, NULL) || !found)
		found = dlsym(library, exported);
	if (!found) {
		fprintf(stderr, "driver_bench: no %s in libcuda.so.1\n", exported);
		exit(1);
	}
	return found;
}

static void load_driver(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);

	if (!library) {
		fprintf(stderr, "driver_bench: %s\n", dlerror());
		exit(1);
	}
#define FIND_CALL(name, exported, version, arguments) \
	name = (CUresult(*) arguments)find_call(library, #name, #exported, version);
	DRIVER_CALLS(FIND_CALL)
}

/* ------------------------------------------------------------------ options, clocks and results */

enum { MAX_RUNS = 101, MAX_METRICS = 64, MAX_OPS = 20000 };

static struct {
	int repeats, warmup, device, launches, zero_fill;
	size_t largest_copy;
	const char *only, *label;
} options = { 5, 1, 0, 200000, 0, (size_t)512 << 20, NULL, "" };

/* one run of one measurement; p99 < 0 where single operations were not timed */
struct run {
	double value, p99, cpu_us_per_op;
};

struct metric {
	char name[48];
	const char *unit;
	int runs;
	long ops;
	double median, min, max, p99, cpu_us_per_op;
};

static struct metric metrics[MAX_METRICS];
static int metric_count;

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double cpu_us(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
}

static int compare_doubles(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double quantile(double *values, long count, double q)
{
	qsort(values, count, sizeof *values, compare_doubles);
	if (q == 0.5 && count % 2 == 0)
		return (values[count / 2 - 1] + values[count / 2]) / 2;
	return values[(long)(q * (count - 1) + 0.5)];
}

static int wanted(const char *name)
{
	return !options.only || strstr(name, options.only);
}

static void record(const char *name, const char *unit, long ops, const struct run *runs, int count)
{
	double value[MAX_RUNS], p99[MAX_RUNS], cpu[MAX_RUNS];
	struct metric *m = &metrics[metric_count++];

	for (int i = 0; i < count; i++) {
		value[i] = runs[i].value;
		p99[i] = runs[i].p99;
		cpu[i] = runs[i].cpu_us_per_op;
	}
	snprintf(m->name, sizeof m->name, "%s", name);
	m->unit = unit;
	m->runs = count;
	m->ops = ops;
	m->median = quantile(value, count, 0.5);
	m->min = value[0];
	m->max = value[count - 1];
	m->p99 = quantile(p99, count, 0.5);
	m->cpu_us_per_op = quantile(cpu, count, 0.5);

	printf("{\"metric\":\"%s\",\"unit\":\"%s\",\"median\":%.6g,\"min\":%.6g,\"max\":%.6g,\"runs\":%d,\"ops\":%ld",
	       name, unit, m->median, m->min, m->max, count, ops);
	if (m->p99 >= 0)
		printf(",\"p99\":%.6g", m->p99);
	if (m->cpu_us_per_op >= 0)
		printf(",\"cpu_us_per_op\":%.6g", m->cpu_us_per_op);
	printf(",\"label\":\"%s\"}\n", options.label);
	fflush(stdout);
}

static void print_table(void)
{
	fprintf(stderr, "%-26s %12s %12s %12s %12s  %-10s %s\n", "metric", "median", "min", "max", "p99", "unit",
		"cpu us/op");
	for (int i = 0; i < metric_count; i++) {
		struct metric *m = &metrics[i];
		char p99[32] = "-", cpu[32] = "-";

		if (m->p99 >= 0)
			snprintf(p99, sizeof p99, "%.4g", m->p99);
		if (m->cpu_us_per_op >= 0)
			snprintf(cpu, sizeof cpu, "%.4g", m->cpu_us_per_op);
		fprintf(stderr, "%-26s %12.5g %12.5g %12.5g %12s  %-10s %s\n", m->name, m->median, m->min, m->max, p99,
			m->unit, cpu);
	}
}

/* Runs a measurement options.warmup times unseen and options.repeats times for the record. */
static void measure(const char *name, const char *unit, long ops, struct run (*once)(long ops, const void *argument),
		    const void *argument)
{
	struct run runs[MAX_RUNS];

	if (!wanted(name))
		return;
	for (int i = 0; i < options.warmup; i++)
		once(ops, argument);
	for (int i = 0; i < options.repeats; i++)
		runs[i] = once(ops, argument);
	record(name, unit, ops, runs, options.repeats);
}

/* An operation times itself and returns microseconds. */
struct operation {
	double (*timed)(const void *argument);
	const void *argument;
};

/* Times each operation by itself: the value is the median one. */
static struct run run_each(long ops, const void *argument)
{
	static double spent[MAX_OPS];
	const struct operation *operation = argument;
	double cpu = cpu_us();
	struct run run;

	for (long i = 0; i < ops; i++)
		spent[i] = operation->timed(operation->argument);
	run.cpu_us_per_op = (cpu_us() - cpu) / ops;
	run.value = quantile(spent, ops, 0.5);
	run.p99 = quantile(spent, ops, 0.99);
	return run;
}

static void measure_each(const char *name, long ops, double (*timed)(const void *argument), const void *argument)
{
	struct operation operation = { timed, argument };

	measure(name, "us", ops, run_each, &operation);
}

/* ------------------------------------------------------------------ what all measurements share */

static CUcontext context;
static CUfunction empty_kernel;
static CUstream stream;
static CUdeviceptr scratch;

static void open_device(void)
{
	CUdevice device;

	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, options.device));
	CHECK(cuDevicePrimaryCtxRetain(&context, device));
	CHECK(cuCtxSetCurrent(context));
}

static void load_kernel(void)
{
	CUmodule module;

	CHECK(cuModuleLoadData(&module, empty_kernel_ptx));
	CHECK(cuModuleGetFunction(&empty_kernel, module, "empty_kernel"));
}

/* The integer changes with every launch, so that no layer can replay the last message. */
static void launch(CUstream on, int count)
{
	CUdeviceptr out = scratch, in = scratch + 4096;
	float scale = 0.5f;
	void *parameters[] = { &out, &in, &count, &scale };

	CHECK(cuLaunchKernel(empty_kernel, 1, 1, 1, 32, 1, 1, 0, on, parameters, NULL));
}

/* ------------------------------------------------------------------ start-up */

/* In a process of its own, since a driver starts once per process. */
static int startup_child(void)
{
	double start = now_us(), loaded, opened;

	load_driver();
	loaded = now_us();
	open_device();
	opened = now_us();
	load_kernel();
	printf("%.3f %.3f %.3f\n", loaded - start, opened - loaded, now_us() - opened);
	return 0;
}

static void measure_startup(void)
{
	struct run load[MAX_RUNS], open[MAX_RUNS], kernel[MAX_RUNS];
	char command[4200], self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

	if (!wanted("startup") || length < 0)
		return;
	self[length] = 0;
	snprintf(command, sizeof command, "'%s' --startup-child --device %d", self, options.device);
	for (int i = -options.warmup; i < options.repeats; i++) {
		double us[3];
		FILE *child = popen(command, "r");

		if (!child || fscanf(child, "%lf %lf %lf", &us[0], &us[1], &us[2]) != 3 || pclose(child)) {
			fprintf(stderr, "driver_bench: the start-up child failed\n");
			exit(1);
		}
		if (i >= 0) {
			load[i] = (struct run){ us[0] / 1e3, -1, -1 };
			open[i] = (struct run){ us[1] / 1e3, -1, -1 };
			kernel[i] = (struct run){ us[2] / 1e3, -1, -1 };
		}
	}
	record("startup_dlopen", "ms", 1, load, options.repeats);
	record("startup_init_and_context", "ms", 1, open, options.repeats);
	record("startup_module_load", "ms", 1, kernel, options.repeats);
}

/* ------------------------------------------------------------------ synchronous calls */

static double memset_and_wait(const void *unused)
{
	double start = now_us();

	CHECK(cuMemsetD32Async(scratch, 1, 1, stream));
	CHECK(cuStreamSynchronize(stream));
	return now_us() - start;
}

static double alloc_and_free(const void *unused)
{
	CUdeviceptr memory;
	double start = now_us();

	CHECK(cuMemAlloc(&memory, 1 << 20));
	CHECK(cuMemFree(memory));
	return now_us() - start;
}

/* Only the query is timed; the record before it makes the answer new. */
static double query_event(const void *unused)
{
	static CUevent event;
	double start, end;
	CUresult status;

	if (!event)
		CHECK(cuEventCreate(&event, EVENT_DISABLE_TIMING));
	CHECK(cuEventRecord(event, stream));
	start = now_us();
	status = cuEventQuery(event);
	end = now_us();
	if (status && status != ERROR_NOT_READY)
		die("cuEventQuery", status);
	return end - start;
}

static double launch_and_wait(const void *unused)
{
	static int count;
	double start = now_us();

	launch(stream, count++);
	CHECK(cuStreamSynchronize(stream));
	return now_us() - start;
}

/* ------------------------------------------------------------------ launches */

static struct run launch_many(long ops, const void *on_caller)
{
	double cpu = cpu_us(), start = now_us(), queued, done;
	struct run run = { .p99 = -1 };

	for (long i = 0; i < ops; i++)
		launch(stream, i);
	queued = now_us();
	CHECK(cuStreamSynchronize(stream));
	done = now_us();
	run.cpu_us_per_op = (cpu_us() - cpu) / ops;
	run.value = on_caller ? (queued - start) * 1e3 / ops : ops / (done - start) * 1e6;
	return run;
}

/* Few enough launches to fit any queue: what the caller pays when the other side need not keep up. */
static struct run launch_burst(long ops, const void *unused)
{
	enum { BURSTS = 50 };
	double spent[BURSTS];
	double cpu = cpu_us();
	struct run run = { .p99 = -1 };

	for (int b = 0; b < BURSTS; b++) {
		double start = now_us();

		for (long i = 0; i < ops; i++)
			launch(stream, i);
		spent[b] = (now_us() - start) * 1e3 / ops;
		CHECK(cuStreamSynchronize(stream));
	}
	run.cpu_us_per_op = (cpu_us() - cpu) / (BURSTS * ops);
	run.value = quantile(spent, BURSTS, 0.5);
	return run;
}

struct launcher {
	pthread_t thread;
	pthread_barrier_t *ready;
	long launches;
	double start, end;
};

static void *launcher_main(void *argument)
{
	struct launcher *launcher = argument;
	CUstream own;

	CHECK(cuCtxSetCurrent(context));
	CHECK(cuStreamCreate(&own, STREAM_NON_BLOCKING));
	for (int i = 0; i < 200; i++)
		launch(own, i);
	CHECK(cuStreamSynchronize(own));
	pthread_barrier_wait(launcher->ready);
	launcher->start = now_us();
	for (long i = 0; i < launcher->launches; i++)
		launch(own, i);
	CHECK(cuStreamSynchronize(own));
	launcher->end = now_us();
	return NULL;
}

/* From the first thread's first launch to the last thread's return from its wait. */
static struct run launch_from_threads(long ops, const void *thread_count)
{
	enum { MOST = 16 };
	int threads = *(const int *)thread_count;
	struct launcher launchers[MOST];
	pthread_barrier_t ready;
	struct run run = { .p99 = -1 };
	double start, end, cpu;

	pthread_barrier_init(&ready, NULL, threads + 1);
	for (int i = 0; i < threads; i++) {
		launchers[i] = (struct launcher){ .ready = &ready, .launches = ops / threads };
		pthread_create(&launchers[i].thread, NULL, launcher_main, &launchers[i]);
	}
	cpu = cpu_us();
	pthread_barrier_wait(&ready);
	for (int i = 0; i < threads; i++)
		pthread_join(launchers[i].thread, NULL);
	run.cpu_us_per_op = (cpu_us() - cpu) / ops;
	pthread_barrier_destroy(&ready);

	start = launchers[0].start;
	end = launchers[0].end;
	for (int i = 1; i < threads; i++) {
		start = launchers[i].start < start ? launchers[i].start : start;
		end = launchers[i].end > end ? launchers[i].end : end;
	}
	run.value = ops / (end - start) * 1e6;
	return run;
}

/* ------------------------------------------------------------------ copies */

struct copy {
	int to_device, async;
	size_t size;
	char *host;
	CUdeviceptr device;
};

static void copy_once(const struct copy *c)
{
	if (c->async && c->to_device)
		CHECK(cuMemcpyHtoDAsync(c->device, c->host, c->size, stream));
	else if (c->async)
		CHECK(cuMemcpyDtoHAsync(c->host, c->device, c->size, stream));
	else if (c->to_device)
		CHECK(cuMemcpyHtoD(c->device, c->host, c->size));
	else
		CHECK(cuMemcpyDtoH(c->host, c->device, c->size));
}

static struct run copy_many(long ops, const void *argument)
{
	const struct copy *c = argument;
	double cpu = cpu_us(), start = now_us(), spent;
	struct run run = { .p99 = -1 };

	for (long i = 0; i < ops; i++)
		copy_once(c);
	CHECK(cuCtxSynchronize());
	spent = now_us() - start;
	run.cpu_us_per_op = (cpu_us() - cpu) / ops;
	run.value = c->size * (double)ops / spent / 1e3;
	return run;
}

static double small_copy(const void *argument)
{
	double start = now_us();

	copy_once(argument);
	return now_us() - start;
}

/* Data that no compressor can shrink, unless zeros were asked for. */
static void fill(char *memory, size_t size)
{
	uint64_t state = 88172645463325252ull;

	for (size_t i = 0; i < size; i += 8) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		*(uint64_t *)(memory + i) = options.zero_fill ? 0 : state;
	}
}

static const struct {
	const char *to_device, *to_host;
	size_t size;
	long ops;
} copies[] = { { "htod_4KiB", "dtoh_4KiB", 4 << 10, 2000 },
	       { "htod_64KiB", "dtoh_64KiB", 64 << 10, 1000 },
	       { "htod_1MiB", "dtoh_1MiB", 1 << 20, 128 },
	       { "htod_64MiB", "dtoh_64MiB", 64 << 20, 4 },
	       { "htod_512MiB", "dtoh_512MiB", (size_t)512 << 20, 1 } };

enum { COPIES = sizeof copies / sizeof *copies };

static int any_copy_wanted(void)
{
	for (int i = 0; i < COPIES; i++)
		if (wanted(copies[i].to_device) || wanted(copies[i].to_host))
			return 1;
	return wanted("htod_4B") || wanted("dtoh_4B") || wanted("htod_64MiB_pinned_async") ||
	       wanted("dtoh_64MiB_pinned_async") || wanted("copy_verified");
}

static int comes_back(const struct copy *in, const struct copy *out)
{
	if (!wanted("copy_verified"))
		return 1;
	memset(out->host, 0xff, out->size);
	copy_once(in);
	copy_once(out);
	CHECK(cuCtxSynchronize());
	return !memcmp(in->host, out->host, in->size);
}

static void measure_copies(void)
{
	size_t size = options.largest_copy, pinned_size = (size_t)64 << 20;
	struct run verified = { 1, -1, -1 };
	char *source, *target;
	CUdeviceptr device;

	if (!any_copy_wanted())
		return;
	source = aligned_alloc(4096, size);
	target = aligned_alloc(4096, size);
	CHECK(cuMemAlloc(&device, size));
	fill(source, size);
	memset(target, 1, size);

	measure_each("htod_4B", 2000, small_copy, &(struct copy){ 1, 0, 4, source, device });
	measure_each("dtoh_4B", 2000, small_copy, &(struct copy){ 0, 0, 4, target, device });
	for (int i = 0; i < COPIES && copies[i].size <= size; i++) {
		struct copy in = { 1, 0, copies[i].size, source, device },
			    out = { 0, 0, copies[i].size, target, device };

		measure(copies[i].to_device, "GB/s", copies[i].ops, copy_many, &in);
		measure(copies[i].to_host, "GB/s", copies[i].ops, copy_many, &out);
		verified.value = verified.value && comes_back(&in, &out);
	}

	if (pinned_size <= size) {
		struct copy in = { 1, 1, pinned_size, NULL, device }, out;

		CHECK(cuMemHostAlloc((void **)&in.host, pinned_size, 0));
		fill(in.host, pinned_size);
		out = in;
		out.to_device = 0;
		measure("htod_64MiB_pinned_async", "GB/s", 4, copy_many, &in);
		measure("dtoh_64MiB_pinned_async", "GB/s", 4, copy_many, &out);
		in.host = source;
		verified.value = verified.value && comes_back(&in, &out);
		CHECK(cuMemFreeHost(out.host));
	}
	if (wanted("copy_verified"))
		record("copy_verified", "1 = yes", 1, &verified, 1);
	CHECK(cuMemFree(device));
	free(source);
	free(target);
}

/* ------------------------------------------------------------------ a step shaped like inference */

/* Token ids and positions in, 300 kernels, 4 KiB of results out, wait. */
static double inference_step(const void *unused)
{
	enum { KERNELS = 300, INPUT = 256, OUTPUT = 4096 };
	static char tokens[INPUT], positions[INPUT], results[OUTPUT];
	double start = now_us();

	tokens[0]++;
	CHECK(cuMemcpyHtoDAsync(scratch, tokens, INPUT, stream));
	CHECK(cuMemcpyHtoDAsync(scratch + INPUT, positions, INPUT, stream));
	for (int i = 0; i < KERNELS; i++)
		launch(stream, i);
	CHECK(cuMemcpyDtoHAsync(results, scratch + 4096, OUTPUT, stream));
	CHECK(cuStreamSynchronize(stream));
	return now_us() - start;
}

/* ------------------------------------------------------------------ */

static void parse_options(int argc, char **argv)
{
	static const struct option known[] = { { "repeats", 1, 0, 'r' },
					       { "warmup", 1, 0, 'w' },
					       { "device", 1, 0, 'd' },
					       { "launches", 1, 0, 'n' },
					       { "only", 1, 0, 'o' },
					       { "label", 1, 0, 'l' },
					       { "zeros", 0, 0, 'z' },
					       { "max-copy", 1, 0, 'm' },
					       { "startup-child", 0, 0, 's' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	int option, child = 0;

	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1)
		switch (option) {
		case 'r': options.repeats = atoi(optarg); break;
		case 'w': options.warmup = atoi(optarg); break;
		case 'd': options.device = atoi(optarg); break;
		case 'n': options.launches = atoi(optarg); break;
		case 'o': options.only = optarg; break;
		case 'l': options.label = optarg; break;
		case 'z': options.zero_fill = 1; break;
		case 'm': options.largest_copy = (size_t)atoi(optarg) << 20; break;
		case 's': child = 1; break;
		default:
			fprintf(stderr,
				"usage: %s [--only NAME-PART] [--repeats N] [--warmup N] [--launches N] [--device N]\n"
				"       [--max-copy MIB] [--zeros] [--label TEXT]\n",
				argv[0]);
			exit(option == 'h' ? 0 : 2);
		}
	if (options.repeats < 1 || options.repeats > MAX_RUNS || options.launches < 4 ||
	    options.largest_copy < 1 << 20) {
		fprintf(stderr, "%s: an option is out of range\n", argv[0]);
		exit(2);
	}
	if (child)
		exit(startup_child());
}

int main(int argc, char **argv)
{
	int one = 1, four = 4, version = 0;
	char device_name[128] = "", word[4] = "";

	parse_options(argc, argv);
	measure_startup();

	load_driver();
	open_device();
	load_kernel();
	CHECK(cuDriverGetVersion(&version));
	CHECK(cuDeviceGetName(device_name, sizeof device_name, options.device));
	fprintf(stderr, "driver API %d, device %s\n", version, device_name);
	CHECK(cuStreamCreate(&stream, STREAM_NON_BLOCKING));
	CHECK(cuMemAlloc(&scratch, 1 << 20));

	measure_each("memset_sync", 2000, memset_and_wait, NULL);
	measure_each("alloc_free", 1000, alloc_and_free, NULL);
	measure_each("event_query", 2000, query_event, NULL);
	measure_each("launch_sync", 2000, launch_and_wait, NULL);

	measure("launch_rate", "launches/s", options.launches, launch_many, NULL);
	measure("launch_caller", "ns", options.launches, launch_many, &one);
	measure("launch_burst300_caller", "ns", 300, launch_burst, NULL);
	measure_each("inference_step", 200, inference_step, NULL);
	measure_copies();

	/* Last: what a shim keeps for threads that have ended must not slow the figures above. */
	measure("launch_rate_1_thread", "launches/s", options.launches, launch_from_threads, &one);
	measure("launch_rate_4_threads", "launches/s", options.launches, launch_from_threads, &four);
	measure_each("htod_4B_after_threads", 2000, small_copy, &(struct copy){ 1, 0, 4, word, scratch });
	print_table();
	return 0;
}
