/* SPDX-License-Identifier: Apache-2.0
 *
 * NVIDIA's own nvJitLink, used for its version, and to turn LTO-IR into PTX.
 */
#ifndef NVJITLINK_REAL_H
#define NVJITLINK_REAL_H

#include <stddef.h>
#include <stdint.h>

struct real_input {
	const void *bytes;
	size_t size;
	int type;
};

/* Links LTO-IR to PTX text (malloced, NUL-terminated), with the library of this major version, 0 for any. 0, or an
 * nvJitLinkResult with a line in error. */
int real_link_to_ptx(unsigned major, const struct real_input *inputs, unsigned input_count, char *const *options,
		     unsigned option_count, char **ptx, char *error, size_t error_size);

/* Of the library that the program has loaded; not 0 when it has none. */
int real_version(unsigned *major, unsigned *minor);

#endif
