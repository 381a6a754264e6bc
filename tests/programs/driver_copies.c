/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies and fills of one, two and three dimensions, from and to pinned and other memory.
 */
#include "program.h"

enum { WIDTH = 37, HEIGHT = 11, DEPTH = 5, PITCH = 64, LINE = 1 << 16 };

static unsigned char source[DEPTH * HEIGHT * PITCH], target[DEPTH * HEIGHT * PITCH];

static void lines(CUdeviceptr x)
{
	static unsigned char up[LINE], down[LINE];
	CUstream stream;
	int wrong = 0;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	for (int i = 0; i < LINE; i++)
		up[i] = (unsigned char)(i * 13);
	CHECK(cuMemcpyHtoDAsync_v2(x, up, LINE, stream));
	memset(up, 0, 100); /* it was captured when the call returned */
	CHECK(cuMemcpyDtoDAsync_v2(x + LINE, x + 7, LINE - 7, stream));
	CHECK(cuMemcpyDtoHAsync_v2(down, x + LINE, LINE - 7, stream));
	CHECK(cuStreamSynchronize(stream));
	for (int i = 0; i < LINE - 7; i++)
		wrong += down[i] != (unsigned char)((i + 7) * 13);
	printf("lines: %d wrong\n", wrong);
	CHECK(cuMemcpy((CUdeviceptr)(size_t)up, x, LINE));
	CHECK(cuMemcpy(x + LINE, (CUdeviceptr)(size_t)up, LINE));
	CHECK(cuMemcpy(x, x + LINE, LINE));
	CHECK(cuMemcpy((CUdeviceptr)(size_t)down, x, LINE));
	printf("by unified addresses: %s\n", memcmp(up, down, LINE) ? "different" : "the same");
	CHECK(cuMemcpyHtoD_v2(x, up, 0));
	SHOW(cuMemcpyHtoD_v2(x, up, (size_t)LINE << 20));
	SHOW(cuMemcpyDtoH_v2(down, 16, 4));
	SHOW(cuMemcpyDtoDAsync_v2(x, 16, 4, stream));
	CHECK(cuStreamDestroy_v2(stream));
}

static void planes(CUdeviceptr x)
{
	int wrong = 0;
	CUDA_MEMCPY2D up = { .srcMemoryType = CU_MEMORYTYPE_HOST,
			     .srcHost = source,
			     .srcPitch = PITCH,
			     .srcXInBytes = 3,
			     .srcY = 2,
			     .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			     .dstDevice = x,
			     .dstPitch = 128,
			     .dstXInBytes = 1,
			     .dstY = 4,
			     .WidthInBytes = WIDTH,
			     .Height = HEIGHT - 2 };
	CUDA_MEMCPY2D down = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
			       .srcDevice = x,
			       .srcPitch = 128,
			       .srcXInBytes = 1,
			       .srcY = 4,
			       .dstMemoryType = CU_MEMORYTYPE_HOST,
			       .dstHost = target,
			       .dstPitch = PITCH,
			       .WidthInBytes = WIDTH,
			       .Height = HEIGHT - 2 };

	memset(target, 0, sizeof target);
	CHECK(cuMemcpy2D_v2(&up));
	CHECK(cuMemcpy2D_v2(&down));
	for (int y = 0; y < HEIGHT - 2; y++)
		for (int i = 0; i < PITCH; i++)
			wrong += target[y * PITCH + i] != (i < WIDTH ? source[(y + 2) * PITCH + i + 3] : 0);
	printf("planes: %d wrong\n", wrong);
	down.dstPitch = WIDTH - 1;
	SHOW(cuMemcpy2D_v2(&down));
}

