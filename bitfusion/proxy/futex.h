/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_FUTEX_H
#define BITFUSION_FUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while *word is `expected`; may return early. timeout may be NULL. */
static inline void bf_futex_wait(_Atomic uint32_t *word, uint32_t expected, const struct timespec *timeout)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, NULL, 0);
}

static inline void bf_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif
