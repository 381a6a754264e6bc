/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_CLOCK_H
#define BITFUSION_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t bf_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
