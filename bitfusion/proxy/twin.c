/* SPDX-License-Identifier: Apache-2.0
 *
 * One piece of memory on two machines, and what carries its bytes between them. `agreed` is what both had when they
 * last agreed: who differs from it has changed something. Everything travels on a stream of our own, so that an
 * upload is behind no work of the program and a download sees every upload before it.
 */
#define _GNU_SOURCE
#include "digest.h"
#include "twin.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Bytes that did not change are cheaper to send than another command. */
enum { GAP = 64, FETCH = BF_MAX_REFRESH, FETCHES = 16, WINDOW = 64 << 10 };

static struct bf_carrier *carriers;

struct bf_carrier *bf_carriers(void)
{
	return carriers;
}

/* ------------------------------------------------------------------ carriers */

static CUresult open_carrier(struct bf_carrier *carrier)
{
	CUresult status = BF_CALL(cuStreamCreate, BF_ARG(&carrier->stream), CU_STREAM_NON_BLOCKING);

	if (status)
		return status;
	status = BF_CALL(cuEventCreate, BF_ARG(&carrier->sent_event), CU_EVENT_DISABLE_TIMING);
	if (status)
		BF_CALL(cuStreamDestroy_v2, BF_ARG(carrier->stream));
	return status;
}

/* That of the current context, or of the first device. Entries stay: their number is that of contexts at most. */
CUresult bf_carrier_find(struct bf_carrier **found)
{
	const struct bf_context *context = bf_context_at(bf_self.current = bf_context_any());
	struct bf_carrier *carrier = carriers;
	CUresult status;

	while (carrier && carrier->context != bf_self.current)
		carrier = carrier->next;
	if (carrier && carrier->context_id == context->id && carrier->stream) {
		*found = carrier;
		return CUDA_SUCCESS;
	}
	if (!carrier) {
		carrier = calloc(1, sizeof *carrier);
		if (!carrier)
			return CUDA_ERROR_OUT_OF_MEMORY;
		carrier->next = carriers;
		carriers = carrier;
	}
	*carrier = (struct bf_carrier){ .next = carrier->next, .context = bf_self.current, .context_id = context->id };
	status = open_carrier(carrier);
	if (status)
		carrier->stream = NULL;
	*found = carrier;
	return status;
}

/* Makes the context current that the twin's bytes travel in. */
static CUresult enter(struct bf_twin *twin)
{
	CUresult status = twin->carrier ? CUDA_SUCCESS : bf_carrier_find(&twin->carrier);

	if (status)
		twin->carrier = NULL;
	else
		bf_self.current = twin->carrier->context;
	return status;
}

void bf_carriers_end(uint32_t context)
{
	for (struct bf_carrier *carrier = carriers; carrier; carrier = carrier->next)
		if (carrier->context == context)
			carrier->stream = carrier->heir = NULL;
}

/* ------------------------------------------------------------------ making and freeing */

/* Registered memory may be gone by now. Its twin has an address of its own. */
static bool is_programs_own(const struct bf_twin *twin)
{
	return twin->allocated;
}

static CUresult place(struct bf_twin *twin, const struct bf_range *range)
{
	twin->allocated = range->kind == BF_RANGE_REGISTERED;
	twin->device = range->place;
	if (range->place)
		return CUDA_SUCCESS;
	if (twin->allocated)
		return bf_memory_allocate(&twin->device, range->size);
	twin->device = range->base;
	return range->usable ? CUDA_SUCCESS : bf_arena_back(twin->host);
}

/* New memory of the server's holds anything: zeros are what both sides agree on first. */
static CUresult clear(struct bf_twin *twin)
{
	CUstream stream = twin->carrier->stream;
	CUresult status = BF_CALL(cuMemsetD8Async, twin->device, 0, twin->size, BF_ARG(stream));

	return status ? status : BF_CALL(cuStreamSynchronize, BF_ARG(stream));
}

