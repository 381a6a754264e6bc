/* SPDX-License-Identifier: Apache-2.0
 *
 * Code that nobody wrote for us: Thrust's and CUB's sort, scan and reduction.
 */
#include "check.cuh"

#include <thrust/device_vector.h>
#include <thrust/host_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>

int main()
{
	const int count = 50000;
	thrust::host_vector<unsigned> host(count);
	unsigned state = 12345;
	bool sorted = true;

	for (auto &value : host)
		value = state = state * 1664525u + 1013904223u;
	thrust::device_vector<unsigned> device = host;
	thrust::sort(device.begin(), device.end());
	thrust::device_vector<unsigned> sums(count);
	thrust::inclusive_scan(device.begin(), device.end(), sums.begin());
	unsigned total = thrust::reduce(device.begin(), device.end(), 0u);
	thrust::host_vector<unsigned> result = device;
	for (int i = 1; i < count; i++)
		sorted = sorted && result[i - 1] <= result[i];
	printf("sorted %d, first %u, last %u, total %u, last sum %u\n", sorted, result[0], result[count - 1], total,
	       (unsigned)sums[count - 1]);
	return !sorted;
}
