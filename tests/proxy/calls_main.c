/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that uses a bit of everything and takes every failure as it comes, again and again, each time in a child
 * of its own: calls_main TIMES [malloc]. Prints how each child ended: its exit status, "signal N", or "hang". With
 * `malloc` the n-th child's n-th allocation in libcuda.so.1 fails; it exits with 1 when that happened.
 */
#define _GNU_SOURCE
#include "cuda.h"

#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 10000, BYTES = 5000, LARGE = 300 << 10 };

/* ------------------------------------------------------------------ allocations that fail */

static uintptr_t library_start, library_end;
static _Atomic long until_failure; /* allocations; 0: none fails */
static _Atomic int failed;

static int find_library(struct dl_phdr_info *info, size_t size, void *unused)
{
	if (!strstr(info->dlpi_name, "libcuda.so"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
			library_start = info->dlpi_addr + part->p_vaddr;
			library_end = library_start + part->p_memsz;
		}
	}
	return 1;
}

static int fails(const void *caller)
{
	uintptr_t from = (uintptr_t)caller;
	if (from < library_start || from >= library_end || !atomic_load(&until_failure))
		return 0;
	if (atomic_fetch_sub(&until_failure, 1) != 1)
		return 0;
	atomic_store(&failed, 1);
	return 1;
}

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t);
void *REAL(calloc)(size_t, size_t);
void *REAL(realloc)(void *, size_t);

void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : REAL(malloc)(size);
}

void *calloc(size_t count, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : REAL(calloc)(count, size);
}

void *realloc(void *old, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : REAL(realloc)(old, size);
}

char *strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = fails(__builtin_return_address(0)) ? NULL : REAL(malloc)(size);
	return copy ? memcpy(copy, text, size) : NULL;
}

/* ------------------------------------------------------------------ the calls
 *
 * What the library writes to lies in memory of exactly the right size, so that a byte too many is seen.
 */

#define NEW(type, count) ((type *)REAL(calloc)(count, sizeof(type)))

static _Atomic int called;

static void CUDA_CB count_call(void *data)
{
	atomic_fetch_add(&called, 1);
	*(int *)data += 1;
}

static void CUDA_CB count_callback(CUstream stream, CUresult status, void *data)
{
	count_call(data);
}

static void use_devices(void)
{
	char *name = NEW(char, 20), *bus = NEW(char, 16);
	CUuuid *uuid = NEW(CUuuid, 1);
	int *value = NEW(int, 1), *count = NEW(int, 1);
	size_t *bytes = NEW(size_t, 2);

	cuDeviceGetCount(count);
	for (int device = 0; device < *count && device < 70; device++) {
		cuDeviceGetName(name, 20, device);
		cuDeviceGetUuid_v2(uuid, device);
		cuDeviceGetPCIBusId(bus, 16, device);
		cuDeviceTotalMem_v2(bytes, device);
		for (int i = 1; i < 170; i++)
			cuDeviceGetAttribute(value, (CUdevice_attribute)i, device);
	}
	cuMemGetInfo_v2(bytes, bytes + 1);
	cuCtxGetStreamPriorityRange(value, count);
	cuCtxGetLimit(bytes, CU_LIMIT_STACK_SIZE);
	cuDeviceGetP2PAttribute(value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0);
	free(name);
	free(bus);
	free(uuid);
	free(value);
	free(count);
	free(bytes);
}

