/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers to questions that a stream waits for (question.c), found while the issue thread is stuck in the driver:
 * its launch queue may be full behind the very function that waits. Runs only while there are such questions.
 */
#include "calls.h"
#include "core.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How much is kept for the issue thread; past this a client that goes on sending waits, answers and all. */
#define MOST_AHEAD ((size_t)1 << 30)
enum { CHUNK_BYTES = 256 << 10, SHORT_MS = 1, LONG_MS = 16 };

struct chunk {
	struct chunk *next;
	size_t start, end;
	uint8_t data[CHUNK_BYTES];
};

struct bf_ahead {
	pthread_mutex_t lock;
	struct chunk *first, *last;
	size_t total;
	uint64_t scanned; /* where the first command begins that has not been looked at */
	bool full;
};

void bf_ahead_lock(struct bf_input *input)
{
	pthread_mutex_lock(&input->ahead->lock);
}

void bf_ahead_unlock(struct bf_input *input)
{
	pthread_mutex_unlock(&input->ahead->lock);
}

size_t bf_ahead_take(struct bf_input *input, void *data, size_t size)
{
	struct bf_ahead *ahead = input->ahead;
	size_t taken = 0;
	while (taken < size && ahead->first) {
		struct chunk *chunk = ahead->first;
		size_t part = chunk->end - chunk->start;
		part = part < size - taken ? part : size - taken;
		memcpy((uint8_t *)data + taken, chunk->data + chunk->start, part);
		chunk->start += part;
		taken += part;
		if (chunk->start < chunk->end)
			break;
		ahead->first = chunk->next;
		if (!ahead->first)
			ahead->last = NULL;
		free(chunk);
	}
	ahead->total -= taken;
	return taken;
}

/* ------------------------------------------------------------------ reading on, with the lock held */

static struct chunk *last_with_room(struct bf_ahead *ahead)
{
	if (ahead->last && ahead->last->end < CHUNK_BYTES)
		return ahead->last;
	struct chunk *chunk = malloc(sizeof(*chunk));
	if (!chunk)
		return NULL;
	chunk->next = NULL;
	chunk->start = chunk->end = 0;
	*(ahead->last ? &ahead->last->next : &ahead->first) = chunk;
	ahead->last = chunk;
	return chunk;
}

static bool is_full(struct bf_session *session)
{
	return session->input.ahead->total >= bf_host_memory_most(session, MOST_AHEAD, 4);
}

bool bf_ahead_full(struct bf_session *session)
{
	struct bf_input *input = &session->input;
	if (!input->ahead)
		return false;
	bf_ahead_lock(input);
	bool full = is_full(session);
	bf_ahead_unlock(input);
	return full;
}

static bool read_on(struct bf_session *session)
{
	struct bf_ahead *ahead = session->input.ahead;
	if (is_full(session)) {
		if (!ahead->full)
			bf_log(session, "a host function holds up more commands than are kept");
		ahead->full = true;
		return false;
	}
	struct chunk *chunk = last_with_room(ahead);
	if (!chunk)
		return false;
	ssize_t size =
		bf_transport_receive_some(&session->transport, chunk->data + chunk->end, CHUNK_BYTES - chunk->end);
	if (size <= 0)
		return false;
	chunk->end += (size_t)size;
	ahead->total += (size_t)size;
	return true;
}

/* Copies bytes that have been received, wherever they are. */
static void copy_out(const struct bf_input *input, uint64_t from, uint8_t *to, size_t size)
{
	uint64_t at = input->received;
	if (from < at) {
		size_t part = at - from < size ? (size_t)(at - from) : size;
		memcpy(to, input->base + input->end - (at - from), part);
		from += part;
		to += part;
		size -= part;
	}
	for (const struct chunk *chunk = input->ahead->first; size; chunk = chunk->next) {
		size_t here = chunk->end - chunk->start;
		if (from < at + here) {
			size_t skipped = (size_t)(from - at);
			size_t part = here - skipped < size ? here - skipped : size;
			memcpy(to, chunk->data + chunk->start + skipped, part);
			from += part;
			to += part;
			size -= part;
		}
		at += here;
	}
}

