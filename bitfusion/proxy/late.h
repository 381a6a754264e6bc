/* SPDX-License-Identifier: Apache-2.0
 *
 * Sources of copies that are read when the stream gets there.
 */
#ifndef BITFUSION_LATE_H
#define BITFUSION_LATE_H

#include "proxy.h"

struct bf_late_box {
	const uint8_t *at;
	uint64_t width, height, depth;
	uint64_t pitch, layer; /* bytes from one row, one layer to the next */
};

/* May work that the stream has before a copy still write the copy's source? */
CUresult bf_late_needed(const void *data, size_t size, CUstream stream, bool *needed);
CUresult bf_late_add(const struct bf_late_box *box, CUstream stream, uint32_t *number);
void bf_late_cancel(uint32_t number); /* its copy was not sent */
void bf_late_fetch(const struct bf_fetch *asked); /* called by whoever reads the socket */
/* Stream of a copy that has yet to read some of [data, data + size), if there is one. */
bool bf_late_reads(const void *data, size_t size, uint64_t *stream);
/* The stream has come past them, or has failed and never will. */
void bf_late_forget(const void *data, size_t size, uint64_t stream);
/* The connection is gone: when this returns, no source is read any more. */
void bf_late_settle(void);

#endif
