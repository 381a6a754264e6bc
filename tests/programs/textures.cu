/* SPDX-License-Identifier: Apache-2.0
 *
 * Texture and surface objects over arrays, linear and pitched memory: what CUDA C++ programs do with them. Every
 * result is compared with the formulas of the programming guide, computed on the host.
 */
#include <cmath>
#include <cstring>
#include <vector>

#include "check.cuh"

static int failures;

static void report(const char *what, bool good)
{
	printf("%s: %s\n", what, good ? "ok" : "wrong");
	failures += !good;
}

static bool near(float a, float b)
{
	return std::fabs(a - b) <= 1e-5f * (1 + std::fabs(b));
}

__global__ void sample_2d(cudaTextureObject_t t, const float2 *at, float4 *out, int count)
{
	int k = blockIdx.x * blockDim.x + threadIdx.x;

	if (k < count)
		out[k] = tex2D<float4>(t, at[k].x, at[k].y);
}

__global__ void sample_2d_float(cudaTextureObject_t t, const float2 *at, float *out, int count)
{
	int k = blockIdx.x * blockDim.x + threadIdx.x;

	if (k < count)
		out[k] = tex2D<float>(t, at[k].x, at[k].y);
}

__global__ void fetch_1d(cudaTextureObject_t t, int *out, int count)
{
	int k = blockIdx.x * blockDim.x + threadIdx.x;

	if (k < count)
		out[k] = tex1Dfetch<int>(t, k - 2);
}

__global__ void sample_3d(cudaTextureObject_t t, float *out)
{
	out[threadIdx.x] = tex3D<float>(t, threadIdx.x + 0.5f, threadIdx.y + 1.0f, 1.25f);
}

__global__ void layers(cudaTextureObject_t t, float *out)
{
	out[threadIdx.x] = tex2DLayered<float>(t, 1.5f, 0.5f, threadIdx.x);
}

__global__ void faces(cudaTextureObject_t t, const float3 *at, float *out)
{
	out[threadIdx.x] = texCubemap<float>(t, at[threadIdx.x].x, at[threadIdx.x].y, at[threadIdx.x].z);
}

__global__ void levels(cudaTextureObject_t t, float *out)
{
	out[threadIdx.x] = tex2DLod<float>(t, 0.5f, 0.5f, threadIdx.x * 0.5f);
}

__global__ void gather(cudaTextureObject_t t, float4 *out)
{
	*out = tex2Dgather<float4>(t, 2.0f, 2.0f, 1);
}

__global__ void turn(cudaSurfaceObject_t from, cudaSurfaceObject_t to, int width, int height)
{
	int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
	uchar4 texel;

	if (x >= width)
		return;
	surf2Dread(&texel, from, x * (int)sizeof(texel), y);
	surf2Dwrite(make_uchar4(texel.w, texel.z, texel.y, texel.x), to, (width - 1 - x) * (int)sizeof(texel),
		    height - 1 - y);
}

__global__ void outside(cudaSurfaceObject_t s, float *out)
{
	float value;

	surf2Dwrite(7.0f, s, -4, 0, cudaBoundaryModeZero);
	surf2Dread(&value, s, -4, 0, cudaBoundaryModeZero);
	out[0] = value;
	surf2Dread(&value, s, -4, 100, cudaBoundaryModeClamp);
	out[1] = value;
}

__global__ void trapped(cudaSurfaceObject_t s)
{
	surf2Dwrite(7.0f, s, 4096, 0);
}

