/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of arrays: taken, given back one by one and with a context, and, with `fill` as argument, as much of it
 * as there is.
 */
#include "program.h"

enum { MOST = 4096 };

static size_t free_memory(void)
{
	size_t free, total;

	CHECK(cuMemGetInfo_v2(&free, &total));
	return free;
}

/* 16 MiB */
static CUresult make(CUarray *array)
{
	const CUDA_ARRAY3D_DESCRIPTOR shape = {
		.Width = 1024, .Height = 1024, .Depth = 2, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 2
	};

	return cuArray3DCreate_v2(array, &shape);
}

/* 4 MiB and a third of that */
static CUresult make_levels(CUmipmappedArray *mipmap)
{
	const CUDA_ARRAY3D_DESCRIPTOR shape = {
		.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1
	};

	return cuMipmappedArrayCreate(mipmap, &shape, 20);
}

static void fill(void)
{
	static CUarray arrays[MOST];
	static CUmipmappedArray mipmaps[MOST];
	const size_t before = free_memory();
	CUresult status = CUDA_SUCCESS;
	unsigned count = 0, levels = 0;

	while (count < MOST && (status = make(&arrays[count])) == CUDA_SUCCESS)
		count++;
	printf("got %u MiB, error %s\n", 16 * count, error_name(status));
	while (levels < MOST && (status = make_levels(&mipmaps[levels])) == CUDA_SUCCESS)
		levels++;
	printf("and %u with levels, error %s\n", levels, error_name(status));
	for (unsigned i = 0; i < count; i++)
		CHECK(cuArrayDestroy(arrays[i]));
	for (unsigned i = 0; i < levels; i++)
		CHECK(cuMipmappedArrayDestroy(mipmaps[i]));
	printf("all given back: %d\n", free_memory() == before);
}

static void leave_behind(void)
{
	const CUDA_TEXTURE_DESC sampler = { .flags = CU_TRSF_NORMALIZED_COORDINATES };
	CUDA_RESOURCE_DESC resource = { .resType = CU_RESOURCE_TYPE_ARRAY };
	CUmipmappedArray mipmap;
	CUtexObject texture;
	CUarray array, level;

	CHECK(make(&array));
	CHECK(make_levels(&mipmap));
	CHECK(cuMipmappedArrayGetLevel(&level, mipmap, 1));
	resource.res.array.hArray = array;
	CHECK(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
}

int main(int argc, char **argv)
{
	CUcontext context = open_device(), created;
	const size_t before = free_memory();
	CUmipmappedArray mipmap;
	CUarray array, level, same;

	if (argc > 1) {
		fill();
		return 0;
	}
	CHECK(make(&array));
	CHECK(make_levels(&mipmap));
	printf("taken: %zu MiB\n", (before - free_memory()) >> 20);
	CHECK(cuMipmappedArrayGetLevel(&level, mipmap, 1));
	CHECK(cuMipmappedArrayGetLevel(&same, mipmap, 1));
	printf("one level: %d\n", level == same);
	for (int i = 0; i < 3; i++) {
		CHECK(cuCtxCreate_v2(&created, 0, 0));
		leave_behind();
		CHECK(cuCtxDestroy_v2(created));
	}
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuMipmappedArrayDestroy(mipmap));
	CHECK(cuArrayDestroy(array));
	SHOW(cuArrayDestroy(array));
	printf("lost %zu\n", before - free_memory());
	leave_behind();
	CHECK(cuDevicePrimaryCtxReset_v2(0));
	open_device();
	printf("after a reset, lost %zu\n", before - free_memory());
	return 0;
}
