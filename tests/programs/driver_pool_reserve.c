/* SPDX-License-Identifier: Apache-2.0
 *
 * What a pool keeps of what was freed: up to its release threshold, beyond that until the next call that waits.
 */
#include "program.h"

#define MIB ((cuuint64_t)1 << 20)

static CUmemoryPool pool;
static CUstream stream;

static cuuint64_t attribute(CUmemPool_attribute which)
{
	cuuint64_t value;

	CHECK(cuMemPoolGetAttribute(pool, which, &value));
	return value;
}

static void show(const char *when)
{
	cuuint64_t used = attribute(CU_MEMPOOL_ATTR_USED_MEM_CURRENT),
		   reserved = attribute(CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);

	printf("%s: uses %llu MiB, %s\n", when, (unsigned long long)(used / MIB),
	       !reserved                 ? "has nothing"
	       : reserved < 64 * MIB     ? "has less than 64 MiB"
	       : reserved < 64 * MIB * 2 ? "has 64 MiB"
					 : "has more");
}

static void keep_up_to(cuuint64_t threshold)
{
	CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
}

static void take_and_free(void)
{
	CUdeviceptr memory;

	CHECK(cuMemAllocAsync(&memory, 64 * MIB, stream));
	CHECK(cuMemFreeAsync(memory, stream));
	CHECK(cuStreamSynchronize(stream));
}

int main(void)
{
	size_t before, after, total;

	open_device();
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuDeviceGetDefaultMemPool(&pool, 0));
	take_and_free();
	show("by default");
	CHECK(cuMemGetInfo_v2(&before, &total));
	keep_up_to(UINT64_MAX);
	take_and_free();
	show("told to keep all");
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("that is not free: %d\n", before - after >= 64 * MIB);
	take_and_free();
	show("taken from that");
	CHECK(cuMemPoolTrimTo(pool, 64 * MIB));
	show("trimmed to that");
	CHECK(cuMemPoolTrimTo(pool, 0));
	show("trimmed");
	take_and_free();
	keep_up_to(0);
	CHECK(cuCtxSynchronize());
	show("told to keep nothing");
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all back: %d\n", before == after);
	return 0;
}
