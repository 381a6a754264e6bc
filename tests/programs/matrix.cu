/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products by warps: mma.h's fragments of halves, bytes and doubles, and a tile kernel that feeds mma with
 * ldmatrix from shared memory, as libraries write it. The numbers are small integers, so that all sums are exact.
 */
#include "check.cuh"

#include <cuda_fp8.h>
#include <mma.h>
#include <vector>

using namespace nvcuda;

enum { M = 64, N = 48, K = 80 };

template <typename T, typename Sum, int TILE_M, int TILE_N, int TILE_K>
__global__ void by_fragments(const T *a, const T *b, Sum *c, int m, int n, int k)
{
	const int row = blockIdx.y * TILE_M, column = blockIdx.x * TILE_N;
	wmma::fragment<wmma::matrix_a, TILE_M, TILE_N, TILE_K, T, wmma::row_major> left;
	wmma::fragment<wmma::matrix_b, TILE_M, TILE_N, TILE_K, T, wmma::col_major> right;
	wmma::fragment<wmma::accumulator, TILE_M, TILE_N, TILE_K, Sum> sum;

	wmma::fill_fragment(sum, (Sum)1);
	for (int at = 0; at < k; at += TILE_K) {
		wmma::load_matrix_sync(left, a + row * k + at, k);
		wmma::load_matrix_sync(right, b + column * k + at, k);
		wmma::mma_sync(sum, left, right, sum);
	}
	for (int i = 0; i < sum.num_elements; i++)
		sum.x[i] = sum.x[i] * (Sum)2;
	wmma::store_matrix_sync(c + row * n + column, sum, n, wmma::mem_row_major);
}

/* One warp, a tile of 16 by 8; A and B go through shared memory, B by rows of its transposed matrix. */
__global__ void by_tiles(const half *a, const half *b, float *c, int n, int k)
{
	__shared__ alignas(16) half left[16][16];
	__shared__ alignas(16) half right[8][16];
	const int lane = threadIdx.x, row = blockIdx.y * 16, column = blockIdx.x * 8;
	float d[4] = { 0, 0, 0, 0 };

	for (int at = 0; at < k; at += 16) {
		uint32_t x[4], y[2];

		*(uint4 *)&left[lane / 2][lane % 2 * 8] = *(const uint4 *)&a[(row + lane / 2) * k + at + lane % 2 * 8];
		if (lane < 16)
			*(uint4 *)&right[lane / 2][lane % 2 * 8] =
				*(const uint4 *)&b[(column + lane / 2) * k + at + lane % 2 * 8];
		__syncwarp();
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
			     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
			     : "r"((uint32_t)__cvta_generic_to_shared(&left[lane % 16][lane / 16 * 8])));
		asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
			     : "=r"(y[0]), "=r"(y[1])
			     : "r"((uint32_t)__cvta_generic_to_shared(&right[lane % 8][lane / 8 % 2 * 8])));
		asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
			     "{%8, %9}, {%0, %1, %2, %3};"
			     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
			     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
		__syncwarp();
	}
	for (int i = 0; i < 4; i++)
		c[(row + lane / 4 + i / 2 * 8) * n + column + lane % 4 * 2 + i % 2] = d[i] * 2 + 2;
}

__global__ void narrow(const float *in, unsigned char *out, float *back, int count)
{
	const int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count) {
		const __nv_fp8_e4m3 x(in[i]);

		out[i] = x.__x;
		back[i] = (float)x;
	}
}

template <typename T> static T *on_device(const std::vector<T> &values)
{
	T *memory;

	CHECK(cudaMalloc(&memory, values.size() * sizeof(T)));
	CHECK(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
	return memory;
}

/* A by rows and B by columns, small integers; the sums that must come out. */
template <typename T> static void fill(std::vector<T> &a, std::vector<T> &b, std::vector<double> &wanted)
{
	for (int i = 0; i < M * K; i++)
		a.push_back((T)(float)(i * 7 % 11 - 5));
	for (int i = 0; i < N * K; i++)
		b.push_back((T)(float)(i * 5 % 13 - 6));
	for (int row = 0; row < M; row++)
		for (int column = 0; column < N; column++) {
			double sum = 1;

			for (int k = 0; k < K; k++)
				sum += (double)(float)a[row * K + k] * (double)(float)b[column * K + k];
			wanted.push_back(2 * sum);
		}
}

template <typename Sum> static void compare(const char *name, Sum *device, const std::vector<double> &wanted)
{
	std::vector<Sum> got(wanted.size());
	int wrong = 0;

	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(got.data(), device, got.size() * sizeof(Sum), cudaMemcpyDeviceToHost));
	for (size_t i = 0; i < got.size(); i++)
		wrong += (double)(float)got[i] != wanted[i];
	printf("%s: %d wrong of %zu, %016llx\n", name, wrong, got.size(),
	       (unsigned long long)checksum(got.data(), got.size() * sizeof(Sum)));
}

template <typename T, typename Sum, int TILE_M, int TILE_N, int TILE_K> static void fragments(const char *name)
{
	std::vector<T> a, b;
	std::vector<double> wanted;
	Sum *c;

	fill(a, b, wanted);
	CHECK(cudaMalloc(&c, M * N * sizeof(Sum)));
	by_fragments<T, Sum, TILE_M, TILE_N, TILE_K>
		<<<dim3(N / TILE_N, M / TILE_M), 32>>>(on_device(a), on_device(b), c, M, N, K);
	compare(name, c, wanted);
}

static void tiles()
{
	std::vector<half> a, b;
	std::vector<double> wanted;
	float *c;

	fill(a, b, wanted);
	CHECK(cudaMalloc(&c, M * N * sizeof(float)));
	by_tiles<<<dim3(N / 8, M / 16), 32>>>(on_device(a), on_device(b), c, N, K);
	compare("ldmatrix and mma", c, wanted);
}

static void narrowed()
{
	enum { COUNT = 1000 };
	std::vector<float> in, back(COUNT);
	std::vector<unsigned char> codes(COUNT);
	unsigned char *out;
	float *again;
	int wrong = 0;

	for (int i = 0; i < COUNT; i++)
		in.push_back((float)(i - COUNT / 2) * 1.03f);
	CHECK(cudaMalloc(&out, COUNT));
	CHECK(cudaMalloc(&again, COUNT * sizeof(float)));
	narrow<<<4, 256>>>(on_device(in), out, again, COUNT);
	CHECK(cudaMemcpy(codes.data(), out, COUNT, cudaMemcpyDeviceToHost));
	CHECK(cudaMemcpy(back.data(), again, COUNT * sizeof(float), cudaMemcpyDeviceToHost));
	for (int i = 0; i < COUNT; i++) {
		const __nv_fp8_e4m3 host(in[i]);

		wrong += host.__x != codes[i] || (float)host != back[i];
	}
	printf("e4m3: %d wrong, %016llx\n", wrong, (unsigned long long)checksum(codes.data(), COUNT));
}

int main()
{
	fragments<half, float, 16, 16, 16>("half 16x16x16");
	fragments<half, half, 32, 8, 16>("half 32x8x16, sums of halves");
	fragments<__nv_bfloat16, float, 16, 16, 16>("bfloat16 16x16x16");
	fragments<signed char, int, 16, 16, 16>("char 16x16x16");
	fragments<double, double, 8, 8, 4>("double 8x8x4");
	tiles();
	narrowed();
	return 0;
}
