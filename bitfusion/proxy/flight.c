/* SPDX-License-Identifier: Apache-2.0
 *
 * Work that may use shared memory and is not known to be over. It is noted by stream, so that a wait knows whether
 * anything could have changed since the last one. With the lock held, but where something is waited for.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

#include <stdlib.h>
#include <string.h>

static struct bf_flight *flights;
static size_t count, capacity; /* those in use are among the first `count` */

bool bf_flight_none(void)
{
	return !count;
}

struct bf_flight *bf_flights_now(size_t *number)
{
	struct bf_flight *copy = count ? malloc(count * sizeof *copy) : NULL;

	*number = count;
	return copy ? memcpy(copy, flights, count * sizeof *copy) : NULL;
}

static struct bf_flight *find(uint64_t number)
{
	for (size_t i = 0; i < count; i++)
		if (flights[i].number == number)
			return &flights[i];
	return NULL;
}

bool bf_flight_known(CUstream stream)
{
	return find(bf_stream_number(stream));
}

static struct bf_flight *add(void)
{
	size_t larger = capacity ? capacity * 2 : 16;
	struct bf_flight *moved;

	if (count == capacity) {
		moved = realloc(flights, larger * sizeof *moved);
		if (!moved)
			return NULL;
		flights = moved;
		capacity = larger;
	}
	flights[count] = (struct bf_flight){ .number = 0 };
	return &flights[count++];
}

/* Before the work is sent: from then on it may write, and a host function in it may look. */
CUresult bf_flight_start(CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));
	uint64_t number = bf_stream_number(stream);
	struct bf_flight *flight = find(number);

	if (!flight)
		flight = add();
	if (!flight)
		return CUDA_ERROR_OUT_OF_MEMORY;
	flight->number = number;
	flight->stream = stream;
	flight->context = entry ? entry->entry.context : bf_self.current;
	flight->heir = bf_is_heir(stream);
	flight->over = false;
	flight->starting++;
	return CUDA_SUCCESS;
}

void bf_flight_sent(CUstream stream)
{
	struct bf_flight *flight = find(bf_stream_number(stream));

	if (!flight || !flight->starting)
		return;
	flight->starting--;
	flight->sequence = bf_queue_sequence();
}

static void settle_if(bool (*settles)(const struct bf_flight *flight, const struct bf_flight *wanted),
		      const struct bf_flight *wanted)
{
	for (size_t i = count; i-- > 0;)
		if (!flights[i].starting && settles(&flights[i], wanted))
			flights[i] = flights[--count];
}

static bool is_waited_for(const struct bf_flight *flight, const struct bf_flight *wanted)
{
	return ((wanted->number && flight->number == wanted->number) ||
		(wanted->context && flight->context == wanted->context)) &&
	       flight->sequence <= wanted->sequence;
}

/* Work that only other waits told to be over stays noted: then a later wait fetches in vain. */
void bf_flight_settle(uint64_t stream, uint32_t context, uint64_t sequence)
{
	settle_if(is_waited_for, &(struct bf_flight){ .number = stream, .context = context, .sequence = sequence });
}

void bf_flight_end(CUstream stream, bool inherited)
{
	struct bf_flight *flight = find(bf_stream_number(stream));

	if (flight && inherited)
		*flight = flights[--count];
	else if (flight)
		flight->orphaned = true;
}

/* ------------------------------------------------------------------ streams that the program does not wait for */

void bf_flight_ask_heirs(void)
{
	uint32_t before = bf_self.current;

	for (size_t i = 0; i < count; i++) {
		if (flights[i].starting || !flights[i].heir)
			continue;
		bf_self.current = flights[i].context;
		flights[i].over = !BF_CALL(cuStreamQuery, BF_ARG(flights[i].stream));
	}
	bf_self.current = before;
}

static bool is_over(const struct bf_flight *flight, const struct bf_flight *wanted)
{
	(void)wanted;
	return flight->over;
}

void bf_flight_settle_heirs(void)
{
	settle_if(is_over, NULL);
}

/* ------------------------------------------------------------------ waiting */

/* A stream that is gone has left its work to another, also when it goes while it is waited for: then the server does
 * not know it, and says so however often it is asked; an earlier failure of the program's it tells once. */
static CUresult wait_for_stream(CUstream stream)
{
	CUresult status = bf_stream_wait(stream);

	if (status == CUDA_ERROR_INVALID_HANDLE && bf_stream_wait(stream) == CUDA_ERROR_INVALID_HANDLE)
		return CUDA_SUCCESS;
	return status;
}

/* In a capture nothing can be waited for. */
CUresult bf_flight_wait(const struct bf_flight *now)
{
	const struct bf_context *context = bf_context_at(now->context);
	uint64_t capture;

	if (!context || !bf_is_alive(&context->entry))
		return CUDA_SUCCESS;
	bf_self.current = now->context;
	if (now->orphaned)
		return BF_CALL(cuCtxSynchronize);
	return bf_capture_find(now->stream, &capture) || capture ? CUDA_SUCCESS : wait_for_stream(now->stream);
}
