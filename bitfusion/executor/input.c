/* SPDX-License-Identifier: Apache-2.0
 *
 * The receiving side: one large buffer, so that a single receive brings many small commands.
 */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Received at once: many small commands, but little of the bulk data behind one, which is to go to its place
 * directly. There is at least as much free space behind an unfinished command. */
enum { ROOM = 64 << 10 };

bool bf_input_init(struct bf_session *session)
{
	struct bf_input *input = &session->input;
	input->capacity = BF_MAX_COMMAND + ROOM;
	input->base = aligned_alloc(64, input->capacity);
	input->aligned = aligned_alloc(64, BF_MAX_COMMAND);
	return input->base && input->aligned;
}

static void compact(struct bf_input *input)
{
	size_t have = input->end - input->start;
	/* moved by a multiple of 8, so that aligned commands stay aligned */
	size_t to = have ? input->start & 7 : 0;
	if (input->start == to)
		return;
	memmove(input->base + to, input->base + input->start, have);
	input->start = to;
	input->end = to + have;
}

static ssize_t receive(struct bf_session *session, uint8_t *to, size_t room, bool wait)
{
	struct bf_input *input = &session->input;
	size_t had = input->ahead ? bf_ahead_take(input, to, room) : 0;
	if (had)
		return (ssize_t)had;
	return wait ? bf_transport_receive(&session->transport, to, room)
		    : bf_transport_receive_some(&session->transport, to, room);
}

static int more(struct bf_session *session, bool wait)
{
	struct bf_input *input = &session->input;
	if (wait && (input->start == input->end || input->capacity - input->end < ROOM))
		compact(input);
	size_t room = input->capacity - input->end;
	if (!room)
		return 1;
	room = room < ROOM ? room : ROOM;
	for (;;) {
		ssize_t size = receive(session, input->base + input->end, room, wait);
		if (size > 0) {
			input->end += (size_t)size;
			input->received += (uint64_t)size;
			return 1;
		}
		if (size == 0)
			return -1;
		if (!wait && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			return 0;
		if (errno != EINTR)
			return -1;
	}
}

static void lock(struct bf_input *input)
{
	if (input->ahead)
		bf_ahead_lock(input);
}

static void unlock(struct bf_input *input)
{
	if (input->ahead)
		bf_ahead_unlock(input);
}

/* Without wait nothing is moved: commands being carried out still lie in the buffer. */
int bf_input_more(struct bf_session *session, bool wait)
{
	lock(&session->input);
	int got = more(session, wait);
	unlock(&session->input);
	return got;
}

/* What the buffer does not have, straight to where it goes. */
static bool take_rest(struct bf_session *session, uint8_t *to, size_t size)
{
	struct bf_input *input = &session->input;
	lock(input);
	size_t had = input->ahead ? bf_ahead_take(input, to, size) : 0;
	bool whole = had == size || bf_transport_receive_all(&session->transport, to + had, size - had) == 0;
	input->received += size;
	input->start = input->end = 0;
	unlock(input);
	return whole;
}

bool bf_input_take(struct bf_session *session, void *data, size_t size)
{
	struct bf_input *input = &session->input;
	size_t have = input->end - input->start;
	have = have < size ? have : size;
	memcpy(data, input->base + input->start, have);
	input->start += have;
	return have == size || take_rest(session, (uint8_t *)data + have, size - have);
}

bool bf_input_skip(struct bf_session *session, uint64_t size)
{
	struct bf_input *input = &session->input;
	for (;;) {
		uint64_t have = input->end - input->start;
		have = have < size ? have : size;
		input->start += have;
		size -= have;
		if (!size)
			return true;
		if (bf_input_more(session, true) < 0)
			return false;
	}
}

const uint8_t *bf_input_peek(struct bf_session *session, size_t size)
{
	struct bf_input *input = &session->input;
	if (input->capacity - input->start < size) {
		lock(input);
		compact(input);
		unlock(input);
	}
	while (input->end - input->start < size) {
		if (bf_input_more(session, true) < 0)
			return NULL;
	}
	return input->base + input->start;
}
