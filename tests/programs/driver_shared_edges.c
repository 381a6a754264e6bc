/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that the program and its kernels both use, where the two sides could miss each other: waits that are not
 * called so, values that a stream writes or waits for, graphs, memory that goes away, contexts that end.
 */
#define _GNU_SOURCE
#include "program.h"

#include <stdint.h>
#include <sys/mman.h>

enum { COUNT = 4096, BYTES = COUNT * 4 };

static CUfunction scale;

static void launch_scale(CUdeviceptr memory, unsigned factor, CUstream stream)
{
	unsigned n = COUNT;
	void *parameters[] = { &memory, &factor, &n };

	CHECK(cuLaunchKernel(scale, COUNT / 64, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
}

static unsigned long sum(const unsigned *memory)
{
	unsigned long sum = 0;

	for (size_t i = 0; i < COUNT; i++)
		sum = sum * 1000003 + memory[i];
	return sum;
}

static void fill(unsigned *memory, unsigned with)
{
	for (unsigned i = 0; i < COUNT; i++)
		memory[i] = i * with;
}

static unsigned *pinned(void)
{
	unsigned *memory;

	CHECK(cuMemHostAlloc((void **)&memory, BYTES, CU_MEMHOSTALLOC_DEVICEMAP));
	return memory;
}

static CUdeviceptr address(const void *memory)
{
	return (CUdeviceptr)(uintptr_t)memory;
}

/* ------------------------------------------------------------------ waits that are not called so */

static void uploads_wait(unsigned *memory, CUdeviceptr other)
{
	static unsigned host[COUNT];
	CUDA_MEMCPY2D rows = { .srcMemoryType = CU_MEMORYTYPE_HOST,
			       .srcHost = host,
			       .srcPitch = 64,
			       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			       .dstDevice = other,
			       .dstPitch = 64,
			       .WidthInBytes = 32,
			       .Height = 8 };

	for (unsigned i = 1; i < 4; i++) {
		fill(memory, i);
		launch_scale(address(memory), 2, NULL);
		CHECK(cuMemcpyHtoD_v2(other, host, BYTES));
		printf("upload: %lx\n", sum(memory));
		launch_scale(address(memory), 3, NULL);
		CHECK(cuMemcpy2D_v2(&rows));
		printf("upload of rows: %lx\n", sum(memory));
	}
}

static void copies_on_the_host_wait(void)
{
	static unsigned own[COUNT], host[COUNT];
	CUdeviceptr device;

	CHECK(cuMemHostRegister_v2(own, sizeof own, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, own, 0));
	fill(own, 3);
	launch_scale(device, 5, NULL);
	CHECK(cuMemcpy(address(host), address(own), BYTES));
	printf("copied on the host: %lx\n", sum(host));
	CHECK(cuMemHostUnregister(own));
}

/* ------------------------------------------------------------------ values in a stream */

static void values(void)
{
	unsigned *memory = pinned();
	CUstreamBatchMemOpParams two[2] = {
		{ .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_32,
				  .address = address(memory + 2),
				  .value = 8 } },
		{ .waitValue = { .operation = CU_STREAM_MEM_OP_WAIT_VALUE_32,
				 .address = address(memory + 3),
				 .value = 4,
				 .flags = CU_STREAM_WAIT_VALUE_EQ } },
	};
	CUstream stream;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamWriteValue32_v2(stream, address(memory), 7, 0));
	CHECK(cuStreamSynchronize(stream));
	printf("written: %u\n", memory[0]);
	memory[1] = 5;
	CHECK(cuStreamWaitValue32_v2(stream, address(memory + 1), 5, CU_STREAM_WAIT_VALUE_EQ));
	CHECK(cuStreamWriteValue64_v2(stream, address(memory + 4), 6, 0));
	CHECK(cuStreamSynchronize(stream));
	printf("awaited: %u %u\n", memory[4], memory[5]);
	memory[3] = 4;
	CHECK(cuStreamBatchMemOp_v2(stream, 2, two, 0));
	CHECK(cuStreamSynchronize(stream));
	printf("both: %u\n", memory[2]);
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuMemFreeHost(memory));
}

/* ------------------------------------------------------------------ graphs */