template <typename T> static T *device(const std::vector<T> &host)
{
	T *memory;

	CHECK(cudaMalloc(&memory, host.size() * sizeof(T)));
	CHECK(cudaMemcpy(memory, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
	return memory;
}

template <typename T> static std::vector<T> host(const T *memory, size_t count)
{
	std::vector<T> found(count);

	CHECK(cudaMemcpy(found.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
	return found;
}

static cudaTextureObject_t over(cudaArray_t array, cudaTextureDesc how)
{
	cudaResourceDesc what = {};
	cudaTextureObject_t texture;

	what.resType = cudaResourceTypeArray;
	what.res.array.array = array;
	CHECK(cudaCreateTextureObject(&texture, &what, &how, nullptr));
	return texture;
}

/* ---- two dimensions, floats, both filters and all addressing modes */

static int folded(int i, int size, cudaTextureAddressMode mode)
{
	switch (mode) {
	case cudaAddressModeWrap: return ((i % size) + size) % size;
	case cudaAddressModeMirror:
		i = ((i % (2 * size)) + 2 * size) % (2 * size);
		return i < size ? i : 2 * size - 1 - i;
	case cudaAddressModeBorder: return i < 0 || i >= size ? -1 : i;
	default: return i < 0 ? 0 : i >= size ? size - 1 : i;
	}
}

static float expected(const std::vector<float> &texels, int width, int height, float2 at, cudaTextureDesc how)
{
	double x = how.normalizedCoords ? (double)at.x * width : at.x;
	double y = how.normalizedCoords ? (double)at.y * height : at.y;
	auto texel = [&](int i, int j) {
		i = folded(i, width, how.addressMode[0]);
		j = folded(j, height, how.addressMode[1]);
		return i < 0 || j < 0 ? 0.0 : (double)texels[j * width + i];
	};

	if (how.filterMode == cudaFilterModePoint)
		return (float)texel((int)std::floor(x), (int)std::floor(y));
	x -= 0.5;
	y -= 0.5;
	int i = (int)std::floor(x), j = (int)std::floor(y);
	double a = std::floor((x - i) * 256 + 0.5) / 256, b = std::floor((y - j) * 256 + 0.5) / 256;
	return (float)((1 - a) * (1 - b) * texel(i, j) + a * (1 - b) * texel(i + 1, j) + (1 - a) * b * texel(i, j + 1) +
		       a * b * texel(i + 1, j + 1));
}

static void planes()
{
	const int width = 13, height = 7, count = 500;
	std::vector<float> texels(width * height);
	std::vector<float2> at(count);
	cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
	cudaArray_t array;
	float *out;

	for (size_t k = 0; k < texels.size(); k++)
		texels[k] = (float)(k * k % 101) - 17.25f;
	CHECK(cudaMallocArray(&array, &format, width, height));
	CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), width * sizeof(float), width * sizeof(float), height,
				  cudaMemcpyHostToDevice));
	CHECK(cudaMalloc(&out, count * sizeof(float)));
	for (int filter = 0; filter < 2; filter++)
		for (int normalised = 0; normalised < 2; normalised++)
			for (int mode = 0; mode < 4; mode++) {
				cudaTextureDesc how = {};
				bool good = true;

				how.addressMode[0] = how.addressMode[1] = (cudaTextureAddressMode)mode;
				how.filterMode = (cudaTextureFilterMode)filter;
				how.normalizedCoords = normalised;
				if (!normalised && (mode == cudaAddressModeWrap || mode == cudaAddressModeMirror))
					continue;
				for (int k = 0; k < count; k++) {
					float scale = normalised ? 1.0f : (float)width;

					at[k].x = ((float)(k * 37 % 500) / 125 - 2) * scale;
					at[k].y = ((float)(k * 91 % 500) / 125 - 2) * scale;
				}
				float2 *places = device(at);
				cudaTextureObject_t texture = over(array, how);
				sample_2d_float<<<(count + 127) / 128, 128>>>(texture, places, out, count);
				std::vector<float> found = host(out, count);
				for (int k = 0; k < count; k++)
					good &= near(found[k], expected(texels, width, height, at[k], how));
				printf("filter %d, normalised %d, mode %d: %s\n", filter, normalised, mode,
				       good ? "ok" : "wrong");
				failures += !good;
				CHECK(cudaDestroyTextureObject(texture));
				CHECK(cudaFree(places));
			}
	std::vector<float> back(width * height);
	CHECK(cudaMemcpy2DFromArray(back.data(), width * sizeof(float), array, 0, 0, width * sizeof(float), height,
				    cudaMemcpyDeviceToHost));
	report("copied back", back == texels);
	CHECK(cudaFree(out));
	CHECK(cudaFreeArray(array));
}

/* ---- pitched memory as fractions of 8 bits, linear memory as integers */

static void memories()
{
	const int width = 16, height = 4;
	std::vector<uchar4> texels(width * height);
	std::vector<int> line(100);
	cudaResourceDesc what = {};
	cudaTextureDesc how = {};
	cudaTextureObject_t texture;
	unsigned char *pitched;
	size_t pitch;
	bool good = true;

	for (int k = 0; k < width * height; k++)
		texels[k] = make_uchar4(k, 2 * k, 255 - k, 128);
	CHECK(cudaMallocPitch(&pitched, &pitch, width * sizeof(uchar4), height));
	CHECK(cudaMemcpy2D(pitched, pitch, texels.data(), width * sizeof(uchar4), width * sizeof(uchar4), height,
			   cudaMemcpyHostToDevice));
	what.resType = cudaResourceTypePitch2D;
	what.res.pitch2D.devPtr = pitched;
	what.res.pitch2D.desc = cudaCreateChannelDesc<uchar4>();
	what.res.pitch2D.width = width;
	what.res.pitch2D.height = height;
	what.res.pitch2D.pitchInBytes = pitch;
	how.readMode = cudaReadModeNormalizedFloat;
	how.addressMode[0] = how.addressMode[1] = cudaAddressModeClamp;
	CHECK(cudaCreateTextureObject(&texture, &what, &how, nullptr));
	float2 *places = device(std::vector<float2>{ { 3.5f, 2.5f }, { -1.0f, 99.0f } });
	float4 *out;
	CHECK(cudaMalloc(&out, 2 * sizeof(float4)));
	sample_2d<<<1, 32>>>(texture, places, out, 2);
	std::vector<float4> found = host(out, 2);
	for (int k = 0; k < 2; k++) {
		uchar4 t = texels[k ? 3 * width : 2 * width + 3];

		good &= near(found[k].x, t.x / 255.0f) && near(found[k].y, t.y / 255.0f) &&
			near(found[k].z, t.z / 255.0f) && near(found[k].w, t.w / 255.0f);
	}
	report("pitched fractions", good);
	CHECK(cudaDestroyTextureObject(texture));

	for (int k = 0; k < 100; k++)
		line[k] = 1000 - 31 * k;
	int *linear = device(line), *values;
	CHECK(cudaMalloc(&values, 104 * sizeof(int)));
	what = {};
	what.resType = cudaResourceTypeLinear;
	what.res.linear.devPtr = linear;
	what.res.linear.desc = cudaCreateChannelDesc<int>();
	what.res.linear.sizeInBytes = 100 * sizeof(int);
	how = {};
	CHECK(cudaCreateTextureObject(&texture, &what, &how, nullptr));
	fetch_1d<<<1, 128>>>(texture, values, 104);
	std::vector<int> got = host(values, 104);
	good = true;
	for (int k = 0; k < 104; k++)
		good &= got[k] == (k < 2 || k >= 102 ? 0 : line[k - 2]);
	report("linear integers", good);
	CHECK(cudaDestroyTextureObject(texture));
}

static cudaArray_t box(int width, int height, int depth, unsigned flags, const std::vector<float> &texels)
{
	cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
	cudaArray_t array;
	cudaMemcpy3DParms copy = {};

	CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(width, height, depth), flags));
	copy.srcPtr = make_cudaPitchedPtr((void *)texels.data(), width * sizeof(float), width, height);
	copy.dstArray = array;
	copy.extent = make_cudaExtent(width, height, depth);
	copy.kind = cudaMemcpyHostToDevice;
	CHECK(cudaMemcpy3D(&copy));
	return array;
}

