// SPDX-License-Identifier: Apache-2.0
// Our own kernels, compiled to corpus.ptx: what real compilers make of the usual C++.
#include <cstdio>
#include <cuda_fp16.h>

template <typename T> __device__ T twice(T value) { return value + value; }

template <typename T> __global__ void map(const T *in, T *out, int count)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count)
		out[i] = twice(in[i]);
}
template __global__ void map<float>(const float *, float *, int);
template __global__ void map<double>(const double *, double *, int);
template __global__ void map<unsigned char>(const unsigned char *, unsigned char *, int);

__global__ void reduce(const float *in, float *out, int count)
{
	__shared__ float sums[32];
	float sum = 0;

	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
		sum += in[i];
	for (int offset = 16; offset; offset >>= 1)
		sum += __shfl_down_sync(0xffffffffu, sum, offset);
	if (threadIdx.x % 32 == 0)
		sums[threadIdx.x / 32] = sum;
	__syncthreads();
	if (threadIdx.x < 32) {
		sum = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0;
		for (int offset = 16; offset; offset >>= 1)
			sum += __shfl_xor_sync(0xffffffffu, sum, offset);
		if (threadIdx.x == 0)
			atomicAdd(out, sum);
	}
}

__device__ __noinline__ int fibonacci(int n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

struct Point {
	float x, y;
	double weight;
	char tag[3];
};

__device__ __noinline__ Point scaled(Point point, float factor)
{
	point.x *= factor;
	point.y *= factor;
	return point;
}

__constant__ float coefficients[4] = { 1.5f, -2.0f, 0.25f, 1e-30f };
__device__ int counters[8] = { 1, 2, 3 };
__device__ int *middle = &counters[2];
__managed__ unsigned managed_word = 7;
extern __shared__ int dynamic[];

__global__ void calls(int *out, Point point, int n)
{
	Point big = scaled(point, coefficients[n & 3]);

	dynamic[threadIdx.x] = fibonacci(n);
	__syncthreads();
	out[threadIdx.x] = dynamic[blockDim.x - 1 - threadIdx.x] + (int)big.x + *middle;
	managed_word += big.tag[1];
	if (n == 13)
		printf("n=%d x=%f %s\n", n, big.x, "end");
}

typedef float (*Operation)(float, float);
__device__ __noinline__ float op_add(float a, float b) { return a + b; }
__device__ __noinline__ float op_max(float a, float b) { return a > b ? a : b; }
__device__ Operation operations[] = { op_add, op_max };

__global__ void indirect(float *data, int which)
{
	data[threadIdx.x] = operations[which](data[threadIdx.x], 2.0f);
}

__global__ void warp(unsigned *out, unsigned value)
{
	unsigned lane = threadIdx.x & 31, mask = __activemask();

	out[0] = __ballot_sync(mask, lane & 1);
	out[1] = __any_sync(mask, value == lane) + 2 * __all_sync(mask, value < lane);
	out[2] = __match_any_sync(mask, lane / 4);
	out[3] = __reduce_add_sync(mask, lane);
	out[4] = __popc(value) + __clz(value) + __ffs(value) + __brev(value);
	out[5] = __byte_perm(value, lane, 0x5140) ^ __funnelshift_l(value, lane, 7);
	out[6] = __syncthreads_count(lane & 1) + __syncthreads_or(lane == 3);
	__syncwarp();
}

__global__ void halves(const __half *a, const __half2 *b, __half *out)
{
	int i = threadIdx.x;

	out[i] = __hadd(__hmul(a[i], __low2half(b[i])), __float2half(1.25f));
	out[i + 32] = __hlt(a[i], out[i]) ? __hneg(a[i]) : __high2half(__hfma2(b[i], b[i], b[i]));
}

__global__ void atomics(int *i, unsigned *u, float *f, double *d, unsigned long long *l)
{
	__shared__ int local;

	if (threadIdx.x == 0)
		local = 0;
	__syncthreads();
	atomicAdd(&local, 1);
	atomicMin(i, threadIdx.x);
	atomicMax(i + 1, threadIdx.x);
	atomicInc(u, 9);
	atomicDec(u + 1, 9);
	atomicAnd(u + 2, threadIdx.x);
	atomicOr(u + 3, threadIdx.x);
	atomicXor(u + 4, threadIdx.x);
	atomicAdd(f, 1.0f);
	atomicAdd(d, 1.0);
	atomicCAS(l, 0ull, (unsigned long long)threadIdx.x);
	i[2] = atomicExch(i + 3, local);
	__threadfence();
}

__global__ void maths(const double *in, double *out, const float *fin, float *fout, long long n)
{
	int i = threadIdx.x;

	out[i] = sin(in[i]) + exp(in[i]) / sqrt(in[i]) + pow(in[i], 1.5);
	fout[i] = __sinf(fin[i]) + expf(fin[i]) * rsqrtf(fin[i]) + fmodf(fin[i], 3.0f) + tanhf(fin[i]);
	out[i + 32] = (double)(n / (i + 3)) + (double)(n % (long long)(i + 5)) + __double2int_rd(in[i]);
	fout[i + 32] = __fadd_rz(fin[i], 1e-9f) + __fdiv_ru(fin[i], 3.0f) + __saturatef(fin[i]);
}

__global__ void branches(int *out, int n)
{
	switch (n) {
	case 0: out[1] = 2; break;
	case 1: out[2] = 4; break;
	case 2: out[9] = 1; break;
	case 3: out[7] = n / 3; break;
	case 4: out[5] = 2; break;
	case 5: out[n] = 3; break;
	case 6: out[n * 2] = 3; break;
	default: asm volatile("trap;");
	}
}

__global__ void assembly(unsigned *out, unsigned value)
{
	unsigned a, b;

	asm("{ .reg .pred p; .reg .b32 t<3>; setp.eq.u32 p, %1, 3; @p bra DONE; mov.b32 t2, 5;\n"
	    "  mov.b32 %0, t2; DONE: }" : "=r"(a) : "r"(value));
	asm("{ .reg .pred p; .reg .u64 t1; setp.eq.u32 p, %1, 4; @!p bra DONE; cvt.u64.u32 t1, %1;\n"
	    "  cvt.u32.u64 %0, t1; DONE: }" : "=r"(b) : "r"(value));
	asm volatile("{ .reg .b32 lo, hi; add.cc.u32 lo, %1, %1; addc.u32 hi, 0, 0;"
		     " add.u32 %0, lo, hi; }" : "=r"(out[2]) : "r"(value));
	out[0] = a;
	out[1] = b;
}
