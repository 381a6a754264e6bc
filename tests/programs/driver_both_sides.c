/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that the program and its kernels both use: mapped, managed, registered. Each side changes a part and finds
 * what the other one changed, after a wait of whatever kind.
 */
#include "program.h"

#include <pthread.h>

enum { COUNT = 4096, LARGE = 5 << 20 };

/* every(x, step, n): x[i] = 7 for each i below n that step divides, in bytes */
#define PTX_EVERY \
	".visible .entry every(.param .u64 x, .param .u32 step, .param .u32 n)\n{\n" PTX_REGISTERS \
	"    ld.param.u64 %d1, [x];\n    ld.param.u32 %r6, [step];\n    ld.param.u32 %r1, [n];\n" PTX_INDEX \
	"    mul.lo.u32 %r7, %r5, %r6;\n    setp.ge.u32 %p1, %r7, %r1;\n    @%p1 bra done;\n" \
	"    cvt.u64.u32 %d2, %r7;\n    cvta.to.global.u64 %d1, %d1;\n    add.u64 %d3, %d1, %d2;\n" \
	"    mov.u32 %r8, 7;\n    st.global.u8 [%d3], %r8;\ndone:\n    ret;\n}\n"

/* follow(list): adds 1 to the value of each of a list's nodes, which are a pointer to the next one and a value */
#define PTX_FOLLOW \
	".visible .entry follow(.param .u64 list)\n{\n" PTX_REGISTERS "    ld.param.u64 %d1, [list];\n" \
	"again:\n    setp.eq.u64 %p1, %d1, 0;\n    @%p1 bra done;\n    ld.u32 %r1, [%d1+8];\n" \
	"    add.u32 %r1, %r1, 1;\n    st.u32 [%d1+8], %r1;\n    ld.u64 %d1, [%d1];\n    bra again;\n" \
	"done:\n    ret;\n}\n"

struct node {
	struct node *next;
	unsigned value, unused;
};

static CUfunction scale, every, follow, until;

