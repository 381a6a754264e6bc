// SPDX-License-Identifier: Apache-2.0
// Whole kernels for test_ptx_kernels.py, which computes the same with NumPy. kernels.ptx is made of this
// file by: nvcc -ptx -arch=compute_90 kernels.cu
#include <cstdio>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cooperative_groups.h>

namespace cg = cooperative_groups;

__global__ void saxpy(int n, float a, const float *x, float *y)
{
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		y[i] = a * x[i] + y[i];
}

template <int T> __global__ void matmul(const float *a, const float *b, float *c, int n)
{
	__shared__ float as[T][T], bs[T][T + 1];
	int row = blockIdx.y * T + threadIdx.y, column = blockIdx.x * T + threadIdx.x;
	float sum = 0;

	for (int k = 0; k < n; k += T) {
		as[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
		bs[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
		__syncthreads();
#pragma unroll
		for (int i = 0; i < T; i++)
			sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
		__syncthreads();
	}
	c[row * n + column] = sum;
}
template __global__ void matmul<16>(const float *, const float *, float *, int);

// Inclusive scan of a block with warp shuffles, then the block sums by look-back.
__global__ void scan(const unsigned *in, unsigned *out, volatile unsigned *state, int n)
{
	__shared__ unsigned warps[32], before;
	__shared__ int ticket;
	unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;

	if (threadIdx.x == 0)
		ticket = atomicAdd((unsigned *)state, 1u);
	__syncthreads();
	int i = ticket * blockDim.x + threadIdx.x;
	unsigned value = i < n ? in[i] : 0;

	for (int d = 1; d < 32; d *= 2) {
		unsigned other = __shfl_up_sync(~0u, value, d);
		if (lane >= d)
			value += other;
	}
	if (lane == 31)
		warps[warp] = value;
	__syncthreads();
	if (warp == 0) {
		unsigned sum = lane < blockDim.x / 32 ? warps[lane] : 0;
		for (int d = 1; d < 32; d *= 2) {
			unsigned other = __shfl_up_sync(~0u, sum, d);
			if (lane >= d)
				sum += other;
		}
		warps[lane] = sum;
	}
	__syncthreads();
	if (warp)
		value += warps[warp - 1];
	if (threadIdx.x == blockDim.x - 1) {
		// the sum of all earlier blocks arrives in state[1 + ticket], plus one
		unsigned sum;
		if (ticket == 0)
			sum = 1;
		else
			while (!(sum = state[ticket + 1]))
				;
		before = sum - 1;
		state[ticket + 2] = sum + value;
		__threadfence();
	}
	__syncthreads();
	if (i < n)
		out[i] = value + before;
}

__global__ void histogram(const unsigned char *data, int n, unsigned *bins)
{
	__shared__ unsigned local[256];

	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		local[i] = 0;
	__syncthreads();
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&local[data[i]], 1u);
	__syncthreads();
	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		atomicAdd(&bins[i], local[i]);
}

__global__ void bitonic(int *data)
{
	extern __shared__ int shared[];
	unsigned t = threadIdx.x;

	shared[t] = data[blockIdx.x * blockDim.x + t];
	for (unsigned k = 2; k <= blockDim.x; k *= 2)
		for (unsigned j = k / 2; j; j /= 2) {
			__syncthreads();
			unsigned other = t ^ j;
			if (other > t && (shared[t] > shared[other]) == !(t & k)) {
				int swap = shared[t];
				shared[t] = shared[other];
				shared[other] = swap;
			}
		}
	__syncthreads();
	data[blockIdx.x * blockDim.x + t] = shared[t];
}

__global__ void mandelbrot(unsigned *out, int width, int height, int limit)
{
	int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;

	if (x >= width || y >= height)
		return;
	double cr = -2.0 + 3.0 * x / width, ci = -1.0 + 2.0 * y / height, r = 0, i = 0;
	int count = 0;
	while (count < limit && __dadd_rn(__dmul_rn(r, r), __dmul_rn(i, i)) <= 4.0) {
		double next = __dadd_rn(__dsub_rn(__dmul_rn(r, r), __dmul_rn(i, i)), cr);
		i = __dadd_rn(__dmul_rn(2 * r, i), ci);
		r = next;
		count++;
	}
	out[y * width + x] = count;
}

struct Particle {
	float3 position, velocity;
	double mass;
	short kind;
	char name[3];
};

__global__ void particles(Particle *all, int n, Particle shift)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i >= n)
		return;
	Particle p = all[i];
	p.position.x += p.velocity.x * 2 + shift.position.x;
	p.position.y -= p.velocity.y;
	p.mass *= shift.mass;
	p.kind = (short)(p.kind * 3 - shift.kind);
	p.name[1] = shift.name[2];
	all[i] = p;
}

__global__ void divisions(const long long *a, const long long *b, long long *out, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i >= n)
		return;
	out[4 * i] = a[i] / b[i];
	out[4 * i + 1] = a[i] % b[i];
	out[4 * i + 2] = (unsigned long long)a[i] / (unsigned long long)b[i];
	out[4 * i + 3] = (int)a[i] / ((int)b[i] | 1);
}