static void boxes()
{
	std::vector<float> texels(4 * 4 * 6);
	cudaTextureDesc how = {};
	float *out;
	bool good = true;

	for (size_t k = 0; k < texels.size(); k++)
		texels[k] = (float)(k * 7 % 43);
	CHECK(cudaMalloc(&out, 64 * sizeof(float)));
	for (int k = 0; k < 3; k++)
		how.addressMode[k] = cudaAddressModeClamp;
	how.filterMode = cudaFilterModeLinear;
	cudaArray_t array = box(4, 4, 6, 0, texels);
	cudaTextureObject_t texture = over(array, how);
	sample_3d<<<1, 4>>>(texture, out);
	std::vector<float> found = host(out, 4);
	for (int k = 0; k < 4; k++) {
		auto at = [&](int y, int z) { return texels[(z * 4 + y) * 4 + k]; };

		/* z - 0.5 is 0.75: a quarter of slice 0; y - 0.5 is 0.5: half of each row */
		good &= near(found[k], 0.25f * 0.5f * (at(0, 0) + at(1, 0)) + 0.75f * 0.5f * (at(0, 1) + at(1, 1)));
	}
	report("three dimensions", good);
	CHECK(cudaDestroyTextureObject(texture));
	CHECK(cudaFreeArray(array));

	array = box(4, 4, 6, cudaArrayLayered, texels);
	texture = over(array, how);
	layers<<<1, 8>>>(texture, out);
	found = host(out, 8);
	good = true;
	for (int k = 0; k < 8; k++)
		good &= near(found[k], texels[(k < 6 ? k : 5) * 16 + 1]);
	report("layers", good);
	CHECK(cudaDestroyTextureObject(texture));
	CHECK(cudaFreeArray(array));

	array = box(4, 4, 6, cudaArrayCubemap, texels);
	how.filterMode = cudaFilterModePoint;
	texture = over(array, how);
	float3 *to = device(std::vector<float3>{
		{ 1, 0.1f, -0.6f }, { -1, 0.1f, -0.6f }, { 0.1f, 1, -0.6f }, { 0.1f, -1, -0.6f }, { 0.1f, -0.6f, 1 }, { 0.1f, -0.6f, -1 } });
	faces<<<1, 6>>>(texture, to, out);
	found = host(out, 6);
	/* s and t of the guide's table, on faces of 4 by 4 */
	const int s[] = { 3, 0, 2, 2, 2, 1 }, t[] = { 1, 1, 0, 3, 3, 3 };
	good = true;
	for (int k = 0; k < 6; k++)
		good &= near(found[k], texels[k * 16 + t[k] * 4 + s[k]]);
	report("cube", good);
	CHECK(cudaDestroyTextureObject(texture));
	CHECK(cudaFreeArray(array));
	CHECK(cudaFree(out));
}

