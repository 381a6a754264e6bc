/* SPDX-License-Identifier: Apache-2.0
 *
 * What every file of the proxy begins with.
 */
#ifndef BITFUSION_PROXY_BASE_H
#define BITFUSION_PROXY_BASE_H

#include "abi.h"
#include "calls.h"
#include "cuda.h"
#include "row.h"
#include "wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_EXPORT __attribute__((visibility("default")))
#define BF_LIKELY(x) __builtin_expect(!!(x), 1)
#define BF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BF_PAD8(size) (((size) + 7) & ~(size_t)7)

#endif
