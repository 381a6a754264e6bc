/* SPDX-License-Identifier: Apache-2.0
 *
 * Decodes what the server sends. Only the thread that leads runs this, so nothing here is locked. A server that
 * breaks the rules loses the connection: no length is trusted before it is checked.
 */
#define _GNU_SOURCE
#include "late.h"
#include "reply.h"
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Under AddressSanitizer each body gets memory of its own, so that reading past its end is seen. */
#ifdef __SANITIZE_ADDRESS__
enum { INLINE_BODY = 0 };
#else
enum { INLINE_BODY = sizeof((struct bf_wait *)NULL)->inline_body };
#endif
enum { RECEIVE_AT_ONCE = 64 << 10, BUFFER_SIZE = BF_MAX_COMMAND + RECEIVE_AT_ONCE };

static struct {
	uint8_t *buffer;
	size_t start, end; /* what has been received and not been used */
} input;

void bf_receive_open(void)
{
	if (!input.buffer) {
		void *memory = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		input.buffer = memory == MAP_FAILED ? NULL : memory;
	}
	input.start = input.end = 0;
}

int bf_receive_poll(void)
{
	struct pollfd data = { .fd = bf_queue_transport()->fd, .events = POLLIN };

	while (poll(&data, 1, -1) < 0)
		if (errno != EINTR)
			return -1;
	return data.revents & POLLNVAL ? -1 : 0;
}

bool bf_receive_ready(void)
{
	struct pollfd data = { .fd = bf_queue_transport()->fd, .events = POLLIN };

	return poll(&data, 1, 0) != 0;
}

/* Makes at least `size` bytes available at input.start. */
static int fill(size_t size)
{
	if (!input.buffer)
		return -1;
	if (input.start == input.end)
		input.start = input.end = 0;
	else if (input.start + size > BUFFER_SIZE - RECEIVE_AT_ONCE) {
		memmove(input.buffer, input.buffer + input.start, input.end - input.start);
		input.end -= input.start;
		input.start = 0;
	}
	while (input.end - input.start < size) {
		size_t room = BUFFER_SIZE - input.end;
		ssize_t received = bf_transport_receive(bf_queue_transport(), input.buffer + input.end,
							room < RECEIVE_AT_ONCE ? room : RECEIVE_AT_ONCE);

		if (received <= 0)
			return -1;
		input.end += received;
	}
	return 0;
}

static int receive_bulk(uint8_t *to, uint64_t size)
{
	uint64_t buffered = input.end - input.start;

	if (buffered > size)
		buffered = size;
	memcpy(to, input.buffer + input.start, buffered);
	input.start += buffered;
	return bf_transport_receive_all(bf_queue_transport(), to + buffered, size - buffered);
}

/* It costs the connection: nothing that this server says can be believed. */
static int broke_rule(const struct bf_reply *reply, const char *why)
{
	bf_tell("the GPU server broke the rules of the wire: %s (kind %u, %u bytes, request %u)", why, reply->kind,
		reply->size, reply->request);
	return -1;
}

static uint8_t *destination(struct bf_wait *wait, const struct bf_data *data)
{
	uint64_t end = data->offset + data->size;

	if (data->size > BF_MAX_COPY || data->offset > BF_MAX_COPY)
		return NULL;
	if (wait->data_grows && end > wait->data_size && end <= BF_MAX_IMAGE) {
		uint8_t *grown = realloc(wait->data, end);

		if (!grown)
			return NULL;
		wait->data = grown;
		wait->data_size = end;
	}
	return end <= wait->data_size ? wait->data + data->offset : NULL;
}

static int take_data(const struct bf_reply *reply, const uint8_t *body, size_t size)
{
	struct bf_wait *wait = bf_wait_find(reply->request);
	struct bf_data data;
	uint8_t *to;

	if (!wait && bf_reply_is_over())
		return -1;
	if (size < sizeof data || !wait)
		return broke_rule(reply, wait ? "data without its place" : "data that nobody waits for");
	memcpy(&data, body, sizeof data);
	to = destination(wait, &data);
	if (!to)
		return broke_rule(reply, "more data than there is room for");
	wait->data_came += data.size;
	return receive_bulk(to, data.size);
}