static void boxes(CUdeviceptr x)
{
	int wrong = 0;
	CUDA_MEMCPY3D up = { .srcMemoryType = CU_MEMORYTYPE_HOST,
			     .srcHost = source,
			     .srcPitch = PITCH,
			     .srcHeight = HEIGHT,
			     .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			     .dstDevice = x,
			     .dstPitch = 256,
			     .dstHeight = 16,
			     .dstXInBytes = 5,
			     .dstY = 1,
			     .dstZ = 2,
			     .WidthInBytes = WIDTH,
			     .Height = HEIGHT,
			     .Depth = DEPTH };
	CUDA_MEMCPY3D down = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
			       .srcDevice = x,
			       .srcPitch = 256,
			       .srcHeight = 16,
			       .srcXInBytes = 5,
			       .srcY = 1,
			       .srcZ = 2,
			       .dstMemoryType = CU_MEMORYTYPE_HOST,
			       .dstHost = target,
			       .dstPitch = PITCH,
			       .dstHeight = HEIGHT,
			       .WidthInBytes = WIDTH,
			       .Height = HEIGHT,
			       .Depth = DEPTH };

	memset(target, 0, sizeof target);
	CHECK(cuMemcpy3D_v2(&up));
	CHECK(cuMemcpy3DAsync_v2(&down, NULL));
	CHECK(cuStreamSynchronize(NULL));
	for (int i = 0; i < DEPTH * HEIGHT * PITCH; i++)
		wrong += target[i] != (i % PITCH < WIDTH ? source[i] : 0);
	printf("boxes: %d wrong\n", wrong);
}

static void fills(CUdeviceptr x)
{
	static unsigned words[64];
	static unsigned short halves[64];
	int wrong = 0;

	CHECK(cuMemsetD8_v2(x, 0, 4096));
	CHECK(cuMemsetD32_v2(x + 4, 0xdeadbeef, 3));
	CHECK(cuMemcpyDtoH_v2(words, x, 32));
	printf("words: %x %x %x %x %x\n", words[0], words[1], words[2], words[3], words[4]);
	CHECK(cuMemsetD16Async(x, 0xabcd, 5, NULL));
	CHECK(cuMemcpyDtoH_v2(halves, x, 16));
	printf("halves: %x %x %x\n", halves[0], halves[4], halves[5]);
	CHECK(cuMemsetD2D8_v2(x, 16, 0x11, 3, 4));
	CHECK(cuMemcpyDtoH_v2(target, x, 64));
	for (int i = 0; i < 64; i++)
		wrong += i % 16 < 3 && target[i] != 0x11;
	printf("a plane of bytes: %d wrong, beside it %x\n", wrong, target[19]);
	SHOW(cuMemsetD32_v2(x + 2, 0, 1));
	SHOW(cuMemsetD8_v2(16, 0, 1));
}

static void registered(CUdeviceptr x)
{
	static unsigned char memory[3 * 4096] __attribute__((aligned(4096)));
	CUstream stream;
	int wrong = 0;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemHostRegister_v2(memory, sizeof memory, CU_MEMHOSTREGISTER_PORTABLE));
	SHOW(cuMemHostRegister_v2(memory, sizeof memory, 0));
	for (size_t i = 0; i < sizeof memory; i++)
		memory[i] = (unsigned char)(i * 3);
	CHECK(cuMemcpyHtoDAsync_v2(x, memory, sizeof memory, stream));
	CHECK(cuStreamSynchronize(stream));
	memset(memory, 0, sizeof memory);
	CHECK(cuMemcpyDtoHAsync_v2(memory, x, sizeof memory, stream));
	CHECK(cuStreamSynchronize(stream));
	for (size_t i = 0; i < sizeof memory; i++)
		wrong += memory[i] != (unsigned char)(i * 3);
	printf("registered memory: %d wrong\n", wrong);
	CHECK(cuMemHostUnregister(memory));
	SHOW(cuMemHostUnregister(memory));
	CHECK(cuStreamDestroy_v2(stream));
}

int main(void)
{
	CUdeviceptr x;

	open_device();
	for (size_t i = 0; i < sizeof source; i++)
		source[i] = (unsigned char)(i * 31 + i / 256);
	CHECK(cuMemAlloc_v2(&x, 1 << 20));
	lines(x);
	planes(x);
	boxes(x);
	fills(x);
	registered(x);
	CHECK(cuMemFree_v2(x));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
