/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions to the client that a stream waits for. Each is asked by a function of ours in the stream, on the
 * driver's thread, and answered by a command, which may be noticed before its turn (ahead.c).
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* On the stack of the driver's thread. */
struct bf_question {
	struct bf_question *next;
	uint64_t token;
	uint8_t *to;
	uint64_t size;
	bool claimed, answered, good;
	pthread_cond_t returned;
};

enum { MAX_BODY = 48 };

struct announce_job {
	struct bf_job job;
	enum bf_reply_kind kind;
	size_t size;
	uint64_t body[MAX_BODY / 8];
};

/* The client may look at what earlier copies brought, and inside a host function a driver cannot be asked which
 * have completed: another thread sends those, then the question. */
static void run_announce(struct bf_session *session, struct bf_job *job)
{
	struct announce_job *announce = (struct announce_job *)job;
	if (bf_context_ensure(session, job->context) == CUDA_SUCCESS)
		bf_settle(session);
	struct bf_reply reply = { .size = (uint32_t)(sizeof(reply) + announce->size), .kind = announce->kind };
	bf_send(session, &reply, announce->body, announce->size, NULL, 0, NULL);
	free(announce);
}

static void open_question(struct bf_questions *questions, struct bf_question *question)
{
	pthread_cond_init(&question->returned, NULL);
	pthread_mutex_lock(&questions->lock);
	question->token = ++questions->next_token;
	question->next = questions->first;
	questions->first = question;
	pthread_cond_signal(&questions->asked);
	pthread_mutex_unlock(&questions->lock);
}

static void close_question(struct bf_questions *questions, struct bf_question *question)
{
	struct bf_question **link = &questions->first;
	while (*link != question)
		link = &(*link)->next;
	*link = question->next;
}

bool bf_ask(struct bf_session *session, uint32_t context, enum bf_reply_kind kind, void *body, size_t size, uint8_t *to,
	    uint64_t to_size)
{
	struct bf_questions *questions = &session->questions;
	struct bf_question question = { .to = to, .size = to_size };
	struct announce_job *announce = calloc(1, sizeof(*announce));
	if (!announce)
		return false;
	open_question(questions, &question);
	memcpy(body, &question.token, sizeof(question.token));
	announce->job.run = run_announce;
	announce->job.urgent = true;
	announce->job.context = context;
	announce->kind = kind;
	announce->size = size;
	memcpy(announce->body, body, size);
	bool submitted = bf_submit(session, &announce->job);
	pthread_mutex_lock(&questions->lock);
	/* whoever has claimed it is filling our buffer */
	while (submitted && !question.answered && (question.claimed || !atomic_load(&session->over)))
		pthread_cond_wait(&question.returned, &questions->lock);
	close_question(questions, &question);
	pthread_mutex_unlock(&questions->lock);
	pthread_cond_destroy(&question.returned);
	if (!submitted)
		free(announce);
	return question.good;
}

static struct bf_question *find(struct bf_questions *questions, uint64_t token)
{
	struct bf_question *question = questions->first;
	while (question && question->token != token)
		question = question->next;
	return question;
}

bool bf_question_claim(struct bf_session *session, uint64_t token, uint64_t size, uint8_t **to)
{
	struct bf_questions *questions = &session->questions;
	pthread_mutex_lock(&questions->lock);
	struct bf_question *question = find(questions, token);
	bool ours = question && !question->claimed;
	if (ours) {
		question->claimed = true;
		*to = question->size == size ? question->to : NULL;
	}
	pthread_mutex_unlock(&questions->lock);
	return ours;
}

void bf_question_answer(struct bf_session *session, uint64_t token, bool good)
{
	struct bf_questions *questions = &session->questions;
	pthread_mutex_lock(&questions->lock);
	struct bf_question *question = find(questions, token);
	if (question) {
		question->answered = true;
		question->good = good;
		pthread_cond_signal(&question->returned);
	}
	pthread_mutex_unlock(&questions->lock);
}

/* ------------------------------------------------------------------ the answers, in their turn */

void bf_op_callback_done(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	uint64_t token = ((const struct bf_callback_done *)body)->token;
	uint8_t *to;
	if (bf_question_claim(session, token, 0, &to))
		bf_question_answer(session, token, true);
	bf_done(session, command, CUDA_SUCCESS, NULL, 0);
}

void bf_op_late(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct bf_late late;
	memcpy(&late, body, sizeof(late));
	uint8_t *to = NULL;
	bool ours = bf_question_claim(session, late.token, late.bulk_size, &to);
	bool whole = to ? bf_input_take(session, to, late.bulk_size) : bf_input_skip(session, late.bulk_size);
	if (ours)
		bf_question_answer(session, late.token, to && whole);
	if (!whole) {
		session->ended = BF_ENDED_CLIENT_GONE;
		session->stopped = true;
	}
}
