/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between two GPUs, and between two contexts where there is one GPU. Those that are not asynchronous come
 * behind all work of both, and all later work of both comes behind them, whichever of the two is current.
 */
#include "program.h"

enum { ROUNDS = 100000, TURNS = 20, SIZE = 64 << 10, WORDS = SIZE / 4, ROW = 256 };

static struct side {
	CUcontext context;
	CUfunction work;
	CUstream streams[2]; /* the default one, and one that does not block with it */
	CUdeviceptr memory;
} sides[2];

static unsigned host[WORDS];

static void use(int side)
{
	CHECK(cuCtxSetCurrent(sides[side].context));
}

static void open_side(int index)
{
	struct side *side = &sides[index];
	CUmodule module;
	int count;

	CHECK(cuDeviceGetCount(&count));
	if (index && count < 2)
		CHECK(cuCtxCreate_v2(&side->context, 0, 0));
	else
		CHECK(cuDevicePrimaryCtxRetain(&side->context, index));
	use(index);
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_WORK));
	side->work = get_function(module, "work");
	CHECK(cuStreamCreate(&side->streams[1], CU_STREAM_NON_BLOCKING));
	CHECK(cuMemAlloc_v2(&side->memory, SIZE));
}

/* After some time it adds 1 to the first word. */
static void launch(int side, int stream, unsigned rounds)
{
	void *parameters[] = { &sides[side].memory, &rounds };

	use(side);
	CHECK(cuLaunchKernel(sides[side].work, 1, 1, 1, 1, 1, 1, 0, sides[side].streams[stream], parameters, NULL));
}

static void keep_busy(int side, int stream)
{
	launch(side, stream, ROUNDS);
}

static void fill(int side, unsigned value)
{
	use(side);
	CHECK(cuMemsetD32_v2(sides[side].memory, value, WORDS));
	CHECK(cuCtxSynchronize());
}

static unsigned first_word(int side)
{
	unsigned word = 0;

	use(side);
	CHECK(cuMemcpyDtoH_v2(&word, sides[side].memory, sizeof word));
	return word;
}

/* ------------------------------------------------------------------ from side 0 to side 1 */

static void copy_peer(void)
{
	CHECK(cuMemcpyPeer(sides[1].memory, sides[1].context, sides[0].memory, sides[0].context, SIZE));
}

static void copy_device_to_device(void)
{
	CHECK(cuMemcpyDtoD_v2(sides[1].memory, sides[0].memory, SIZE));
}

static void copy_unified(void)
{
	CHECK(cuMemcpy(sides[1].memory, sides[0].memory, SIZE));
}

static void copy_plane(void)
{
	CUDA_MEMCPY2D plane = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
				.srcDevice = sides[0].memory,
				.srcPitch = ROW,
				.dstMemoryType = CU_MEMORYTYPE_DEVICE,
				.dstDevice = sides[1].memory,
				.dstPitch = ROW,
				.WidthInBytes = ROW,
				.Height = SIZE / ROW };

	CHECK(cuMemcpy2D_v2(&plane));
}

static void copy_box(void)
{
	CUDA_MEMCPY3D box = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
			      .srcDevice = sides[0].memory,
			      .srcPitch = ROW,
			      .srcHeight = SIZE / ROW / 4,
			      .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
			      .dstDevice = sides[1].memory,
			      .dstPitch = ROW,
			      .dstHeight = SIZE / ROW / 4,
			      .WidthInBytes = ROW,
			      .Height = SIZE / ROW / 4,
			      .Depth = 4 };

	CHECK(cuMemcpy3D_v2(&box));
}

/* Each with the other side current. */
static void copy_by_the_host(void)
{
	use(1);
	CHECK(cuMemcpyDtoH_v2(host, sides[0].memory, SIZE));
	use(0);
	CHECK(cuMemcpyHtoD_v2(sides[1].memory, host, SIZE));
}

static const struct {
	const char *name;
	void (*copy)(void);
} ways[] = { { "peer", copy_peer },       { "device to device", copy_device_to_device },
	     { "unified", copy_unified }, { "plane", copy_plane },
	     { "box", copy_box },         { "by the host", copy_by_the_host } };

/* ------------------------------------------------------------------ what is pending meanwhile */

static int source_is_busy(void (*copy)(void), int current, int stream)
{
	fill(0, 10);
	fill(1, 20);
	keep_busy(0, stream);
	use(current);
	copy();
	return first_word(1) != 11;
}

static int target_is_busy(void (*copy)(void), int current, int stream)
{
	fill(0, 10);
	fill(1, 20);
	keep_busy(1, stream);
	use(current);
	copy();
	keep_busy(1, !stream);
	use(1);
	CHECK(cuCtxSynchronize());
	return first_word(1) != 11;
}

static void try_all(const char *what, int (*is_wrong)(void (*)(void), int, int))
{
	for (unsigned i = 0; i < LENGTH(ways); i++) {
		int wrong = 0;

		for (int current = 0; current < 2; current++)
			for (int stream = 0; stream < 2; stream++)
				wrong += is_wrong(ways[i].copy, current, stream);
		printf("%s, %s: %d of 4 wrong\n", ways[i].name, what, wrong);
	}
}

/* Those that are asynchronous come behind what their stream has. */
static void in_a_stream(int current, int stream)
{
	CUstream own = sides[current].streams[stream];

	fill(0, 10);
	fill(1, 20);
	keep_busy(current, stream);
	if (current == 0)
		CHECK(cuMemcpyPeerAsync(sides[1].memory, sides[1].context, sides[0].memory, sides[0].context, SIZE,
					own));
	else
		CHECK(cuMemcpyDtoDAsync_v2(sides[0].memory, sides[1].memory, SIZE, own));
	CHECK(cuStreamSynchronize(own));
	printf("in stream %d of side %d: %u %u\n", stream, current, first_word(0), first_word(1));
}

/* Of four launches, which nothing is waited for between, each is one of its own side. */
static void take_turns(void)
{
	for (int side = 0; side < 2; side++)
		fill(side, 0);
	for (int turn = 0; turn < TURNS; turn++) {
		for (int i = 0; i < 4; i++)
			launch(i % 2, turn % 2, 0);
		for (int side = 0; side < 2; side++) {
			use(side);
			CHECK(cuCtxSynchronize());
		}
	}
	printf("in turns: %u %u\n", first_word(0), first_word(1));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(cuInit(0));
	for (int i = 0; i < 2; i++)
		open_side(i);
	try_all("the source is busy", source_is_busy);
	try_all("the target is busy", target_is_busy);
	for (int current = 0; current < 2; current++)
		for (int stream = 0; stream < 2; stream++)
			in_a_stream(current, stream);
	take_turns();
	SHOW(cuMemcpyPeer(sides[1].memory, sides[1].context, sides[0].memory, NULL, SIZE));
	SHOW(cuMemcpyPeer(sides[1].memory, sides[1].context, sides[0].memory, sides[0].context, SIZE + 1));
	return 0;
}