static void launch_scale(void *memory, unsigned factor, CUstream stream)
{
	unsigned n = COUNT;
	void *parameters[] = { &memory, &factor, &n };

	CHECK(cuLaunchKernel(scale, COUNT / 64, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
}

static void launch_every(void *memory, unsigned step, unsigned n, CUstream stream)
{
	void *parameters[] = { &memory, &step, &n };

	CHECK(cuLaunchKernel(every, (n / step + 64) / 64, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
}

static void launch_one(CUfunction function, void *memory, CUstream stream)
{
	void *parameters[] = { &memory };

	CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

static unsigned long sum(const void *memory, size_t size)
{
	const unsigned char *bytes = memory;
	unsigned long sum = 0;

	for (size_t i = 0; i < size; i++)
		sum = sum * 1000003 + bytes[i];
	return sum;
}

static void fill(unsigned *memory, unsigned with)
{
	for (unsigned i = 0; i < COUNT; i++)
		memory[i] = i * with;
}

static unsigned *managed(size_t size)
{
	CUdeviceptr address;

	CHECK(cuMemAllocManaged(&address, size, CU_MEM_ATTACH_GLOBAL));
	return (unsigned *)(size_t)address;
}

static void release_managed(void *memory)
{
	CHECK(cuMemFree_v2((CUdeviceptr)(size_t)memory));
}

/* ------------------------------------------------------------------ each kind, each wait */

static void waits(const char *kind, unsigned *memory, void *device)
{
	CUdeviceptr other;
	CUstream stream;
	CUevent event;
	unsigned last;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, 0));
	fill(memory, 3);
	launch_scale(device, 2, NULL);
	CHECK(cuCtxSynchronize());
	printf("%s, context: %lx\n", kind, sum(memory, COUNT * 4));
	memory[17] = 99;
	launch_scale(device, 5, stream);
	CHECK(cuStreamSynchronize(stream));
	printf("%s, stream: %lx %u\n", kind, sum(memory, COUNT * 4), memory[17]);
	memory[18] = 98;
	launch_scale(device, 5, stream);
	CHECK(cuEventRecord(event, stream));
	CHECK(cuEventSynchronize(event));
	printf("%s, event: %lx %u\n", kind, sum(memory, COUNT * 4), memory[18]);
	launch_scale(device, 3, stream);
	while (cuStreamQuery(stream) == CUDA_ERROR_NOT_READY)
		;
	printf("%s, question: %lx\n", kind, sum(memory, COUNT * 4));
	launch_scale(device, 9, NULL);
	CHECK(cuMemAlloc_v2(&other, 4));
	CHECK(cuMemsetD32_v2(other, 4, 1));
	CHECK(cuMemcpyDtoH_v2(&last, other, 4));
	printf("%s, copy: %lx %u\n", kind, sum(memory, COUNT * 4), last);
	CHECK(cuMemFree_v2(other));
	CHECK(cuEventDestroy_v2(event));
	CHECK(cuStreamDestroy_v2(stream));
}

static void every_kind(void)
{
	static unsigned own[COUNT];
	unsigned *memory;
	CUdeviceptr device;

	CHECK(cuMemHostAlloc((void **)&memory, COUNT * 4, CU_MEMHOSTALLOC_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, memory, 0));
	printf("one address: %s\n", device == (CUdeviceptr)(size_t)memory ? "yes" : "no");
	waits("mapped", memory, memory);
	CHECK(cuMemFreeHost(memory));
	CHECK(cuMemAllocHost_v2((void **)&memory, COUNT * 4));
	waits("pinned", memory, memory);
	CHECK(cuMemFreeHost(memory));
	memory = managed(COUNT * 4);
	waits("managed", memory, memory);
	release_managed(memory);
	CHECK(cuMemHostRegister_v2(own, sizeof own, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, own, 0));
	waits("registered", own, (void *)(size_t)device);
	CHECK(cuMemHostUnregister(own));
}

/* ------------------------------------------------------------------ parts of it, by both */

static void partial(unsigned char *memory)
{
	memset(memory, 1, COUNT);
	launch_every(memory, 2, COUNT, NULL);
	for (unsigned i = 1; i < COUNT; i += 2) /* while the kernel may be writing beside */
		memory[i] = (unsigned char)(i % 50);
	launch_every(memory, 101, COUNT, NULL);
	CHECK(cuCtxSynchronize());
	printf("parts: %lx, %d %d %d %d\n", sum(memory, COUNT), memory[0], memory[1], memory[2], memory[3]);
}

static void two_streams(unsigned *memory)
{
	unsigned *second = memory + COUNT;
	CUstream streams[2];

	for (int i = 0; i < 2; i++)
		CHECK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
	fill(memory, 1);
	fill(second, 2);
	launch_scale(memory, 2, streams[0]);
	launch_scale(second, 3, streams[1]);
	CHECK(cuStreamSynchronize(streams[0]));
	printf("first stream: %lx\n", sum(memory, COUNT * 4));
	CHECK(cuStreamSynchronize(streams[1]));
	printf("second stream: %lx\n", sum(second, COUNT * 4));
	for (int i = 0; i < 2; i++)
		CHECK(cuStreamDestroy_v2(streams[i]));
}

/* What is written is seen by work in any stream, also when other work runs for longer. */
static void beside_busy_stream(unsigned *memory)
{
	unsigned *flag = memory + 2 * COUNT;
	CUstream busy, other;

	CHECK(cuStreamCreate(&busy, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	*flag = 0;
	launch_one(until, flag, busy);
	fill(memory, 4);
	launch_scale(memory, 2, other);
	CHECK(cuStreamSynchronize(other));
	printf("beside a busy stream: %lx, %s\n", sum(memory, COUNT * 4), error_name(cuStreamQuery(busy)));
	*(volatile unsigned *)flag = 1;
	CHECK(cuStreamSynchronize(busy));
	CHECK(cuStreamDestroy_v2(busy));
	CHECK(cuStreamDestroy_v2(other));
}

static void pointers_inside(void)
{
	struct node *nodes = (struct node *)managed(100 * sizeof *nodes);
	unsigned total = 0;

	for (unsigned i = 0; i < 100; i++)
		nodes[i] = (struct node){ i < 99 ? &nodes[i + 1] : NULL, i, 0 };
	launch_one(follow, nodes, NULL);
	CHECK(cuStreamSynchronize(NULL));
	for (unsigned i = 0; i < 100; i++)
		total += nodes[i].value;
	printf("list: %u\n", total);
	release_managed(nodes);
}

struct reckoning {
	unsigned *memory;
	unsigned long found;
};

static void CUDA_CB between(void *data)
{
	struct reckoning *reckoning = data;

	reckoning->found = sum(reckoning->memory, COUNT * 4);
	fill(reckoning->memory, 13);
}

/* It is in its place between work that was all sent before. */
static void host_function(unsigned *memory)
{
	struct reckoning reckoning = { memory, 0 };
	CUstream stream;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	fill(memory, 11);
	launch_scale(memory, 2, stream);
	CHECK(cuLaunchHostFunc(stream, between, &reckoning));
	launch_scale(memory, 3, stream);
	CHECK(cuStreamSynchronize(stream));
	printf("host function: %lx, then %lx\n", reckoning.found, sum(memory, COUNT * 4));
	CHECK(cuStreamDestroy_v2(stream));
}

/* ------------------------------------------------------------------ copies and fills */

static void copies(unsigned *memory)
{
	static unsigned host[COUNT];
	CUDA_MEMCPY2D rows = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
			       .dstMemoryType = CU_MEMORYTYPE_HOST,
			       .dstHost = host,
			       .srcPitch = 256,
			       .dstPitch = 128,
			       .WidthInBytes = 128,
			       .Height = 20 };
	CUdeviceptr shared = (CUdeviceptr)(size_t)memory, device;

	CHECK(cuMemAlloc_v2(&device, COUNT * 4));
	fill(memory, 6);
	CHECK(cuMemcpyHtoDAsync_v2(device, memory, COUNT * 4, NULL));
	CHECK(cuMemcpyDtoH_v2(host, device, COUNT * 4));
	printf("from it: %lx\n", sum(host, COUNT * 4));
	CHECK(cuMemsetD32_v2(device, 77, COUNT));
	CHECK(cuMemcpyDtoHAsync_v2(memory, device, COUNT * 4, NULL));
	launch_scale(memory, 2, NULL); /* sees what the copy brings */
	CHECK(cuCtxSynchronize());
	printf("to it: %lx\n", sum(memory, COUNT * 4));
	fill(host, 8);
	CHECK(cuMemcpyHtoD_v2(shared, host, COUNT * 4));
	printf("from the host: %lx\n", sum(memory, COUNT * 4));
	CHECK(cuMemcpyDtoD_v2(shared, device, COUNT * 2));
	CHECK(cuCtxSynchronize());
	printf("from the device: %lx\n", sum(memory, COUNT * 4));
	memory[5] = 1;
	CHECK(cuMemsetD8_v2(shared + 64, 3, 640));
	printf("filled: %lx\n", sum(memory, COUNT * 4));
	memory[30] = 2;
	CHECK(cuMemcpy((CUdeviceptr)(size_t)host, shared, COUNT * 4));
	printf("unified: %lx\n", sum(host, COUNT * 4));
	rows.srcDevice = shared;
	CHECK(cuMemcpy2D_v2(&rows));
	printf("rows: %lx\n", sum(host, COUNT * 4));
	CHECK(cuMemFree_v2(device));
}

/* ------------------------------------------------------------------ graphs, size, and the end of it */

static void graph(unsigned *memory)
{
	CUgraphExec exec;
	CUstream stream;
	CUgraph graph;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	launch_scale(memory, 2, stream);
	launch_scale(memory, 3, stream);
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (unsigned i = 1; i < 4; i++) {
		fill(memory, i);
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		printf("graph: %lx\n", sum(memory, COUNT * 4));
	}
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuStreamDestroy_v2(stream));
}

static void large(void)
{
	unsigned char *memory = (unsigned char *)managed(LARGE);

	printf("new: %lx\n", sum(memory, LARGE));
	memset(memory, 5, LARGE);
	launch_every(memory, 4099, LARGE, NULL);
	CHECK(cuCtxSynchronize());
	printf("large: %lx\n", sum(memory, LARGE));
	release_managed(memory);
}

static void again_and_again(void)
{
	unsigned *memory[40];

	for (unsigned round = 0; round < 3; round++) {
		unsigned long found = 0;

		for (unsigned i = 0; i < LENGTH(memory); i++) {
			memory[i] = managed(COUNT * 4);
			found |= sum(memory[i], COUNT * 4); /* zeros */
			fill(memory[i], i);
			launch_scale(memory[i], 2, NULL);
		}
		CHECK(cuCtxSynchronize());
		for (unsigned i = 0; i < LENGTH(memory); i++)
			found = found * 3 + sum(memory[i], COUNT * 4);
		printf("round %u: %lx\n", round, found);
		for (unsigned i = round % 2; i < LENGTH(memory); i++)
			release_managed(memory[i]);
		if (round % 2)
			release_managed(memory[0]);
	}
}

/* ------------------------------------------------------------------ what it is */

static void questions(void)
{
	unsigned *memory = managed(COUNT * 4), type, is_managed;
	CUdeviceptr address = (CUdeviceptr)(size_t)memory, device;
	CUmemLocation first = { .type = CU_MEM_LOCATION_TYPE_DEVICE };
	int places[2] = { 5, 5 };
	void *host;

	CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address + 4));
	CHECK(cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address + 4));
	CHECK(cuPointerGetAttribute(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, address + 4));
	CHECK(cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address + 4));
	printf("type %u, managed %u, %s, %s\n", type, is_managed, host == memory + 1 ? "same host" : "other host",
	       device == address + 4 ? "same device" : "other device");
	SHOW(cuMemAdvise_v2(address, COUNT, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, first));
	SHOW(cuMemAdvise_v2(address, COUNT * 5, CU_MEM_ADVISE_SET_READ_MOSTLY, first));
	SHOW(cuMemPrefetchAsync_v2(address, COUNT, first, 0, NULL));
	SHOW(cuMemRangeGetAttribute(places, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, address, COUNT));
	SHOW(cuMemRangeGetAttribute(places + 1, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, COUNT));
	printf("preferred %d, read mostly %d\n", places[0], places[1]);
	SHOW(cuStreamAttachMemAsync(NULL, address, 0, CU_MEM_ATTACH_GLOBAL));
	SHOW(cuMemAllocManaged(&device, COUNT, 9));
	SHOW(cuMemHostGetDevicePointer_v2(&device, &type, 0));
	release_managed(memory);
	SHOW(cuMemFree_v2(address));
}

