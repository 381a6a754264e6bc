/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest whole program: allocate, copy in, launch, copy out, compare with the host.
 */
#include "check.cuh"

#include <vector>

__global__ void add(const float *a, const float *b, float *sum, int count)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count)
		sum[i] = a[i] + b[i];
}

int main()
{
	const int count = 100003;
	std::vector<float> a(count), b(count), sum(count);
	float *device_a, *device_b, *device_sum;
	int wrong = 0;

	for (int i = 0; i < count; i++) {
		a[i] = i * 0.5f;
		b[i] = 1000.0f - i * 0.25f;
	}
	CHECK(cudaMalloc(&device_a, count * sizeof(float)));
	CHECK(cudaMalloc(&device_b, count * sizeof(float)));
	CHECK(cudaMalloc(&device_sum, count * sizeof(float)));
	CHECK(cudaMemcpy(device_a, a.data(), count * sizeof(float), cudaMemcpyHostToDevice));
	CHECK(cudaMemcpy(device_b, b.data(), count * sizeof(float), cudaMemcpyHostToDevice));
	add<<<(count + 255) / 256, 256>>>(device_a, device_b, device_sum, count);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(sum.data(), device_sum, count * sizeof(float), cudaMemcpyDeviceToHost));
	for (int i = 0; i < count; i++)
		wrong += sum[i] != a[i] + b[i];
	printf("sum[0] %g, sum[last] %g, wrong %d, checksum %016llx\n", sum[0], sum[count - 1], wrong,
	       (unsigned long long)checksum(sum.data(), count * sizeof(float)));
	CHECK(cudaFree(device_a));
	CHECK(cudaFree(device_b));
	CHECK(cudaFree(device_sum));
	return wrong != 0;
}
