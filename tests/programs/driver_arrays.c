/* SPDX-License-Identifier: Apache-2.0
 *
 * Arrays, mipmapped arrays, objects over them: shapes, copies of every kind, what is refused.
 */
#include "program.h"

static size_t free_bytes(void)
{
	size_t available, total;

	CHECK(cuMemGetInfo_v2(&available, &total));
	return available;
}

static CUarray make(CUarray_format format, unsigned channels, size_t width, size_t height, size_t depth, unsigned flags)
{
	CUDA_ARRAY3D_DESCRIPTOR shape = { .Width = width,
					  .Height = height,
					  .Depth = depth,
					  .Format = format,
					  .NumChannels = channels,
					  .Flags = flags };
	CUarray array = NULL;

	printf("%zu x %zu x %zu, format %d, %u channels, flags %u: %s\n", width, height, depth, (int)format, channels,
	       flags, error_name(cuArray3DCreate_v2(&array, &shape)));
	return array;
}

static void shapes(void)
{
	const size_t before = free_bytes();
	CUarray found[] = { make(CU_AD_FORMAT_UNSIGNED_INT8, 4, 100, 0, 0, 0),
			    make(CU_AD_FORMAT_FLOAT, 2, 100, 50, 0, CUDA_ARRAY3D_SURFACE_LDST),
			    make(CU_AD_FORMAT_HALF, 1, 10, 20, 30, 0),
			    make(CU_AD_FORMAT_SIGNED_INT16, 1, 8, 0, 7, CUDA_ARRAY3D_LAYERED),
			    make(CU_AD_FORMAT_FLOAT, 1, 8, 8, 6, CUDA_ARRAY3D_CUBEMAP) };
	CUDA_ARRAY3D_DESCRIPTOR shape;

	for (size_t k = 0; k < LENGTH(found); k++) {
		CHECK(cuArray3DGetDescriptor_v2(&shape, found[k]));
		printf("%zu x %zu x %zu, %u channels, flags %u\n", shape.Width, shape.Height, shape.Depth,
		       shape.NumChannels, shape.Flags);
	}
	printf("memory is taken: %s\n", free_bytes() < before ? "yes" : "no");
	for (size_t k = 0; k < LENGTH(found); k++)
		CHECK(cuArrayDestroy(found[k]));
	printf("memory is given back: %s\n", free_bytes() == before ? "yes" : "no");
	SHOW(cuArrayDestroy(found[0]));
	SHOW(cuArray3DGetDescriptor_v2(&shape, found[0]));
	make(CU_AD_FORMAT_FLOAT, 3, 8, 8, 0, 0);
	make(CU_AD_FORMAT_FLOAT, 1, 0, 8, 0, 0);
	make(CU_AD_FORMAT_FLOAT, 1, 8, 0, 8, 0);
	make(CU_AD_FORMAT_FLOAT, 1, 8, 4, 6, CUDA_ARRAY3D_CUBEMAP);
	make(CU_AD_FORMAT_FLOAT, 1, 8, 8, 5, CUDA_ARRAY3D_CUBEMAP);
	make(CU_AD_FORMAT_FLOAT, 1, (size_t)1 << 20, 8, 0, 0);
	make(CU_AD_FORMAT_NV12, 1, 8, 8, 0, 0);
}