static void use_memory(CUstream stream)
{
	CUdeviceptr *memory = NEW(CUdeviceptr, 3);
	size_t *pitch = NEW(size_t, 1);
	char *host = NEW(char, BYTES), *large = NEW(char, LARGE), *pinned = NULL;
	CUDA_MEMCPY2D shape = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .dstMemoryType = CU_MEMORYTYPE_HOST };

	cuMemAlloc_v2(&memory[0], LARGE);
	cuMemAllocPitch_v2(&memory[1], pitch, 100, 40, 4);
	cuMemAllocAsync(&memory[2], BYTES, stream);
	cuMemHostAlloc((void **)&pinned, LARGE, 0);
	cuMemcpyHtoD_v2(memory[0], host, BYTES);
	cuMemcpyHtoDAsync_v2(memory[0], large, LARGE, stream);
	cuMemcpyDtoH_v2(host, memory[0], BYTES);
	if (pinned)
		cuMemcpyDtoHAsync_v2(pinned, memory[0], LARGE, stream);
	cuStreamSynchronize(stream);
	cuMemcpyDtoH_v2(large, memory[0], LARGE);
	shape.srcDevice = memory[1];
	shape.srcPitch = *pitch;
	shape.dstHost = host;
	shape.dstPitch = 100;
	shape.WidthInBytes = 90;
	shape.Height = 40;
	cuMemcpy2D_v2(&shape);
	cuMemsetD8_v2(memory[0], 1, BYTES);
	cuMemGetAddressRange_v2(&memory[2], pitch, memory[0]);
	cuMemFree_v2(memory[0]);
	cuMemFree_v2(memory[1]);
	cuMemFreeAsync(memory[2], stream);
	cuMemFreeHost(pinned);
	cuCtxSynchronize();
	free(memory);
	free(pitch);
	free(host);
	free(large);
}

static void use_code(CUstream stream)
{
	static char image[3000] = ".version 7.0\n.target sm_70\n.address_size 64\n";
	char *log = NEW(char, 64);
	CUjit_option options[] = { CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)(size_t)64 }, *parameters[3] = { &image, &options, &log }, *binary;
	CUmodule module = NULL;
	CUfunction function = NULL;
	CUdeviceptr global;
	CUlinkState link;
	size_t size;
	int *value = NEW(int, 1);

	memset(image + strlen(image), ' ', sizeof image - 1 - strlen(image));
	cuModuleLoadDataEx(&module, image, 2, options, values);
	cuModuleGetFunction(&function, module, "f");
	cuModuleGetGlobal_v2(&global, &size, module, "g");
	for (int i = 0; i < 16; i++)
		cuFuncGetAttribute(value, (CUfunction_attribute)i, function);
	cuOccupancyMaxActiveBlocksPerMultiprocessor(value, function, 64, 0);
	for (int i = 0; i < 50; i++)
		cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
	if (cuLinkCreate_v2(2, options, values, &link) == CUDA_SUCCESS) {
		cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, image, strlen(image) + 1, "name", 0, NULL, NULL);
		if (cuLinkComplete(link, &binary, &size) == CUDA_SUCCESS && size)
			*value = ((volatile char *)binary)[size - 1];
		cuLinkDestroy(link);
	}
	cuModuleUnload(module);
	free(log);
	free(value);
}

static void use_graph(CUstream stream)
{
	CUgraph graph = NULL;
	CUgraphExec program = NULL;
	CUgraphNode *nodes = NEW(CUgraphNode, 3);
	size_t *count = NEW(size_t, 1);
	CUgraphNodeType *type = NEW(CUgraphNodeType, 1);
	static int data;

	cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
	cuMemsetD8Async(0x200000000000, 1, 16, stream);
	cuLaunchHostFunc(stream, count_call, &data);
	cuStreamEndCapture(stream, &graph);
	*count = 3;
	cuGraphGetNodes(graph, nodes, count);
	cuGraphNodeGetType(nodes[0], type);
	cuGraphInstantiateWithFlags(&program, graph, 0);
	cuGraphLaunch(program, stream);
	cuStreamSynchronize(stream);
	cuGraphExecDestroy(program);
	cuGraphDestroy(graph);
	free(nodes);
	free(count);
	free(type);
}

