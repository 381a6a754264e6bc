/* SPDX-License-Identifier: Apache-2.0
 *
 * How much work a stream may have that is not over: about as much as a driver lets queue up. Then the thread that
 * adds more waits here, as it would in the driver; if it waited there, everything behind its call in the command
 * stream would wait too, and that may be what the stream waits for.
 *
 * The server says when a stream has got to a mark. At most one is on its way, set when half of the window is used.
 */
#define _GNU_SOURCE
#include "proxy.h"
#include "reply.h"

#include <stdlib.h>

enum { MARK_AT = 384, WINDOW = 768 };

struct bf_mark {
	struct bf_wait wait;
	uint64_t position; /* all that was added before is over when it comes back */
	bool sent;
};

void bf_credit_done(struct bf_credit *credit, uint64_t position)
{
	uint64_t done = atomic_load_explicit(&credit->done, memory_order_relaxed);

	while (done < position && !atomic_compare_exchange_weak(&credit->done, &done, position))
		;
}

/* The functions below run with the credit's lock held. */

static void take_back(struct bf_credit *credit)
{
	struct bf_mark *mark = credit->mark;

	if (!mark->sent || !bf_wait_is_done(&mark->wait))
		return;
	mark->sent = false;
	bf_credit_done(credit, mark->position);
}

static void send_mark(struct bf_credit *credit, CUstream stream)
{
	struct bf_mark *mark = credit->mark;
	struct bf_progress body = { BF_ARG(stream) };
	uint8_t *command = bf_queue_begin(BF_OP_PROGRESS, sizeof(struct bf_command) + sizeof body, BF_WANTS_REPLY,
					  bf_self.current);

	if (!command)
		return;
	((struct bf_command *)command)->request = bf_wait_add(&mark->wait, BF_OP_PROGRESS);
	*(struct bf_progress *)(command + sizeof(struct bf_command)) = body;
	mark->position = atomic_load_explicit(&credit->added, memory_order_relaxed);
	mark->sent = true;
	bf_queue_end(BF_LATER);
}

void bf_credit_wait(struct bf_credit *credit, CUstream stream, uint64_t added)
{
	pthread_mutex_lock(&credit->lock);
	if (!credit->mark)
		credit->mark = calloc(1, sizeof *credit->mark);
	while (credit->mark && !bf_check()) {
		uint64_t ahead;

		take_back(credit);
		ahead = added - atomic_load(&credit->done);
		if ((int64_t)ahead > MARK_AT && !credit->mark->sent)
			send_mark(credit, stream);
		if ((int64_t)ahead <= WINDOW || !credit->mark->sent)
			break;
		bf_queue_flush();
		bf_wait_until_done(&credit->mark->wait);
	}
	pthread_mutex_unlock(&credit->lock);
}

struct bf_credit *bf_credit_of(CUstream stream)
{
	struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));
	struct bf_context *context = bf_context_at(bf_self.current);

	return entry ? &entry->credit : context ? &context->credit : NULL;
}
