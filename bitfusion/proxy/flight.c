/* SPDX-License-Identifier: Apache-2.0
 *
 * Work that may use shared memory and is not known to be over. It is noted by stream, so that a wait knows whether
 * anything could have changed since the last one. With the lock of shared.c held, but where something is waited for.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

enum { SEVERAL = UINT32_MAX }; /* contexts */

static struct bf_flights flights;
static struct bf_flight *const others = &flights.one[BF_FLIGHTS];

const struct bf_flights *bf_flights(void)
{
	return &flights;
}

bool bf_flight_none(void)
{
	bool quiet = true;

	for (int i = 0; i <= BF_FLIGHTS && quiet; i++)
		quiet = !flights.one[i].number;
	return quiet;
}

static struct bf_flight *place_of(uint64_t number)
{
	struct bf_flight *place = others;

	for (int i = 0; i < BF_FLIGHTS; i++) {
		if (flights.one[i].number == number)
			return &flights.one[i];
		if (!flights.one[i].number && place == others)
			place = &flights.one[i];
	}
	return place;
}

/* Before the work is sent: from then on it may write, and a host function in it may look. */
void bf_flight_start(CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));
	uint32_t context = entry ? entry->entry.context : bf_self.current;
	uint64_t number = bf_stream_number(stream);
	struct bf_flight *place = place_of(number);

	if (place == others && place->number && place->context != context)
		context = SEVERAL;
	place->number = place == others ? UINT64_MAX : number;
	place->stream = stream;
	place->context = context;
	place->starting++;
}

void bf_flight_sent(CUstream stream)
{
	struct bf_flight *place = place_of(bf_stream_number(stream));

	if (!place->starting) /* a place has become free meanwhile, or nothing was noted */
		place = others;
	if (!place->starting)
		return;
	place->starting--;
	place->sequence = bf_queue_sequence();
}

/* Work that only other waits told to be over stays noted: then a later wait fetches in vain. */
void bf_flight_settle(uint64_t stream, uint32_t context, uint64_t sequence)
{
	for (int i = 0; i <= BF_FLIGHTS; i++)
		if (((stream && flights.one[i].number == stream) || (context && flights.one[i].context == context)) &&
		    !flights.one[i].starting && flights.one[i].sequence <= sequence)
			flights.one[i].number = 0;
}

static bool context_lives(uint32_t index)
{
	const struct bf_context *context = bf_context_at(index);

	return context && bf_is_alive(&context->entry);
}

static CUresult wait_for_contexts(void)
{
	CUresult status = CUDA_SUCCESS, one;

	for (uint32_t i = 1; i < bf_handle_count(BF_CONTEXT); i++) {
		if (!context_lives(i))
			continue;
		bf_self.current = i;
		one = cuCtxSynchronize();
		status = status ? status : one;
	}
	return status;
}

/* In a capture nothing can be waited for. A stream that has been destroyed still does what it had to do. */
CUresult bf_flight_wait(const struct bf_flight *now)
{
	uint64_t capture;

	if (now->context == SEVERAL)
		return wait_for_contexts();
	if (!context_lives(now->context))
		return CUDA_SUCCESS;
	bf_self.current = now->context;
	if (now->number == UINT64_MAX || bf_stream_check(now->stream))
		return cuCtxSynchronize();
	return bf_capture_find(now->stream, &capture) || capture ? CUDA_SUCCESS : bf_stream_wait(now->stream);
}