static void use_graph_by_hand(CUstream stream)
{
	static char host[BYTES]; /* a server may say too soon that a function is over which still brings it */
	CUcontext context = NULL;
	CUdeviceptr memory = 0;
	CUgraph graph = NULL;
	CUgraphExec program = NULL;
	CUgraphNode *nodes = NEW(CUgraphNode, 2);
	static int data;
	CUDA_HOST_NODE_PARAMS function = { count_call, &data };
	CUDA_MEMCPY3D copy = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
			       .dstMemoryType = CU_MEMORYTYPE_HOST,
			       .dstHost = host,
			       .WidthInBytes = 100,
			       .Height = 1,
			       .Depth = 1 };

	cuCtxGetCurrent(&context);
	cuMemAlloc_v2(&memory, BYTES);
	copy.srcDevice = memory;
	cuGraphCreate(&graph, 0);
	cuGraphAddMemcpyNode(&nodes[0], graph, NULL, 0, &copy, context);
	cuGraphAddHostNode(&nodes[1], graph, nodes, 1, &function);
	cuGraphHostNodeGetParams(nodes[1], &function);
	cuGraphMemcpyNodeGetParams(nodes[0], &copy);
	cuGraphHostNodeSetParams(nodes[1], &function);
	cuGraphMemcpyNodeSetParams(nodes[0], &copy);
	cuGraphInstantiateWithFlags(&program, graph, 0);
	cuGraphExecMemcpyNodeSetParams(program, nodes[0], &copy, context);
	cuGraphExecHostNodeSetParams(program, nodes[1], &function);
	cuGraphLaunch(program, stream);
	cuStreamSynchronize(stream);
	cuGraphExecDestroy(program);
	cuGraphDestroy(graph);
	cuMemFree_v2(memory);
	free(nodes);
}

static void *use_other_thread(void *context)
{
	cuCtxSetCurrent(context);
	use_memory(CU_STREAM_PER_THREAD);
	return NULL;
}

static void talk(void)
{
	static int data;
	CUcontext context = NULL, mine = NULL;
	CUstream stream = NULL;
	CUevent event = NULL;
	pthread_t thread;
	float time;

	cuInit(0);
	cuDevicePrimaryCtxRetain(&context, 0);
	cuCtxSetCurrent(context);
	use_devices();
	cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
	cuEventCreate(&event, 0);
	cuLaunchHostFunc(stream, count_call, &data);
	cuStreamAddCallback(stream, count_callback, &data, 0);
	cuEventRecord(event, stream);
	int threaded = !pthread_create(&thread, NULL, use_other_thread, context);
	use_memory(stream);
	use_code(stream);
	use_graph(stream);
	use_graph_by_hand(stream);
	cuEventSynchronize(event);
	cuEventElapsedTime(&time, event, event);
	if (threaded)
		pthread_join(thread, NULL);
	cuCtxCreate_v2(&mine, 0, 0);
	cuMemGetInfo_v2(&(size_t){ 0 }, &(size_t){ 0 });
	cuCtxDestroy_v2(mine);
	cuEventDestroy_v2(event);
	cuStreamDestroy_v2(stream);
	cuDevicePrimaryCtxRelease_v2(0);
}

/* ------------------------------------------------------------------ children */

static void report(pid_t child)
{
	int status;
	for (int left = LIMIT_MS; left > 0; left--) {
		if (waitpid(child, &status, WNOHANG) == child) {
			if (WIFSIGNALED(status))
				printf("signal %d\n", WTERMSIG(status));
			else
				printf("%d\n", WEXITSTATUS(status));
			return;
		}
		usleep(1000);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	printf("hang\n");
}

int main(int count, char **arguments)
{
	long times = count > 1 ? atol(arguments[1]) : 1;
	int starve = count > 2;

	setvbuf(stdout, NULL, _IOLBF, 0);
	dl_iterate_phdr(find_library, NULL);
	for (long i = 1; i <= times; i++) {
		pid_t child = fork();
		if (child == 0) {
			int nowhere = open("/dev/null", O_WRONLY);
			dup2(nowhere, 1); /* what a device prints, or the bytes that pass for it */
			dup2(nowhere, 2);
			atomic_store(&until_failure, starve ? i : 0);
			talk();
			exit(atomic_load(&failed));
		}
		report(child);
	}
	return 0;
}
