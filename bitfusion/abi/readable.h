/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether memory that a program points to is there, asked of the kernel: its length is from a header that may be wrong.
 */
#ifndef BITFUSION_ABI_READABLE_H
#define BITFUSION_ABI_READABLE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

enum { READABLE_PAGE = 4096, READABLE_BATCH = 64 };

/* One byte of each page, copied by the kernel; returns whether none of them faults. */
static inline bool readable_by_copy(uintptr_t first, uintptr_t last)
{
	struct iovec pages[READABLE_BATCH];
	char bytes[READABLE_BATCH];

	for (uintptr_t page = first; page <= last;) {
		struct iovec to = { .iov_base = bytes };

		for (; to.iov_len < READABLE_BATCH && page <= last; page += READABLE_PAGE)
			pages[to.iov_len++] = (struct iovec){ .iov_base = (void *)page, .iov_len = 1 };
		ssize_t copied = process_vm_readv(getpid(), &to, 1, pages, to.iov_len, 0);
		if (copied < 0 && errno != EFAULT)
			return true; /* a sandbox forbids to ask */
		if (copied != (ssize_t)to.iov_len)
			return false;
	}
	return true;
}

static inline bool readable(const void *memory, size_t size)
{
	uintptr_t first = (uintptr_t)memory & ~(uintptr_t)(READABLE_PAGE - 1), end = (uintptr_t)memory + size;

	if (!size || end < size)
		return !size;
	/* brings the pages in, as reading them would; older kernels do not know it, others say no also of some that are */
	return !madvise((void *)first, end - first, MADV_POPULATE_READ) || readable_by_copy(first, end - 1);
}

#endif
