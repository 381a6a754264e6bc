/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserved addresses of the null driver: there is memory at all of them, mapped or not.
 */
#define _GNU_SOURCE
#include "null.h"

#include <stdatomic.h>
#include <sys/mman.h>

#ifdef __SANITIZE_THREAD__
#define FIRST_ADDRESS 0x560000000000ull
#else
#define FIRST_ADDRESS 0x300000000000ull
#endif

CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
			     unsigned long long flags)
{
	static _Atomic uint64_t next = FIRST_ADDRESS;
	uint64_t unit = alignment ? alignment : 2 << 20, at;
	void *memory;

	NULL_ENTER();
	at = addr ? addr : (atomic_fetch_add(&next, size + unit) + unit - 1) / unit * unit;
	memory = mmap((void *)(uintptr_t)at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	if (memory == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*ptr = (uint64_t)(uintptr_t)memory;
	return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	NULL_ENTER();
	return munmap((void *)(uintptr_t)ptr, size) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