static bool get(struct bf_session *session, uint64_t from, void *to, size_t size)
{
	struct bf_input *input = &session->input;
	if (from + input->end < input->received)
		return false; /* no longer in the buffer */
	while (input->received + input->ahead->total < from + size) {
		if (!read_on(session))
			return false;
	}
	copy_out(input, from, to, size);
	return true;
}

/* ------------------------------------------------------------------ looking for answers */

static bool take_late(struct bf_session *session, uint64_t at, const struct bf_late *late)
{
	uint8_t probe, *to;
	if (late->bulk_size > BF_MAX_FETCH)
		return true; /* no answer: the issue thread will say so */
	if (late->bulk_size && !get(session, at + late->bulk_size - 1, &probe, 1))
		return false;
	if (bf_question_claim(session, late->token, late->bulk_size, &to)) {
		bool good = to && get(session, at, to, late->bulk_size);
		bf_question_answer(session, late->token, good);
	}
	return true;
}

/* True when the command was there and has been dealt with. */
static bool look_at(struct bf_session *session, uint64_t at, uint64_t *end)
{
	struct bf_command command;
	uint64_t word[2] = { 0, 0 };
	uint8_t *to;
	if (!get(session, at, &command, sizeof(command)) || command.size < sizeof(command) ||
	    command.size > BF_MAX_COMMAND)
		return false;
	size_t size = command.size - sizeof(command);
	size = size < sizeof(word) ? size : sizeof(word);
	if (size && !get(session, at + sizeof(command), word, size))
		return false;
	uint64_t bulk = (command.flags & BF_HAS_BULK) && size >= 8 ? word[0] : 0;
	if (bulk > BF_MAX_COPY)
		return false;
	*end = at + command.size + bulk;
	if (command.call == BF_OP_CALLBACK_DONE && size >= 8 && bf_question_claim(session, word[0], 0, &to))
		bf_question_answer(session, word[0], true);
	if (command.call == BF_OP_LATE && size == sizeof(struct bf_late))
		return take_late(session, at + command.size, &(struct bf_late){ bulk, word[1] });
	return true;
}

static void look(struct bf_session *session, uint64_t next)
{
	struct bf_ahead *ahead = session->input.ahead;
	uint64_t end;
	if (ahead->scanned < next)
		ahead->scanned = next;
	while (look_at(session, ahead->scanned, &end))
		ahead->scanned = end;
}

/* ------------------------------------------------------------------ the thread */

static void await_question(struct bf_session *session)
{
	struct bf_questions *questions = &session->questions;
	pthread_mutex_lock(&questions->lock);
	while (!questions->first)
		pthread_cond_wait(&questions->asked, &questions->lock);
	pthread_mutex_unlock(&questions->lock);
}

static void pause_ms(int ms)
{
	const struct timespec pause = { .tv_nsec = ms * 1000000L };
	nanosleep(&pause, NULL);
}

static void *read_ahead(void *argument)
{
	struct bf_session *session = argument;
	struct bf_input *input = &session->input;
	uint64_t seen = 0;
	for (int ms = SHORT_MS;;) {
		await_question(session);
		pause_ms(ms);
		uint64_t next = atomic_load_explicit(&input->next, memory_order_acquire);
		bool stuck = next == seen;
		seen = next;
		/* it holds the lock while it waits for the client */
		if (!stuck || pthread_mutex_trylock(&input->ahead->lock) != 0) {
			ms = stuck && ms < LONG_MS ? 2 * ms : SHORT_MS;
			continue;
		}
		ms = SHORT_MS;
		look(session, next);
		pthread_mutex_unlock(&input->ahead->lock);
	}
	return NULL;
}

void bf_ahead_start(struct bf_session *session)
{
	struct bf_input *input = &session->input;
	pthread_t thread;
	if (likely(input->ahead != NULL))
		return;
	struct bf_ahead *ahead = calloc(1, sizeof(*ahead));
	if (!ahead)
		return;
	pthread_mutex_init(&ahead->lock, NULL);
	atomic_store(&input->next, input->received - (input->end - input->start));
	input->ahead = ahead;
	if (pthread_create(&thread, NULL, read_ahead, session) == 0) {
		pthread_detach(thread);
		return;
	}
	bf_log(session, "no thread to read ahead: a full driver may wait for ever for a host function");
	input->ahead = NULL;
	free(ahead);
}
