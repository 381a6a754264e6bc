/* SPDX-License-Identifier: Apache-2.0
 *
 * When the two sides of shared memory agree: before work, around waits and host functions, and never in between.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

#include <stdlib.h>

/* Is work under way? */
static bool is_busy(void)
{
	bool busy;

	if (!bf_twins_exist())
		return false;
	bf_shared_lock();
	busy = !bf_flight_none();
	bf_shared_unlock();
	return busy;
}

/* ------------------------------------------------------------------ before work, and after it has been sent */

static CUresult send_all(void)
{
	bool alone = bf_flight_none();
	CUresult status = CUDA_SUCCESS;

	for (struct bf_twin *twin = bf_twins; twin && !status; twin = twin->next)
		status = bf_twin_send(twin, alone);
	return status;
}

/* The carrier after this one (NULL: the first) as it is now. False: there is none. */
static bool next_carrier(struct bf_carrier **carrier, struct bf_carrier *now)
{
	bf_shared_lock();
	*carrier = *carrier ? (*carrier)->next : bf_carriers();
	if (*carrier)
		*now = **carrier;
	bf_shared_unlock();
	return *carrier;
}

static void note_order(struct bf_carrier *carrier, const struct bf_carrier *then, uint64_t stream)
{
	bf_shared_lock();
	carrier->ordered = then->sent;
	carrier->ordered_stream = stream;
	bf_shared_unlock();
}

/* Behind all uploads. Without the lock: a full stream makes who fills it wait, and nobody else. */
static CUresult order(CUstream stream)
{
	uint64_t number = bf_stream_number(stream);
	struct bf_carrier *carrier = NULL, now;
	CUresult status = CUDA_SUCCESS;

	while (!status && next_carrier(&carrier, &now)) {
		if (!now.stream || now.sent == now.arrived || (now.ordered == now.sent && now.ordered_stream == number))
			continue;
		status = BF_CALL(cuStreamWaitEvent, BF_ARG(stream), BF_ARG(now.sent_event), 0);
		if (!status)
			note_order(carrier, &now, number);
	}
	return status;
}

/* What is captured runs when its graph is launched. */
CUresult bf_shared_before(CUstream stream, bool writes)
{
	bool started = false;
	uint64_t capture = 0;
	CUresult status;

	if (!bf_twins_exist())
		return CUDA_SUCCESS;
	status = bf_capture_find(stream, &capture);
	if (status || capture)
		return status;
	bf_shared_lock();
	status = send_all();
	if (!status && writes) {
		status = bf_flight_start(stream);
		started = !status;
	}
	bf_shared_unlock();
	if (!status)
		status = order(stream);
	if (status && started)
		bf_shared_after(stream);
	return status;
}

void bf_shared_after(CUstream stream)
{
	if (!bf_twins_exist())
		return;
	bf_shared_lock();
	bf_flight_sent(stream);
	bf_shared_unlock();
}

/* ------------------------------------------------------------------ around a wait */

CUresult bf_shared_before_wait(void)
{
	CUresult status;

	if (!bf_twins_exist())
		return CUDA_SUCCESS;
	bf_shared_lock();
	status = bf_flight_none() ? CUDA_SUCCESS : send_all();
	bf_shared_unlock();
	return status;
}

static CUresult fetch(uint64_t stream, uint32_t context, uint64_t sequence)
{
	CUresult status = CUDA_SUCCESS;

	if (!bf_twins_exist())
		return CUDA_SUCCESS;
	bf_shared_lock();
	if (!bf_flight_none()) {
		bf_flight_ask_heirs();
		status = bf_twins_fetch(bf_twins);
	}
	if (!status) {
		bf_flight_settle(stream, context, sequence);
		bf_flight_settle_heirs();
	}
	bf_shared_unlock();
	return status;
}

CUresult bf_shared_waited(uint64_t stream_number, uint64_t sequence)
{
	return fetch(stream_number, 0, sequence);
}

CUresult bf_shared_waited_context(uint32_t context, uint64_t sequence)
{
	return fetch(0, context, sequence);
}

/* The copy is one that CUDA has finished, with all before it, when it returns. */
CUresult bf_shared_finish(CUstream stream)
{
	return is_busy() ? bf_stream_wait(stream) : CUDA_SUCCESS;
}

static void wait_for(bool heirs)
{
	uint32_t before = bf_self.current;
	struct bf_flight *flights;
	size_t count;

	bf_shared_lock();
	flights = bf_flights_now(&count);
	bf_shared_unlock();
	if (count && !flights)
		bf_fail_later(CUDA_ERROR_OUT_OF_MEMORY);
	for (size_t i = 0; flights && i < count; i++)
		if (flights[i].heir == heirs)
			bf_fail_later(bf_flight_wait(&flights[i]));
	free(flights);
	bf_self.current = before;
}

/* Another thread may be destroying a stream: its heir comes last. */
void bf_shared_wait_for_all(void)
{
	if (!is_busy())
		return;
	wait_for(false);
	wait_for(true);
}

/* ------------------------------------------------------------------ around a host function
 *
 * It runs behind work of its stream and before work that was sent long ago. The program's next wait tells a failure.
 */

void bf_shared_enter_function(void)
{
	bf_shared_lock();
	if (!bf_flight_none())
		bf_fail_later(bf_twins_fetch(bf_twins));
	bf_shared_unlock();
}

void bf_shared_leave_function(void)
{
	CUresult status = CUDA_SUCCESS;

	bf_shared_lock();
	if (bf_twins)
		status = send_all();
	if (bf_twins && !status)
		status = bf_twins_arrive();
	bf_shared_unlock();
	bf_fail_later(status);
}
