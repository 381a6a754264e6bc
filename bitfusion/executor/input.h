/* SPDX-License-Identifier: Apache-2.0
 *
 * What comes from the client: the stream of commands, answers ahead of it, and questions that wait for them.
 */
#ifndef BITFUSION_EXECUTOR_INPUT_H
#define BITFUSION_EXECUTOR_INPUT_H

#include "session.h"

/* ------------------------------------------------------------------ input.c */

bool bf_input_init(struct bf_session *session);
/* More bytes: 1; nothing there (only without wait): 0; the client is gone: -1. */
int bf_input_more(struct bf_session *session, bool wait);
/* Takes exactly size bytes of bulk data. */
bool bf_input_take(struct bf_session *session, void *data, size_t size);
bool bf_input_skip(struct bf_session *session, uint64_t size);
/* Makes `size` (at most BF_STAGING_SMALL) bytes of bulk lie together; NULL when the client is gone. */
const uint8_t *bf_input_peek(struct bf_session *session, size_t size);
static inline void bf_input_consume(struct bf_input *input, size_t size)
{
	input->start += size;
}

/* ------------------------------------------------------------------ ahead.c
 *
 * Whatever blocks the issue thread in the driver may be waiting for a host function, and so for an answer that lies
 * further on in the stream. So from the first such function on, all of input.c happens under a lock, and a thread
 * reads on when the issue thread does not; what it has read and not needed, the issue thread takes from it.
 */
void bf_ahead_start(struct bf_session *session);
void bf_ahead_lock(struct bf_input *input);
void bf_ahead_unlock(struct bf_input *input);
/* A client whose answer is not among what it has sent cannot be waited for. Issue thread. */
bool bf_ahead_full(struct bf_session *session);
/* With the lock held: at most `size` bytes of what has been read. */
size_t bf_ahead_take(struct bf_input *input, void *data, size_t size);

/* ------------------------------------------------------------------ question.c */

/* From a host function: sends the client a frame of this kind, whose body starts with a token, after all that the
 * stream brought before; waits for the answer. `to` takes the bytes that come with it. False: there will be none. */
bool bf_ask(struct bf_session *session, uint32_t context, enum bf_reply_kind kind, void *body, size_t size, uint8_t *to,
	    uint64_t to_size);
/* Of answers that come both through the issue thread and ahead of it one is claimed, and then must be given.
 * Where the bytes go, or NULL. */
bool bf_question_claim(struct bf_session *session, uint64_t token, uint64_t size, uint8_t **to);
void bf_question_answer(struct bf_session *session, uint64_t token, bool good);

#endif