/* Where it does not bring all, the call looks at what has come. */
static bool brings_all(const struct bf_wait *wait)
{
	return !wait->data_grows && wait->call != BF_OP_REFRESH;
}

static int take_reply(const struct bf_reply *reply, const uint8_t *body, size_t size)
{
	struct bf_wait *wait = bf_wait_find(reply->request);

	if (!wait && bf_reply_is_over())
		return 0; /* who waited for it was told already; output may follow */
	if (!wait)
		return broke_rule(reply, "a reply that nobody waits for");
	if (!reply->status && brings_all(wait) && wait->data_came < wait->data_size)
		return broke_rule(reply, "a copy without all of its data");
	wait->status = reply->status;
	wait->deferred = reply->deferred;
	wait->deferred_call = reply->deferred_call;
	wait->body = size <= INLINE_BODY ? (uint8_t *)wait->inline_body : malloc(size);
	if (!wait->body)
		wait->status = CUDA_ERROR_OUT_OF_MEMORY;
	else {
		memcpy(wait->body, body, size);
		wait->body_size = (uint32_t)size;
	}
	bf_wait_complete(wait);
	return 0;
}

static int take_callback(const struct bf_reply *reply, const uint8_t *body, size_t size)
{
	struct bf_callback callback;

	if (size < sizeof callback)
		return broke_rule(reply, "a callback that is cut off");
	memcpy(&callback, body, sizeof callback);
	return bf_callback_queue(&callback);
}

static int take_fetch(const struct bf_reply *reply, const uint8_t *body, size_t size)
{
	struct bf_fetch fetch;

	if (size < sizeof fetch)
		return broke_rule(reply, "a question for a source that is cut off");
	memcpy(&fetch, body, sizeof fetch);
	bf_late_fetch(&fetch);
	return 0;
}

/* What a kernel prints belongs to the program's own output, in order with it; and is out when the program aborts. */
static int take_output(const struct bf_reply *reply, const uint8_t *body, size_t size)
{
	struct bf_output output = { 0 };
	FILE *file;

	if (size >= sizeof output)
		memcpy(&output, body, sizeof output);
	if (size < sizeof output || output.size > size - sizeof output)
		return broke_rule(reply, "output that is cut off");
	file = output.fd == 2 ? stderr : stdout;
	if (fwrite(body + sizeof output, 1, output.size, file) != output.size)
		bf_debug("cannot print what the device printed, ignoring");
	fflush(file);
	return 0;
}

static int take_progress(const struct bf_reply *reply)
{
	struct bf_wait *wait = bf_wait_find(reply->request);

	if (!wait || wait->call != BF_OP_PROGRESS)
		return broke_rule(reply, "progress that nobody asked for");
	bf_wait_complete(wait);
	return 0;
}

static int take_frame(const struct bf_reply *reply)
{
	const uint8_t *body = input.buffer + input.start + sizeof *reply;
	size_t size = reply->size - sizeof *reply;

	input.start += reply->size;
	switch (reply->kind) {
	case BF_REPLY: return take_reply(reply, body, size);
	case BF_DATA: return take_data(reply, body, size);
	case BF_CALLBACK: return take_callback(reply, body, size);
	case BF_OUTPUT: return take_output(reply, body, size);
	case BF_FETCH: return take_fetch(reply, body, size);
	case BF_PROGRESS: return take_progress(reply);
	default: return broke_rule(reply, "a frame of a kind that is not known");
	}
}

static int receive_frame(void)
{
	struct bf_reply reply;

	if (fill(sizeof reply))
		return -1;
	memcpy(&reply, input.buffer + input.start, sizeof reply);
	if (reply.size < sizeof reply || reply.size > BF_MAX_COMMAND || reply.size % 8)
		return broke_rule(&reply, "a frame of a size that there is not");
	if (fill(reply.size))
		return -1;
	return take_frame(&reply);
}

/* One frame at least, then those that have come with it. A frame that is incomplete waits for the next time. */
int bf_receive_frames(void)
{
	struct bf_reply reply;

	do {
		if (receive_frame())
			return -1;
		if (input.end - input.start < sizeof reply)
			return 0;
		memcpy(&reply, input.buffer + input.start, sizeof reply);
	} while (input.end - input.start >= reply.size);
	return 0;
}
