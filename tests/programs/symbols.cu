/* SPDX-License-Identifier: Apache-2.0
 *
 * Constant and device symbols, pitched and 2D copies, memory sets, function attributes, occupancy.
 */
#include "check.cuh"

#include <vector>

enum { WIDTH = 100, HEIGHT = 33 };

__constant__ float coefficients[8];
__device__ int counter = 40;
__device__ float table[16];

__global__ void polynomial(const char *in, size_t in_pitch, char *out, size_t out_pitch)
{
	int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
	float value, sum = 0;

	if (x >= WIDTH || y >= HEIGHT)
		return;
	value = ((const float *)(in + y * in_pitch))[x];
	for (int i = 7; i >= 0; i--)
		sum = __fadd_rn(__fmul_rn(sum, value), coefficients[i]);
	((float *)(out + y * out_pitch))[x] = sum;
	if (x == 0)
		atomicAdd(&counter, 1);
	if (y == 0 && x < 16)
		table[x] = sum;
}

int main()
{
	const float given[8] = { 1, -0.5f, 0.25f, -0.125f, 0.0625f, 2, -3, 0.5f };
	std::vector<float> in(WIDTH * HEIGHT), out(WIDTH * HEIGHT);
	float seen[16];
	char *from, *to;
	size_t from_pitch, to_pitch;
	int count, blocks, start;
	cudaFuncAttributes attributes;

	for (int i = 0; i < WIDTH * HEIGHT; i++)
		in[i] = (i % 211) / 128.0f - 0.75f;
	CHECK(cudaMemcpyToSymbol(coefficients, given, sizeof given));
	CHECK(cudaMemcpyFromSymbol(&start, counter, sizeof start));
	CHECK(cudaMallocPitch(&from, &from_pitch, WIDTH * sizeof(float), HEIGHT));
	CHECK(cudaMallocPitch(&to, &to_pitch, WIDTH * sizeof(float), HEIGHT));
	CHECK(cudaMemset2D(to, to_pitch, 0xff, WIDTH * sizeof(float), HEIGHT));
	CHECK(cudaMemcpy2D(from, from_pitch, in.data(), WIDTH * sizeof(float), WIDTH * sizeof(float), HEIGHT,
			   cudaMemcpyHostToDevice));
	polynomial<<<dim3(4, 5), dim3(32, 8)>>>(from, from_pitch, to, to_pitch);
	CHECK(cudaMemcpy2D(out.data(), WIDTH * sizeof(float), to, to_pitch, WIDTH * sizeof(float), HEIGHT,
			   cudaMemcpyDeviceToHost));
	CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof count));
	CHECK(cudaMemcpyFromSymbol(seen, table, sizeof seen));
	CHECK(cudaFuncGetAttributes(&attributes, polynomial));
	CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, polynomial, 256, 0));
	printf("pitch at least a row: %d %d\n", from_pitch >= WIDTH * sizeof(float), to_pitch >= WIDTH * sizeof(float));
	printf("counter %d -> %d, table[3] %a, out %016llx\n", start, count, seen[3],
	       (unsigned long long)checksum(out.data(), out.size() * sizeof(float)));
	printf("constant bytes %zu, shared bytes %zu, blocks per multiprocessor > 0: %d\n", attributes.constSizeBytes,
	       attributes.sharedSizeBytes, blocks > 0);
	return 0;
}