static void mipmaps()
{
	cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
	cudaMipmappedArray_t mipmap;
	cudaResourceDesc what = {};
	cudaTextureDesc how = {};
	cudaTextureObject_t texture;
	float *out;
	bool good = true;

	CHECK(cudaMallocMipmappedArray(&mipmap, &format, make_cudaExtent(8, 8, 0), 4));
	for (int k = 0; k < 4; k++) {
		std::vector<float> texels(64, (float)(10 * k + 1));
		cudaArray_t level;

		CHECK(cudaGetMipmappedArrayLevel(&level, mipmap, k));
		CHECK(cudaMemcpy2DToArray(level, 0, 0, texels.data(), (8 >> k) * sizeof(float),
					  (8 >> k) * sizeof(float), 8 >> k, cudaMemcpyHostToDevice));
	}
	what.resType = cudaResourceTypeMipmappedArray;
	what.res.mipmap.mipmap = mipmap;
	how.normalizedCoords = 1;
	how.filterMode = how.mipmapFilterMode = cudaFilterModeLinear;
	how.maxMipmapLevelClamp = 3;
	CHECK(cudaCreateTextureObject(&texture, &what, &how, nullptr));
	CHECK(cudaMalloc(&out, 8 * sizeof(float)));
	levels<<<1, 8>>>(texture, out);
	std::vector<float> found = host(out, 8);
	for (int k = 0; k < 8; k++)
		good &= near(found[k], 5.0f * (k < 6 ? k : 6) + 1);
	report("levels", good);
	CHECK(cudaDestroyTextureObject(texture));
	CHECK(cudaFreeMipmappedArray(mipmap));
	CHECK(cudaFree(out));
}