static CUgraphExec capture_upload(CUdeviceptr to, const unsigned *from, CUstream stream)
{
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	CHECK(cuMemcpyHtoDAsync_v2(to, from, BYTES, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	return exec;
}

/* The graph is older than the first kernel that gets the memory it reads. */
static void graph_reads_what_a_kernel_wrote(CUdeviceptr device, CUstream stream)
{
	static unsigned host[COUNT];
	unsigned *memory = pinned();
	CUgraphExec exec = capture_upload(device, memory, stream);

	fill(memory, 9);
	launch_scale(address(memory), 2, stream);
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuMemcpyDtoHAsync_v2(host, device, BYTES, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("graph reads: %lx\n", sum(host));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuMemFreeHost(memory));
}

struct reckoning {
	unsigned *memory;
	unsigned long found;
};

static void CUDA_CB look(void *data)
{
	struct reckoning *reckoning = data;

	reckoning->found = reckoning->found * 31 + sum(reckoning->memory);
	reckoning->memory[1]++;
}

static void function_in_a_graph(CUstream stream)
{
	struct reckoning reckoning = { pinned(), 0 };
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	launch_scale(address(reckoning.memory), 2, stream);
	CHECK(cuLaunchHostFunc(stream, look, &reckoning));
	launch_scale(address(reckoning.memory), 3, stream);
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (unsigned i = 0; i < 20; i++) {
		fill(reckoning.memory, i);
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		reckoning.found = reckoning.found * 31 + sum(reckoning.memory);
	}
	printf("function in a graph: %lx\n", reckoning.found);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuMemFreeHost(reckoning.memory));
}

/* Memory may come and go while a stream is being captured. */
static void free_in_a_capture(CUstream stream)
{
	unsigned *memory = pinned(), *second;
	CUdeviceptr managed;
	CUgraphExec exec;
	CUgraph graph;

	fill(memory, 5);
	CHECK(cuMemAllocManaged(&managed, BYTES, CU_MEM_ATTACH_GLOBAL));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	launch_scale(address(memory), 2, stream);
	CHECK(cuMemFree_v2(managed));
	second = pinned();
	launch_scale(address(memory), 2, stream);
	CHECK(cuMemFreeHost(second));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("freed in a capture: %lx\n", sum(memory));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuMemFreeHost(memory));
}

/* ------------------------------------------------------------------ memory that goes away */

static unsigned *map(void)
{
	unsigned *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		exit(1);
	return memory;
}

/* Registered memory is the program's: it may be gone, or closed, before anybody says so. */
static void gone(const char *how, unsigned *memory, unsigned *witness)
{
	CUdeviceptr device;

	CHECK(cuMemHostRegister_v2(memory, BYTES, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, memory, 0));
	fill(memory, 2);
	fill(witness, 7);
	launch_scale(device, 2, NULL);
	CHECK(cuCtxSynchronize());
	printf("%s, before: %lx\n", how, sum(memory));
	if (mprotect(memory, BYTES, PROT_NONE) || (*how == 'u' && munmap(memory, BYTES)))
		exit(1);
	launch_scale(address(witness), 2, NULL);
	CHECK(cuCtxSynchronize());
	printf("%s, after: %lx\n", how, sum(witness));
	if (*how == 'u')
		return;
	if (mprotect(memory, BYTES, PROT_READ | PROT_WRITE))
		exit(1);
	launch_scale(device, 2, NULL);
	CHECK(cuCtxSynchronize());
	printf("%s, open again: %lx\n", how, sum(memory));
}

static void memory_goes_away(void)
{
	unsigned *witness = pinned(), *memory = map();

	gone("closed", memory, witness);
	CHECK(cuMemHostUnregister(memory));
	gone("unmapped", memory, witness);
	CHECK(cuMemHostUnregister(memory));
	CHECK(cuMemFreeHost(witness));
}

/* ------------------------------------------------------------------ contexts */

static void contexts(CUcontext first, CUmodule *module, const char *image)
{
	unsigned *memory = pinned();
	CUcontext second;

	fill(memory, 3);
	CHECK(cuCtxCreate_v2(&second, 0, 0));
	CHECK(cuModuleLoadData(module, image));
	scale = get_function(*module, "scale");
	launch_scale(address(memory), 2, NULL); /* the second context has seen it first */
	CHECK(cuCtxSynchronize());
	printf("second context: %lx\n", sum(memory));
	launch_scale(address(memory), 2, NULL);
	CHECK(cuCtxSynchronize());
	CHECK(cuCtxDestroy_v2(second));
	printf("its end: %lx\n", sum(memory));
	CHECK(cuCtxSetCurrent(first));
	CHECK(cuModuleLoadData(module, image));
	scale = get_function(*module, "scale");
	launch_scale(address(memory), 2, NULL);
	CHECK(cuCtxSynchronize());
	printf("first context: %lx\n", sum(memory));
	CHECK(cuMemFreeHost(memory));
}

int main(void)
{
	static const char image[] = PTX_HEADER PTX_SCALE;
	CUcontext context = open_device();
	CUdeviceptr device, managed;
	CUmodule module;
	CUstream stream;

	CHECK(cuModuleLoadData(&module, image));
	scale = get_function(module, "scale");
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemAlloc_v2(&device, BYTES));
	CHECK(cuMemAllocManaged(&managed, BYTES, CU_MEM_ATTACH_GLOBAL));
	uploads_wait((unsigned *)(uintptr_t)managed, device);
	CHECK(cuMemFree_v2(managed));
	copies_on_the_host_wait();
	values();
	graph_reads_what_a_kernel_wrote(device, stream);
	function_in_a_graph(stream);
	free_in_a_capture(stream);
	memory_goes_away();
	contexts(context, &module, image);
	CHECK(cuMemFree_v2(device));
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
