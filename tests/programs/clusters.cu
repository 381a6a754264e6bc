/* SPDX-License-Identifier: Apache-2.0
 *
 * What GPUs of compute capability 9.0 brought: a reduction through the shared memory of a cluster's blocks, a pipeline
 * of bulk copies and mbarriers, a tile that a tensor map brings in swizzled.
 */
#include <cooperative_groups.h>
#include <cudaTypedefs.h>
#include <cuda/ptx>
#include <vector>

#include "check.cuh"

namespace cg = cooperative_groups;
namespace ptx = cuda::ptx;

static const int blocks = 24, cluster_blocks = 4, threads = 128;

/* Each block adds up its part; the first of its cluster adds the parts up, reading them from the others. */
__global__ void cluster_sum(const int *in, int *out, int count)
{
	__shared__ int part;
	cg::cluster_group cluster = cg::this_cluster();
	int sum = 0;

	if (threadIdx.x == 0)
		part = 0;
	__syncthreads();
	for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < count; k += gridDim.x * blockDim.x)
		sum += in[k];
	atomicAdd(&part, sum);
	cluster.sync();
	if (cluster.block_rank() == 0 && threadIdx.x < cluster.num_blocks())
		atomicAdd(out, *cluster.map_shared_rank(&part, threadIdx.x));
	cluster.sync();
}

static const int stages = 3, tiles = 10, tile = 512;

/* A warp brings tiles into a ring of buffers; the others add them up as they come. */
__global__ void pipeline(const float *in, float *out)
{
	__shared__ alignas(128) float ring[stages][tile];
	__shared__ uint64_t full[stages], empty[stages];
	const bool producer = threadIdx.x >= threads;

	if (threadIdx.x == 0) {
		for (int s = 0; s < stages; s++) {
			ptx::mbarrier_init(&full[s], 1);
			ptx::mbarrier_init(&empty[s], threads);
		}
		ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
	}
	__syncthreads();
	in += blockIdx.x * tiles * tile;
	if (producer && threadIdx.x > threads)
		return;
	float sum = 0;
	for (int n = 0; n < tiles; n++) {
		const int s = n % stages, parity = n / stages & 1;

		if (producer) {
			while (!ptx::mbarrier_try_wait_parity(&empty[s], parity ^ 1))
				;
			ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &full[s],
						       sizeof(ring[s]));
			ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, ring[s], in + n * tile,
					   sizeof(ring[s]), &full[s]);
		} else {
			while (!ptx::mbarrier_try_wait_parity(&full[s], parity))
				;
			for (int k = threadIdx.x; k < tile; k += threads)
				sum += ring[s][k];
			ptx::mbarrier_arrive(&empty[s]);
		}
	}
	if (!producer)
		out[blockIdx.x * threads + threadIdx.x] = sum;
}

/* A tile of 32 x 8 ints, whose parts of 16 bytes change places within rows of 128 bytes; it goes back transposed. */
__global__ void swizzled(const __grid_constant__ CUtensorMap map, int *out, int x, int y)
{
	__shared__ alignas(1024) int box[8][32];
	__shared__ uint64_t barrier;

	if (threadIdx.x == 0) {
		const int place[2] = { x, y };

		ptx::mbarrier_init(&barrier, 1);
		ptx::fence_proxy_async(ptx::space_shared);
		ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, box, &map, place, &barrier);
		ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &barrier,
					       sizeof(box));
	}
	__syncthreads();
	while (!ptx::mbarrier_try_wait_parity(&barrier, 0))
		;
	for (int row = 0; row < 8; row++)
		out[threadIdx.x * 8 + row] = box[row][(threadIdx.x / 4 ^ row) * 4 + threadIdx.x % 4];
}

