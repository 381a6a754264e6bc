/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that the program has registered is its own: it may be unmapped, or closed, before anybody says so. The kernel
 * looks there for us, because it reports what would be a fault here.
 */
#define _GNU_SOURCE
#include "futex.h"
#include "shared.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE ((size_t)4096)

/* As many bytes as can be read, from the first one on. Where asking is forbidden, there is no other way than to read. */
static size_t read_some(uint8_t *to, const uint8_t *from, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)(uintptr_t)from, size };
	long got = syscall(SYS_process_vm_readv, getpid(), &local, 1L, &remote, 1L, 0L);

	if (got >= 0)
		return (size_t)got;
	if (errno == EFAULT)
		return 0;
	bf_difference_copy(to, from, size);
	return size;
}

static size_t left_in_page(const uint8_t *at)
{
	return PAGE - (uintptr_t)at % PAGE;
}

bool bf_reach_read(uint8_t *to, const uint8_t *from, const uint8_t *otherwise, size_t size)
{
	bool all = true;

	for (size_t at = 0; at < size;) {
		size_t got = read_some(to + at, from + at, size - at), page;

		at += got;
		if (at == size)
			break;
		page = left_in_page(from + at) < size - at ? left_in_page(from + at) : size - at;
		memcpy(to + at, otherwise + at, page);
		at += page;
		all = false;
	}
	return all;
}

/* One that adds nothing to a word of the page is a store for all that. */
static bool can_write(uint8_t *at)
{
	uint32_t none = 0;
	uint8_t *word = (uint8_t *)((uintptr_t)at & ~(uintptr_t)3);

	return syscall(SYS_futex, &none, FUTEX_WAKE_OP_PRIVATE, 1L, 0L, word,
		       (long)FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0)) >= 0 ||
	       errno != EFAULT;
}

bool bf_reach_apply(uint8_t *to, uint8_t *agreed, const uint8_t *from, size_t size)
{
	bool all = true;

	for (size_t at = 0, page; at < size; at += page) {
		page = left_in_page(to + at) < size - at ? left_in_page(to + at) : size - at;
		if (!memcmp(agreed + at, from + at, page))
			continue;
		if (can_write(to + at))
			bf_difference_apply(to + at, agreed + at, from + at, page);
		else
			all = false;
	}
	return all;
}
