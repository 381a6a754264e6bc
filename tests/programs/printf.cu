/* SPDX-License-Identifier: Apache-2.0
 *
 * Text from the device: it appears at the next wait, in order within a thread.
 */
#include "check.cuh"

__global__ void speak(int number, double value, const char *word)
{
	printf("block %d thread %d: %d %5.2f %s %llx %c%%\n", blockIdx.x, threadIdx.x, number, value, "constant",
	       0x123456789abcdefULL, 'a' + threadIdx.x);
}

int main()
{
	printf("before\n");
	fflush(stdout);
	speak<<<1, 1>>>(1, 2.5, NULL);
	CHECK(cudaDeviceSynchronize());
	speak<<<1, 3>>>(-7, 1e6 / 3, NULL);
	CHECK(cudaDeviceSynchronize());
	printf("after\n");
	return 0;
}
