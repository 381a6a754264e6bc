/* SPDX-License-Identifier: Apache-2.0
 *
 * The null driver: a libcuda.so.1 for benchmarks and protocol tests. Every call succeeds at once, memory is host
 * memory, launches do nothing. Functions that need no state are generated (generated/stubs.c).
 */
#ifndef NULLDRIVER_NULL_H
#define NULLDRIVER_NULL_H

#include "abi.h"

enum { NULL_DEVICES = 2 };
#define NULL_MEMORY ((uint64_t)64 << 30)

/* First line of every function: counts the call and answers the failure that BITFUSION_NULL_FAIL=N[:CODE] asks
 * for at the N-th counted call (cuDeviceGet… is not counted); BITFUSION_NULL_CALLS=FILE tells each. */
CUresult null_enter(const char *function);
#define NULL_ENTER() \
	do { \
		CUresult failure_ = null_enter(__func__); \
		if (__builtin_expect(failure_ != CUDA_SUCCESS, 0)) \
			return failure_; \
	} while (0)

/* A handle that nobody may follow. */
void *null_mint(void);
/* The same one every time: a default memory pool, say. */
void *null_found(void);

CUdevice null_current_device(void);

#endif
