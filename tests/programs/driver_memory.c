/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocations: what they cost, what is known of an address, what happens when there is no more.
 */
#include "program.h"

enum { MANY = 300 };

static size_t free_bytes(void)
{
	size_t free, total;

	CHECK(cuMemGetInfo_v2(&free, &total));
	return free;
}

static void count_bytes(void)
{
	size_t before = free_bytes(), total, by_device;
	CUdeviceptr block;

	CHECK(cuMemGetInfo_v2(&by_device, &total));
	CHECK(cuDeviceTotalMem_v2(&by_device, 0));
	printf("totals agree: %s\n", total == by_device ? "yes" : "no");
	CHECK(cuMemAlloc_v2(&block, 32 << 20));
	printf("taken: at least what was asked for: %s, at most 2 MiB more: %s\n",
	       before - free_bytes() >= 32 << 20 ? "yes" : "no", before - free_bytes() <= 34 << 20 ? "yes" : "no");
	CHECK(cuMemFree_v2(block));
	printf("all back: %s\n", free_bytes() == before ? "yes" : "no");
	SHOW(cuMemFree_v2(block));
	SHOW(cuMemFree_v2(0));
	SHOW(cuMemAlloc_v2(&block, 0));
	SHOW(cuMemAlloc_v2(NULL, 16));
	SHOW(cuMemAlloc_v2(&block, total + 1));
	SHOW(cuMemAlloc_v2(&block, SIZE_MAX - 4096));
	printf("still all there: %s\n", free_bytes() == before ? "yes" : "no");
}

/* In an order that leaves holes, which later ones must fill. */
static void many_blocks(void)
{
	static CUdeviceptr blocks[MANY];
	static unsigned char host[4096];
	size_t before = free_bytes();
	int overlaps = 0, misaligned = 0, wrong = 0;

	for (int round = 0; round < 3; round++) {
		for (int i = round; i < MANY; i += round + 1) {
			size_t size = (size_t)(i * 37 % 4000 + 1);

			if (blocks[i])
				CHECK(cuMemFree_v2(blocks[i]));
			CHECK(cuMemAlloc_v2(&blocks[i], size));
			CHECK(cuMemsetD8_v2(blocks[i], (unsigned char)i, size));
			misaligned += blocks[i] % 256 != 0;
		}
	}
	for (int i = 0; i < MANY; i++) {
		size_t size = (size_t)(i * 37 % 4000 + 1);

		for (int j = 0; j < i; j++)
			overlaps += blocks[j] < blocks[i] + size && blocks[i] < blocks[j] + (size_t)(j * 37 % 4000 + 1);
		CHECK(cuMemcpyDtoH_v2(host, blocks[i], size));
		for (size_t k = 0; k < size; k++)
			wrong += host[k] != (unsigned char)i;
	}
	for (int i = 0; i < MANY; i++)
		CHECK(cuMemFree_v2(blocks[(i * 7) % MANY]));
	printf("many blocks: %d overlap, %d misaligned, %d wrong, all back: %s\n", overlaps, misaligned, wrong,
	       free_bytes() == before ? "yes" : "no");
}

static void fill_memory(void)
{
	static CUdeviceptr blocks[4096];
	size_t total, free, size;
	unsigned count = 0;

	CHECK(cuMemGetInfo_v2(&free, &total));
	size = total / 64;
	while (count < LENGTH(blocks) && cuMemAlloc_v2(&blocks[count], size) == CUDA_SUCCESS)
		count++;
	printf("64ths that fit: %s\n", count >= 60 && count <= 64 ? "nearly all" : "not as many as there should");
	SHOW(cuMemAlloc_v2(&blocks[count], size));
	while (count)
		CHECK(cuMemFree_v2(blocks[--count]));
	printf("after that, free: %s\n", free_bytes() == free ? "the same" : "less");
}

static void ask_addresses(void)
{
	CUdeviceptr block, pitched, base;
	size_t size, pitch;
	unsigned type = 0;
	int managed = -1, ordinal = -1, host_value = 0;
	void *pinned, *plain = &host_value;
	CUpointer_attribute names[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
					CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL };
	void *values[] = { &type, &managed, &ordinal };

	CHECK(cuMemAlloc_v2(&block, 10000));
	CHECK(cuMemGetAddressRange_v2(&base, &size, block + 5000));
	printf("range: %s, %s\n", base == block ? "its beginning" : "elsewhere",
	       size == 10000 ? "its size" : "another size");
	CHECK(cuPointerGetAttributes(LENGTH(names), names, values, block + 9999));
	printf("device memory: type %u, managed %d, ordinal %d\n", type, managed, ordinal);
	CHECK(cuMemHostAlloc(&pinned, 4096, 0));
	CHECK(cuPointerGetAttributes(LENGTH(names), names, values, (CUdeviceptr)(size_t)pinned));
	printf("pinned memory: type %u, managed %d\n", type, managed);
	CHECK(cuPointerGetAttributes(LENGTH(names), names, values, (CUdeviceptr)(size_t)plain));
	printf("other memory: type %u, managed %d\n", type, managed);
	SHOW(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(size_t)plain));
	SHOW(cuMemGetAddressRange_v2(&base, &size, (CUdeviceptr)(size_t)plain));
	CHECK(cuMemAllocPitch_v2(&pitched, &pitch, 1000, 7, 4));
	printf("pitch: %s\n", pitch >= 1000 && pitch % 128 == 0 ? "good" : "bad");
	SHOW(cuMemAllocPitch_v2(&base, &pitch, 1000, 7, 5));
	CHECK(cuMemFree_v2(pitched));
	CHECK(cuMemFreeHost(pinned));
	SHOW(cuMemFreeHost(pinned));
	CHECK(cuMemFree_v2(block));
	SHOW(cuMemGetAddressRange_v2(&base, &size, block));
}

int main(void)
{
	open_device();
	count_bytes();
	many_blocks();
	fill_memory();
	ask_addresses();
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