__global__ void mathematics(const double *x, double *out, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i >= n)
		return;
	double v = x[i];
	double *o = out + 16 * i;
	o[0] = sin(v), o[1] = cos(v), o[2] = tan(v), o[3] = exp(v * 0.01), o[4] = log(fabs(v));
	o[5] = pow(fabs(v), 0.3), o[6] = atan2(v, 2.0), o[7] = tanh(v), o[8] = cbrt(v);
	o[9] = erf(v), o[10] = lgamma(fabs(v) + 1), o[11] = hypot(v, 3.0), o[12] = fmod(v, 0.7);
	o[13] = floor(v), o[14] = rint(v), o[15] = sqrt(fabs(v));
}

__global__ void mathematics32(const float *x, float *out, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i >= n)
		return;
	float v = x[i];
	float *o = out + 16 * i;
	o[0] = sinf(v), o[1] = cosf(v), o[2] = tanf(v), o[3] = expf(v * 0.01f), o[4] = logf(fabsf(v));
	o[5] = powf(fabsf(v), 0.3f), o[6] = atan2f(v, 2.0f), o[7] = tanhf(v), o[8] = cbrtf(v);
	o[9] = erff(v), o[10] = lgammaf(fabsf(v) + 1), o[11] = hypotf(v, 3.0f), o[12] = fmodf(v, 0.7f);
	o[13] = floorf(v), o[14] = rintf(v), o[15] = sqrtf(fabsf(v));
}

__global__ void halves(const __half *a, const __half *b, __half *out, __nv_bfloat16 *brain, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i >= n)
		return;
	__half2 pair = __halves2half2(a[i], b[i]);
	out[4 * i] = __hadd(a[i], b[i]);
	out[4 * i + 1] = __hfma(a[i], b[i], a[i]);
	out[4 * i + 2] = __high2half(__hmul2(pair, pair));
	out[4 * i + 3] = __hgt(a[i], b[i]) ? a[i] : __hneg(b[i]);
	brain[2 * i] = __float2bfloat16(__half2float(a[i]));
	brain[2 * i + 1] = __hmul(brain[2 * i], __float2bfloat16(3.0f));
}

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n)
{
	if (m == 0)
		return n + 1;
	return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

__global__ void recursion(unsigned *out)
{
	out[threadIdx.x] = ackermann(threadIdx.x % 3, threadIdx.x % 5);
}

typedef int (*Visitor)(int, int *);
__device__ int add(int value, int *state) { return *state += value; }
__device__ int multiply(int value, int *state) { return *state *= value; }
__device__ int forget(int, int *state) { return *state = 1; }
__device__ Visitor visitors[3] = { add, multiply, forget };

__global__ void visit(int *out, const int *program, int length)
{
	int state = threadIdx.x;

	for (int i = 0; i < length; i++)
		visitors[(program[i] + threadIdx.x) % 3](i + 1, &state);
	out[threadIdx.x] = state;
}

// A list built by one launch in the device's heap, added up and freed by another.
struct Node {
	Node *next;
	int value;
};
__device__ Node *heads[64];

__global__ void build(int length)
{
	heads[threadIdx.x] = NULL;
	for (int i = 0; i < length; i++) {
		Node *node = new Node;
		node->next = heads[threadIdx.x];
		node->value = i * threadIdx.x;
		heads[threadIdx.x] = node;
	}
}

__global__ void consume(int *out)
{
	int sum = 0;

	for (Node *node = heads[threadIdx.x]; node;) {
		Node *next = node->next;
		sum += node->value;
		delete node;
		node = next;
	}
	out[threadIdx.x] = sum;
}

// Jacobi steps on a ring with a grid-wide barrier between them.
__global__ void jacobi(float *a, float *b, int n, int steps)
{
	cg::grid_group grid = cg::this_grid();
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	for (int step = 0; step < steps; step++) {
		float *from = step % 2 ? b : a, *to = step % 2 ? a : b;
		to[i] = 0.5f * from[i] + 0.25f * (from[(i + 1) % n] + from[(i + n - 1) % n]);
		grid.sync();
	}
}

__global__ void tiles(const int *in, int *out)
{
	cg::thread_block block = cg::this_thread_block();
	cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
	int value = in[block.thread_rank()];

	for (int d = tile.size() / 2; d; d /= 2)
		value += tile.shfl_down(value, d);
	value = tile.shfl(value, 0);
	if (threadIdx.x % 3 == 0) {
		cg::coalesced_group active = cg::coalesced_threads();
		value += 1000 * active.size() + active.thread_rank();
	}
	out[block.thread_rank()] = value + (tile.any(value % 2) ? 100000 : 0);
}

__global__ void report(const float *x)
{
	if (threadIdx.x < 2)
		printf("block %d thread %u: %.2f %s\n", blockIdx.x, threadIdx.x, x[threadIdx.x],
		       x[threadIdx.x] > 0 ? "positive" : "other");
}

__constant__ int weights[5] = { 1, 4, 6, 4, 1 };
__device__ unsigned launches;

__global__ void smooth(const unsigned char *in, unsigned char *out, int width, int height)
{
	int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;

	if (x == 0 && y == 0)
		atomicAdd(&launches, 1u);
	if (x >= width || y >= height)
		return;
	int sum = 0;
	for (int dy = -2; dy <= 2; dy++)
		for (int dx = -2; dx <= 2; dx++) {
			int sx = min(max(x + dx, 0), width - 1), sy = min(max(y + dy, 0), height - 1);
			sum += weights[dx + 2] * weights[dy + 2] * in[sy * width + sx];
		}
	out[y * width + x] = (sum + 128) / 256;
}