static void run_cluster_sum()
{
	const int count = 100000;
	std::vector<int> in(count);
	int *device, *out, sum = 0;
	long wanted = 0;

	for (int k = 0; k < count; k++)
		wanted += in[k] = k % 17 - 5;
	CHECK(cudaMalloc(&device, count * sizeof(int)));
	CHECK(cudaMalloc(&out, sizeof(int)));
	CHECK(cudaMemcpy(device, in.data(), count * sizeof(int), cudaMemcpyHostToDevice));
	CHECK(cudaMemset(out, 0, sizeof(int)));
	cudaLaunchAttribute attribute = {};
	attribute.id = cudaLaunchAttributeClusterDimension;
	attribute.val.clusterDim = { cluster_blocks, 1, 1 };
	cudaLaunchConfig_t config = {};
	config.gridDim = blocks;
	config.blockDim = threads;
	config.attrs = &attribute;
	config.numAttrs = 1;
	CHECK(cudaLaunchKernelEx(&config, cluster_sum, (const int *)device, out, count));
	CHECK(cudaMemcpy(&sum, out, sizeof(int), cudaMemcpyDeviceToHost));
	printf("cluster sum %s: %d\n", sum == wanted ? "good" : "wrong", sum);
	CHECK(cudaFree(device));
	CHECK(cudaFree(out));
}

static void run_pipeline()
{
	const int count = blocks * tiles * tile;
	std::vector<float> in(count), got(blocks * threads);
	float *device, *out;
	int wrong = 0;

	for (int k = 0; k < count; k++)
		in[k] = (float)(k % 100);
	CHECK(cudaMalloc(&device, count * sizeof(float)));
	CHECK(cudaMalloc(&out, got.size() * sizeof(float)));
	CHECK(cudaMemcpy(device, in.data(), count * sizeof(float), cudaMemcpyHostToDevice));
	pipeline<<<blocks, threads + 32>>>(device, out);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(got.data(), out, got.size() * sizeof(float), cudaMemcpyDeviceToHost));
	for (int b = 0; b < blocks; b++) {
		for (int t = 0; t < threads; t++) {
			float sum = 0;

			for (int k = t; k < tiles * tile; k += threads)
				sum += in[b * tiles * tile + k];
			wrong += sum != got[b * threads + t];
		}
	}
	printf("pipeline: %d wrong, first %g\n", wrong, got[0]);
	CHECK(cudaFree(device));
	CHECK(cudaFree(out));
}

static void run_swizzled()
{
	const int width = 60, height = 20, pitch = 64;
	std::vector<int> in(pitch * height), got(32 * 8);
	PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
	cudaDriverEntryPointQueryResult found;
	alignas(64) CUtensorMap map;
	int *device, *out;

	for (size_t k = 0; k < in.size(); k++)
		in[k] = (int)k;
	CHECK(cudaMalloc(&device, in.size() * sizeof(int)));
	CHECK(cudaMalloc(&out, got.size() * sizeof(int)));
	CHECK(cudaMemcpy(device, in.data(), in.size() * sizeof(int), cudaMemcpyHostToDevice));
	CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000, cudaEnableDefault,
					       &found));
	const cuuint64_t dims[2] = { width, height }, strides[1] = { pitch * sizeof(int) };
	const cuuint32_t box[2] = { 32, 8 }, steps[2] = { 1, 1 }, wide[2] = { 64, 8 };
	const CUresult made = encode(&map, CU_TENSOR_MAP_DATA_TYPE_INT32, 2, device, dims, strides, box, steps,
				     CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
				     CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	CUtensorMap other;
	const CUresult refused = encode(&other, CU_TENSOR_MAP_DATA_TYPE_INT32, 2, device, dims, strides, wide, steps,
					CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
					CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	printf("tensor map: %d, too wide: %d\n", made, refused);
	static const int places[][2] = { { 0, 0 }, { 16, 5 }, { 40, 15 }, { -8, -3 } };
	for (const auto &at : places) {
		int wrong = 0;

		swizzled<<<1, 32>>>(map, out, at[0], at[1]);
		CHECK(cudaGetLastError());
		CHECK(cudaMemcpy(got.data(), out, got.size() * sizeof(int), cudaMemcpyDeviceToHost));
		for (int row = 0; row < 8; row++) {
			for (int k = 0; k < 32; k++) {
				const int x = at[0] + k, y = at[1] + row;
				const bool inside = x >= 0 && x < width && y >= 0 && y < height;

				wrong += got[k * 8 + row] != (inside ? in[y * pitch + x] : 0);
			}
		}
		printf("tile at (%d,%d): %d wrong, last %d\n", at[0], at[1], wrong, got[255]);
	}
	CHECK(cudaFree(device));
	CHECK(cudaFree(out));
}

int main()
{
	int major = 0;

	CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
	if (major < 9) {
		printf("the device has no clusters\n");
		return 0;
	}
	run_cluster_sum();
	run_pipeline();
	run_swizzled();
	return 0;
}