static void copies(void)
{
	unsigned char bytes[64], back[64] = { 0 }, part[6] = { 0 };
	CUarray line = make(CU_AD_FORMAT_UNSIGNED_INT8, 1, 64, 0, 0, 0);
	CUarray other = make(CU_AD_FORMAT_UNSIGNED_INT8, 1, 64, 0, 0, 0);
	CUarray plane = make(CU_AD_FORMAT_UNSIGNED_INT8, 1, 8, 8, 0, 0);
	CUdeviceptr memory;

	for (int k = 0; k < 64; k++)
		bytes[k] = (unsigned char)(3 * k + 1);
	CHECK(cuMemAlloc_v2(&memory, 64));
	CHECK(cuMemcpyHtoA_v2(line, 0, bytes, 64));
	CHECK(cuMemcpyAtoA_v2(other, 8, line, 0, 56));
	CHECK(cuMemcpyAtoA_v2(other, 0, line, 56, 8));
	CHECK(cuMemcpyAtoD_v2(memory, other, 0, 64));
	CHECK(cuMemcpyDtoA_v2(line, 32, memory, 32));
	CHECK(cuMemcpyAtoH_v2(back, line, 0, 64));
	int good = 1;
	for (int k = 0; k < 64; k++)
		good &= back[k] == bytes[k < 32 ? k : (k - 32 + 56) % 64];
	printf("lines: %s\n", good ? "right" : "wrong");
	SHOW(cuMemcpyHtoA_v2(line, 60, bytes, 5));
	SHOW(cuMemcpyAtoH_v2(back, line, (size_t)-4, 8));
	SHOW(cuMemcpyHtoA_v2((CUarray)memory, 0, bytes, 5));

	CUDA_MEMCPY2D box = { .srcMemoryType = CU_MEMORYTYPE_HOST,
			      .srcHost = bytes,
			      .srcPitch = 8,
			      .dstMemoryType = CU_MEMORYTYPE_ARRAY,
			      .dstArray = plane,
			      .WidthInBytes = 8,
			      .Height = 8 };
	CHECK(cuMemcpy2D_v2(&box));
	CUDA_MEMCPY2D inner = { .srcMemoryType = CU_MEMORYTYPE_ARRAY,
				.srcArray = plane,
				.srcXInBytes = 3,
				.srcY = 5,
				.dstMemoryType = CU_MEMORYTYPE_HOST,
				.dstHost = part,
				.dstPitch = 3,
				.WidthInBytes = 3,
				.Height = 2 };
	CHECK(cuMemcpy2D_v2(&inner));
	good = 1;
	for (int k = 0; k < 6; k++)
		good &= part[k] == bytes[(5 + k / 3) * 8 + 3 + k % 3];
	printf("planes: %s\n", good ? "right" : "wrong");
	inner.srcY = 7;
	SHOW(cuMemcpy2D_v2(&inner));
	inner.srcY = 0;
	inner.srcXInBytes = 6;
	SHOW(cuMemcpy2D_v2(&inner));
	SHOW(cuMemFree_v2(memory));
}

static void objects(void)
{
	CUDA_ARRAY3D_DESCRIPTOR shape = {
		.Width = 16, .Height = 4, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1
	};
	CUDA_RESOURCE_DESC resource = { .resType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY }, told;
	CUDA_TEXTURE_DESC sampler = { .flags = CU_TRSF_NORMALIZED_COORDINATES, .maxMipmapLevelClamp = 2 }, asked;
	CUmipmappedArray mipmap;
	CUsurfObject surface;
	CUtexObject texture;
	CUarray level;

	CHECK(cuMipmappedArrayCreate(&mipmap, &shape, 20));
	for (unsigned k = 0; k < 5; k++) {
		CHECK(cuMipmappedArrayGetLevel(&level, mipmap, k));
		CHECK(cuArray3DGetDescriptor_v2(&shape, level));
		printf("level %u: %zu x %zu\n", k, shape.Width, shape.Height);
	}
	SHOW(cuMipmappedArrayGetLevel(&level, mipmap, 5));
	SHOW(cuArrayDestroy(level));
	resource.res.mipmap.hMipmappedArray = mipmap;
	CHECK(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	CHECK(cuTexObjectGetResourceDesc(&told, texture));
	CHECK(cuTexObjectGetTextureDesc(&asked, texture));
	printf("as it was told: %s\n",
	       told.res.mipmap.hMipmappedArray == mipmap && !memcmp(&asked, &sampler, sizeof asked) ? "yes" : "no");
	SHOW(cuSurfObjectDestroy(texture));
	SHOW(cuTexObjectDestroy(texture));
	SHOW(cuTexObjectDestroy(texture));
	sampler.filterMode = CU_TR_FILTER_MODE_LINEAR; /* of integers */
	SHOW(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	sampler.filterMode = CU_TR_FILTER_MODE_POINT;
	sampler.flags = 0; /* of a mipmap */
	SHOW(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	resource.resType = CU_RESOURCE_TYPE_ARRAY;
	SHOW(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	resource.res.array.hArray = level;
	SHOW(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	SHOW(cuSurfObjectCreate(&surface, &resource)); /* the array is not for that */
	resource.resType = CU_RESOURCE_TYPE_LINEAR;
	resource.res.linear.devPtr = 0x100000;
	resource.res.linear.format = CU_AD_FORMAT_FLOAT;
	resource.res.linear.numChannels = 1;
	resource.res.linear.sizeInBytes = 64;
	SHOW(cuTexObjectCreate(&texture, &resource, &sampler, NULL));
	SHOW(cuMipmappedArrayDestroy(mipmap));
	SHOW(cuArray3DGetDescriptor_v2(&shape, level));
}

int main(void)
{
	open_device();
	shapes();
	copies();
	objects();
	return 0;
}
