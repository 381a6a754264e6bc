/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_PRINTABLE_H
#define BITFUSION_PRINTABLE_H

#include <stddef.h>

/* What others wrote, as a terminal or a log may show it: one line of printable ASCII, the rest as escapes. Cut where
 * there is no room; returns its length.
 */
static inline size_t bf_printable(char *out, size_t room, const char *text)
{
	static const char digits[] = "0123456789abcdef";
	size_t used = 0;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		char escape[4] = { '\\', 'x', digits[c >> 4], digits[c & 15] };
		size_t size = 4;

		if (c >= ' ' && c <= '~') {
			escape[0] = (char)c;
			size = 1;
		} else if (c == '\n') {
			escape[1] = 'n';
			size = 2;
		}
		if (size >= room - used)
			break;
		for (size_t i = 0; i < size; i++)
			out[used++] = escape[i];
	}
	out[used] = 0;
	return used;
}

#endif
