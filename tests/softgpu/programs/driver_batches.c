/* SPDX-License-Identifier: Apache-2.0
 *
 * Batches of copies and advice, nodes changed by one call for all kinds, and what answers that nothing happens.
 */
#include "program.h"

enum { COUNT = 5, BYTES = 4096 };

static CUstream stream;
static CUdeviceptr device, managed;

static void copies(void)
{
	static unsigned char from[COUNT][BYTES], to[COUNT][BYTES];
	CUmemcpyAttributes order = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
	CUdeviceptr up[2 * COUNT], down[2 * COUNT];
	size_t sizes[2 * COUNT], first = 0, failed = 99;
	int equal = 1;

	for (int i = 0; i < COUNT; i++) {
		memset(from[i], i + 1, BYTES);
		up[i] = (CUdeviceptr)(uintptr_t)from[i];
		down[i] = up[COUNT + i] = device + (size_t)i * BYTES;
		down[COUNT + i] = (CUdeviceptr)(uintptr_t)to[COUNT - 1 - i];
		sizes[i] = sizes[COUNT + i] = BYTES - (size_t)i;
	}
	CHECK(cuMemcpyBatchAsync_v2(down, up, sizes, 2 * COUNT, &order, &first, 1, stream));
	CHECK(cuStreamSynchronize(stream));
	for (int i = 0; i < COUNT; i++)
		equal &= !memcmp(from[i], to[COUNT - 1 - i], sizes[i]) && (!i || !to[COUNT - 1 - i][BYTES - 1]);
	printf("copied in order: %s\n", equal ? "yes" : "no");
	SHOW(cuMemcpyBatchAsync_v2(down, up, sizes, COUNT, &order, &first, 1, NULL));
	SHOW(cuMemcpyBatchAsync_v2(down, up, sizes, COUNT, &order, &first, 0, stream));
	sizes[3] = (size_t)1 << 40;
	SHOW(cuMemcpyBatchAsync(down, up, sizes, COUNT, &order, &first, 1, &failed, stream));
	printf("which: %zu\n", failed);
}

static void advice(void)
{
	CUmemLocation here = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0 };
	size_t size = BYTES, first = 0, sizes[2] = { sizeof(int), sizeof(int) };
	CUmem_range_attribute asked[] = { CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY,
					  CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION };
	int mostly = -1, preferred = -1;
	void *data[] = { &mostly, &preferred };

	SHOW(cuMemPrefetchBatchAsync(&managed, &size, 1, &here, &first, 1, 0, stream));
	SHOW(cuMemDiscardBatchAsync(&managed, &size, 1, 0, stream));
	SHOW(cuMemDiscardBatchAsync(&device, &size, 1, 0, stream));
	CHECK(cuMemAdvise_v2(managed, BYTES, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
	CHECK(cuMemRangeGetAttributes(data, sizes, asked, 2, managed, BYTES));
	printf("read mostly: %d, preferred: %s\n", mostly, preferred == CU_DEVICE_INVALID ? "nowhere" : "somewhere");
}

static void nodes(void)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMSET };
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode node;
	unsigned value = 0;

	params.memset.dst = device;
	params.memset.elementSize = 4;
	params.memset.width = params.memset.height = 1;
	params.memset.value = 1;
	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddNode_v2(&node, graph, NULL, NULL, 0, &params));
	params.memset.value = 2;
	CHECK(cuGraphNodeSetParams(node, &params));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (unsigned round = 0; round < 2; round++) {
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		CHECK(cuMemcpyDtoH_v2(&value, device, sizeof value));
		printf("the node wrote %u\n", value);
		params.memset.value = 3;
		CHECK(cuGraphExecNodeSetParams(exec, node, &params));
	}
	SHOW(cuGraphNodeSetParams(node, NULL));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
}

static void heard(CUlogLevel level, char *message, size_t length)
{
	printf("%d %.*s\n", (int)level, (int)length, message);
}

static void notes(void)
{
	CUmemLocation here = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0 };
	CUlogsCallbackHandle handle = NULL;
	CUlogIterator place = 7;
	CUmemoryPool pool = NULL, same = NULL;
	CUdevResource resource;
	CUgreenCtx green = (CUgreenCtx)&handle;
	char text[10] = "before";
	size_t size = sizeof text;

	CHECK(cuLogsRegisterCallback((CUlogsCallback)(uintptr_t)heard, NULL, &handle));
	CHECK(cuLogsCurrent(&place, 0));
	CHECK(cuLogsDumpToMemory(&place, text, &size, 0));
	printf("log: '%s', %zu bytes\n", text, size);
	CHECK(cuLogsUnregisterCallback(handle));
	SHOW(cuLogsUnregisterCallback(NULL));
	CHECK(cuMemGetDefaultMemPool(&pool, &here, CU_MEM_ALLOCATION_TYPE_PINNED));
	CHECK(cuDeviceGetDefaultMemPool(&same, 0));
	printf("the same pool: %s\n", pool == same ? "yes" : "no");
	SHOW(cuMemGetMemPool(&pool, &here, CU_MEM_ALLOCATION_TYPE_MANAGED));
	CHECK(cuCtxGetDevResource(NULL, &resource, CU_DEV_RESOURCE_TYPE_SM));
	printf("multiprocessors: %u\n", resource.sm.smCount);
	SHOW(cuCtxGetDevResource(NULL, &resource, CU_DEV_RESOURCE_TYPE_INVALID));
	CHECK(cuStreamGetGreenCtx(stream, &green));
	printf("green: %s\n", green ? "yes" : "no");
}

int main(void)
{
	open_device();
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemAlloc_v2(&device, (size_t)COUNT * BYTES));
	CHECK(cuMemAllocManaged(&managed, BYTES, CU_MEM_ATTACH_GLOBAL));
	copies();
	advice();
	nodes();
	notes();
	CHECK(cuMemFree_v2(managed));
	CHECK(cuMemFree_v2(device));
	return 0;
}
