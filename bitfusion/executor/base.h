/* SPDX-License-Identifier: Apache-2.0
 *
 * What every file of the executor begins with.
 */
#ifndef BITFUSION_EXECUTOR_BASE_H
#define BITFUSION_EXECUTOR_BASE_H

#include "cuda.h"
#include "executor.h"
#include "row.h"
#include "transport.h"
#include "wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_EXPORT __attribute__((visibility("default")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A status of our own, never sent: the client broke the rules and its session ends. */
#define BF_VIOLATION ((CUresult)0x7fffff01)

static inline size_t bf_pad(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

#endif
