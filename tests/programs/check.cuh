/* SPDX-License-Identifier: Apache-2.0
 *
 * What the CUDA C++ test programs share: stop at the first error, and a checksum that fits one printed word.
 */
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

#define CHECK(call) \
	do { \
		cudaError_t status_ = (call); \
		if (status_ != cudaSuccess) { \
			printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorName(status_)); \
			exit(1); \
		} \
	} while (0)

static inline uint64_t checksum(const void *bytes, size_t size)
{
	uint64_t hash = 14695981039346656037ull;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211ull;
	return hash;
}