/* ------------------------------------------------------------------ threads */

static void *worker(void *context)
{
	unsigned *memory;
	unsigned long found = 0;
	CUstream stream;

	CHECK(cuCtxSetCurrent(context));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	memory = managed(COUNT * 4);
	for (unsigned i = 1; i < 20; i++) {
		fill(memory, i);
		launch_scale(memory, 2, stream);
		CHECK(cuStreamSynchronize(stream));
		found = found * 7 + sum(memory, COUNT * 4);
	}
	release_managed(memory);
	CHECK(cuStreamDestroy_v2(stream));
	return (void *)found;
}

static void threads(CUcontext context)
{
	pthread_t thread[4];
	void *found;

	for (unsigned i = 0; i < LENGTH(thread); i++)
		if (pthread_create(&thread[i], NULL, worker, context))
			exit(1);
	for (unsigned i = 0; i < LENGTH(thread); i++) {
		pthread_join(thread[i], &found);
		printf("thread: %lx\n", (unsigned long)found);
	}
}

int main(void)
{
	CUcontext context = open_device();
	CUmodule module;
	unsigned *memory;

	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE PTX_EVERY PTX_FOLLOW PTX_UNTIL));
	scale = get_function(module, "scale");
	every = get_function(module, "every");
	follow = get_function(module, "follow");
	until = get_function(module, "until");
	every_kind();
	CHECK(cuMemHostAlloc((void **)&memory, 3 * COUNT * 4, CU_MEMHOSTALLOC_DEVICEMAP));
	partial((unsigned char *)memory);
	two_streams(memory);
	beside_busy_stream(memory);
	host_function(memory);
	copies(memory);
	graph(memory);
	CHECK(cuMemFreeHost(memory));
	pointers_inside();
	large();
	again_and_again();
	questions();
	threads(context);
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