CUresult bf_twin_make(const struct bf_range *range, struct bf_twin **made)
{
	struct bf_twin *twin = calloc(1, sizeof *twin);
	CUresult status;

	if (!twin)
		return CUDA_ERROR_OUT_OF_MEMORY;
	twin->host = (uint8_t *)(uintptr_t)range->base;
	twin->size = range->size;
	twin->managed = range->kind == BF_RANGE_MANAGED && range->context;
	twin->parent = range->usable ? range->parent : 0;
	twin->agreed = mmap(NULL, range->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	twin->digests = calloc(BF_REFRESH_PIECES(range->size), sizeof *twin->digests + sizeof *twin->digested);
	status = twin->agreed == MAP_FAILED || !twin->digests ? CUDA_ERROR_OUT_OF_MEMORY
							      : bf_carrier_find(&twin->carrier);
	twin->digested = (bool *)(twin->digests + BF_REFRESH_PIECES(range->size));
	if (!status)
		status = place(twin, range);
	if (!status)
		status = twin->parent ? bf_twins_fetch(twin) : clear(twin);
	if (status)
		bf_twin_free(twin, true);
	else
		*made = twin;
	return status;
}

void bf_twin_free(struct bf_twin *twin, bool context_lives)
{
	if (twin->allocated && twin->device && context_lives)
		bf_memory_free(twin->device);
	if (twin->agreed != MAP_FAILED)
		munmap(twin->agreed, twin->size);
	free(twin->digests);
	free(twin);
}

/* ------------------------------------------------------------------ to the server */

static void forget_digests(struct bf_twin *twin, uint64_t offset, uint64_t size)
{
	for (uint64_t i = offset / BF_REFRESH_PIECE; i * BF_REFRESH_PIECE < offset + size; i++)
		twin->digested[i] = false;
}

/* What is sent is what is noted, whatever other threads write meanwhile. */
static CUresult send_run(struct bf_twin *twin, uint64_t offset, const uint8_t *now, uint64_t size)
{
	bf_difference_copy(twin->agreed + offset, now, size);
	forget_digests(twin, offset, size);
	return bf_copy_send_to_device(twin->device + offset, twin->agreed + offset, size, twin->carrier->stream);
}

/* `now`: what the program has at that offset. */
static CUresult send_changes(struct bf_twin *twin, uint64_t offset, const uint8_t *now, uint64_t size, bool alone)
{
	const uint8_t *agreed = twin->agreed + offset;
	struct bf_run run = { 0 };
	CUresult status = CUDA_SUCCESS;

	while (!status && bf_difference_next(now, agreed, size, run.end, alone ? GAP : 0, &run)) {
		twin->carrier->unmarked = true;
		status = send_run(twin, offset + run.start, now + run.start, run.end - run.start);
	}
	return status;
}

/* With the lock held, as everything here. */
static CUresult send_reachable(struct bf_twin *twin, bool alone)
{
	static uint8_t window[WINDOW];
	CUresult status = CUDA_SUCCESS;
	uint64_t size;

	for (uint64_t at = 0; at < twin->size && !status; at += size) {
		size = twin->size - at < WINDOW ? twin->size - at : WINDOW;
		bf_reach_read(window, twin->host + at, twin->agreed + at, size);
		status = send_changes(twin, at, window, size, alone);
	}
	return status;
}

static CUresult mark_sent(struct bf_carrier *carrier)
{
	CUresult status = BF_CALL(cuEventRecord, BF_ARG(carrier->sent_event), BF_ARG(carrier->stream));

	carrier->unmarked = status != CUDA_SUCCESS;
	carrier->sent++;
	return status;
}

CUresult bf_twin_send(struct bf_twin *twin, bool alone)
{
	uint32_t before = bf_self.current;
	CUresult status = enter(twin);

	if (!status && is_programs_own(twin))
		status = send_reachable(twin, alone);
	else if (!status)
		status = send_changes(twin, 0, twin->host, twin->size, alone);
	if (!status && twin->carrier->unmarked)
		status = mark_sent(twin->carrier);
	bf_self.current = before;
	return status;
}

CUresult bf_twins_arrive(void)
{
	uint32_t before = bf_self.current;
	CUresult status = CUDA_SUCCESS;

	for (struct bf_carrier *carrier = carriers; carrier && !status; carrier = carrier->next) {
		if (!carrier->stream || carrier->sent == carrier->arrived)
			continue;
		bf_self.current = carrier->context;
		status = BF_CALL(cuStreamSynchronize, BF_ARG(carrier->stream));
		carrier->arrived = carrier->sent;
	}
	bf_self.current = before;
	return status;
}

/* ------------------------------------------------------------------ to the program */

struct fetch {
	struct bf_wait wait;
	struct bf_twin *twin;
	uint64_t offset, size;
	uint64_t sent; /* uploads that the carrier had behind it */
};

struct batch {
	uint8_t *room; /* FETCHES × FETCH bytes */
	struct fetch fetch[FETCHES];
	unsigned count;
	CUresult status;
};

static void apply(struct bf_twin *twin, uint64_t offset, const uint8_t *now, uint64_t size)
{
	uint8_t *host = twin->host + offset, *agreed = twin->agreed + offset;

	forget_digests(twin, offset, size);
	if (!is_programs_own(twin))
		bf_difference_apply(host, agreed, now, size);
	else if (!bf_reach_apply(host, agreed, now, size))
		bf_debug("registered memory that a kernel has written is gone or closed, ignoring");
}

static uint64_t digest_of(struct bf_twin *twin, uint64_t piece)
{
	uint64_t at = piece * BF_REFRESH_PIECE, left = twin->size - at;

	if (!twin->digested[piece])
		twin->digests[piece] = bf_digest(twin->agreed + at, left < BF_REFRESH_PIECE ? left : BF_REFRESH_PIECE);
	twin->digested[piece] = true;
	return twin->digests[piece];
}

/* Only what differs from what both sides had comes back. */
static CUresult ask(struct fetch *fetch)
{
	const struct bf_twin *twin = fetch->twin;
	struct bf_refresh refresh = { twin->device + fetch->offset, fetch->size, BF_ARG(twin->carrier->stream) };
	uint64_t pieces = BF_REFRESH_PIECES(fetch->size), digest;
	uint8_t *command = bf_queue_begin(BF_OP_REFRESH, sizeof(struct bf_command) + sizeof refresh + pieces * 8,
					  BF_WANTS_REPLY, bf_self.current);

	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	((struct bf_command *)command)->request = bf_wait_add(&fetch->wait, BF_OP_REFRESH);
	command += sizeof(struct bf_command);
	memcpy(command, &refresh, sizeof refresh);
	command += sizeof refresh;
	for (uint64_t i = 0; i < pieces; i++) {
		digest = digest_of(fetch->twin, fetch->offset / BF_REFRESH_PIECE + i);
		memcpy(command + i * 8, &digest, 8);
	}
	bf_queue_end(BF_LATER);
	return CUDA_SUCCESS;
}

static void start(struct batch *batch, struct bf_twin *twin, uint64_t offset)
{
	struct fetch *fetch = &batch->fetch[batch->count];

	batch->status = enter(twin);
	if (batch->status)
		return;
	*fetch = (struct fetch){ .twin = twin, .offset = offset, .sent = twin->carrier->sent };
	fetch->size = twin->size - offset < FETCH ? twin->size - offset : FETCH;
	fetch->wait.data = batch->room + (size_t)batch->count * FETCH;
	fetch->wait.data_size = fetch->size;
	batch->status = ask(fetch);
	if (!batch->status)
		batch->count++;
}

/* Has all come that is said to differ? */
static bool is_complete(const struct fetch *fetch, uint64_t differing)
{
	uint64_t size = 0;

	for (uint64_t at = 0; at < fetch->size; at += BF_REFRESH_PIECE, differing >>= 1)
		if (differing & 1)
			size += fetch->size - at < BF_REFRESH_PIECE ? fetch->size - at : BF_REFRESH_PIECE;
	return size <= fetch->wait.data_came;
}

static CUresult apply_differing(const struct fetch *fetch)
{
	uint64_t differing, size;

	if (fetch->wait.body_size < sizeof differing)
		return CUDA_ERROR_UNKNOWN;
	memcpy(&differing, fetch->wait.body, sizeof differing);
	if (!is_complete(fetch, differing))
		return CUDA_ERROR_UNKNOWN;
	for (uint64_t at = 0; at < fetch->size; at += BF_REFRESH_PIECE, differing >>= 1) {
		if (!(differing & 1))
			continue;
		size = fetch->size - at < BF_REFRESH_PIECE ? fetch->size - at : BF_REFRESH_PIECE;
		apply(fetch->twin, fetch->offset + at, fetch->wait.data + at, size);
	}
	fetch->twin->carrier->arrived = fetch->sent;
	return CUDA_SUCCESS;
}

/* All of them are waited for, also after a failure: they live in this thread's frame. */
static void finish(struct batch *batch)
{
	bf_queue_flush();
	for (unsigned i = 0; i < batch->count; i++) {
		struct fetch *fetch = &batch->fetch[i];
		CUresult status = bf_wait_for_result(&fetch->wait); /* an earlier failure is the program's */

		if (!status)
			status = apply_differing(fetch);
		if (!batch->status)
			batch->status = status;
		bf_wait_drop(&fetch->wait);
	}
	batch->count = 0;
}

CUresult bf_twins_fetch(struct bf_twin *first)
{
	uint32_t before = bf_self.current;
	struct batch batch = { .count = 0 };

	batch.room = mmap(NULL, (size_t)FETCHES * FETCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (batch.room == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (struct bf_twin *twin = first; twin && !batch.status; twin = twin->next)
		for (uint64_t offset = 0; offset < twin->size && !batch.status; offset += FETCH) {
			start(&batch, twin, offset);
			if (batch.count == FETCHES)
				finish(&batch);
		}
	finish(&batch);
	bf_self.current = before;
	munmap(batch.room, (size_t)FETCHES * FETCH);
	return batch.status;
}
