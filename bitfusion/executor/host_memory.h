/* SPDX-License-Identifier: Apache-2.0
 *
 * How much of this machine's memory a session's workers hold (host_memory.c).
 */
#ifndef BITFUSION_EXECUTOR_HOST_MEMORY_H
#define BITFUSION_EXECUTOR_HOST_MEMORY_H

#include "base.h"

struct bf_session;

struct bf_host_memory {
	uint64_t limit; /* bytes, of all workers of the session; 0: none */
	int status;     /* the file that tells what this process holds */
	_Atomic uint64_t held, looked_at; /* by the session, at the last look; when that was, in ns */
	bool hopeless; /* waiting has not helped: not again before there is less */
};

void bf_host_memory_init(struct bf_session *session);
/* What the session holds, or held a moment ago. Any thread. */
uint64_t bf_host_memory_held(struct bf_session *session);
/* Whether `more` bytes would be too many. Any thread. */
bool bf_host_memory_full(struct bf_session *session, uint64_t more);
/* Whether there is so much that the session cannot go on; logs it. Any thread. */
bool bf_host_memory_over(struct bf_session *session);
/* While much is held that is about to be given back, waits for that. Issue thread. */
void bf_host_memory_wait(struct bf_session *session);
/* `most` bytes, or a part of the limit where that is less. */
size_t bf_host_memory_most(struct bf_session *session, size_t most, unsigned part);

#endif