static void gathered()
{
	cudaChannelFormatDesc format = cudaCreateChannelDesc<float2>();
	std::vector<float2> texels(16);
	cudaTextureDesc how = {};
	cudaArray_t array;
	float4 *out;

	for (int k = 0; k < 16; k++)
		texels[k] = make_float2(-1, (float)k);
	CHECK(cudaMallocArray(&array, &format, 4, 4, cudaArrayTextureGather));
	CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), 32, 32, 4, cudaMemcpyHostToDevice));
	CHECK(cudaMalloc(&out, sizeof(float4)));
	cudaTextureObject_t texture = over(array, how);
	gather<<<1, 1>>>(texture, out);
	float4 f = host(out, 1)[0];
	report("gather", f.x == 9 && f.y == 10 && f.z == 6 && f.w == 5);
	CHECK(cudaDestroyTextureObject(texture));
	CHECK(cudaFreeArray(array));
}

static cudaSurfaceObject_t surface(cudaArray_t array)
{
	cudaResourceDesc what = {};
	cudaSurfaceObject_t made;

	what.resType = cudaResourceTypeArray;
	what.res.array.array = array;
	CHECK(cudaCreateSurfaceObject(&made, &what));
	return made;
}

static void surfaces()
{
	const int width = 50, height = 9;
	cudaChannelFormatDesc format = cudaCreateChannelDesc<uchar4>();
	std::vector<uchar4> texels(width * height), back(width * height);
	cudaArray_t from, to;
	bool good = true;

	for (int k = 0; k < width * height; k++)
		texels[k] = make_uchar4(k, k >> 8, 3 * k, 77);
	CHECK(cudaMallocArray(&from, &format, width, height, cudaArraySurfaceLoadStore));
	CHECK(cudaMallocArray(&to, &format, width, height, cudaArraySurfaceLoadStore));
	CHECK(cudaMemcpy2DToArray(from, 0, 0, texels.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
	turn<<<dim3(1, height), 64>>>(surface(from), surface(to), width, height);
	CHECK(cudaMemcpy2DFromArray(back.data(), width * 4, to, 0, 0, width * 4, height, cudaMemcpyDeviceToHost));
	for (int k = 0; k < width * height; k++) {
		uchar4 a = texels[k], b = back[width * height - 1 - k];

		good &= a.x == b.w && a.y == b.z && a.z == b.y && a.w == b.x;
	}
	report("surfaces", good);

	cudaChannelFormatDesc single = cudaCreateChannelDesc<float>();
	std::vector<float> plane(16);
	cudaArray_t array;
	float *out;
	for (int k = 0; k < 16; k++)
		plane[k] = (float)k + 1;
	CHECK(cudaMallocArray(&array, &single, 4, 4, cudaArraySurfaceLoadStore));
	CHECK(cudaMemcpy2DToArray(array, 0, 0, plane.data(), 16, 16, 4, cudaMemcpyHostToDevice));
	CHECK(cudaMalloc(&out, 2 * sizeof(float)));
	outside<<<1, 1>>>(surface(array), out);
	std::vector<float> found = host(out, 2);
	report("outside of a surface", found[0] == 0 && found[1] == 13);
	trapped<<<1, 1>>>(surface(array));
	report("a trap", cudaDeviceSynchronize() == cudaErrorIllegalAddress);
}

int main()
{
	planes();
	memories();
	boxes();
	mipmaps();
	gathered();
	surfaces();
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
