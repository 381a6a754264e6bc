/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files share that read the arguments of a row (decode.c, decode_struct.c).
 */
#ifndef BITFUSION_EXECUTOR_READER_H
#define BITFUSION_EXECUTOR_READER_H

#include "frame.h"

#include <string.h>

typedef uint64_t u64;

struct reader {
	const uint8_t *at, *end;
};

static inline bool read_u64(struct reader *reader, u64 *value)
{
	if (unlikely((size_t)(reader->end - reader->at) < sizeof(*value)))
		return false;
	memcpy(value, reader->at, sizeof(*value));
	reader->at += sizeof(*value);
	return true;
}

static inline const uint8_t *read_bytes(struct reader *reader, u64 size)
{
	const uint8_t *bytes = reader->at;
	if (size > BF_MAX_COMMAND || (size_t)(reader->end - reader->at) < bf_pad(size))
		return NULL;
	reader->at += bf_pad(size);
	return bytes;
}

/* Room for an argument in memory of ours, zeroed. */
static inline bool reserve(struct bf_frame *frame, u64 size, u64 *argument)
{
	if (size > BF_MAX_COMMAND || frame->scratch_size + bf_pad(size) + 16 > BF_SCRATCH)
		return false;
	uint8_t *place = frame->scratch + frame->scratch_size;
	frame->scratch_size += bf_pad(size);
	memset(place, 0, bf_pad(size));
	*argument = (u64)(uintptr_t)place;
	return true;
}

CUresult bf_read_config(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader);
CUresult bf_read_kernel_node(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader);
/* Translates what is in it. */
CUresult bf_place_resource(struct bf_session *session, CUDA_RESOURCE_DESC *resource);

#endif
