/* SPDX-License-Identifier: Apache-2.0
 *
 * What the session has allocated, and what that counts against its slice.
 */
#ifndef BITFUSION_EXECUTOR_MEMORY_H
#define BITFUSION_EXECUTOR_MEMORY_H

#include "session.h"

/* Counts this much on a device, where it fits into the slice. */
CUresult bf_memory_reserve(struct bf_session *session, uint32_t device, uint64_t size);
/* The same on the current context's device. */
CUresult bf_memory_charge(struct bf_session *session, uint64_t size, int *device);
/* Its memory on this device is limited. */
bool bf_memory_limited(struct bf_session *session, uint32_t device);
/* More counts there than the slice has. */
bool bf_memory_over(struct bf_session *session, uint32_t device);
/* What is being given back may make room. */
bool bf_memory_coming(struct bf_session *session);
/* One call's tries. */
struct bf_tries {
	unsigned settled; /* freed.settled before the last one */
	bool trimmed;
	unsigned trimmed_at; /* freed.settled then: what has been freed since may be kept as well */
};
/* Waits for it after a call that was refused. False: there is no point in another try. Not on the issue thread. */
bool bf_memory_wait(struct bf_session *session, struct bf_tries *tries);
void bf_memory_refund(struct bf_session *session, int device, uint64_t size);
/* What an allocation counts for. */
void bf_memory_forget(struct bf_session *session, const struct bf_allocation *gone);
bool bf_memory_add(struct bf_session *session, const struct bf_allocation *allocation);
/* A context has ended, and with it what was allocated in it. */
void bf_memory_end_context(struct bf_session *session, uint32_t context);
bool bf_memory_remove(struct bf_session *session, uint64_t address, struct bf_allocation *allocation);
/* Frees, and gives back what that counted for. */
CUresult bf_memory_release(struct bf_session *session, uint64_t address);
bool bf_memory_find(struct bf_session *session, uint64_t address, struct bf_allocation *allocation);
CUresult bf_memory_info(struct bf_session *session, uint64_t info[2]);
uint64_t bf_memory_total(struct bf_session *session, uint32_t device, uint64_t total);

/* What this process takes of a device, whose context is current; false where nobody can say (process_memory.c). */
bool bf_process_memory(struct bf_session *session, int device, uint64_t *used);

/* Code's variables (code_memory.c): measure before a call that may load some, charge after it. handle: the client's
 * number of the module or library; context: what it dies with, or BF_OUTLIVES. */
struct bf_code_memory {
	int device; /* -1: nothing to count against */
	uint64_t used, allocated;
};
void bf_code_measure(struct bf_session *session, struct bf_code_memory *before);
CUresult bf_code_charge(struct bf_session *session, const struct bf_code_memory *before, uint64_t handle,
			uint32_t context);
void bf_code_refund(struct bf_session *session, uint64_t handle);

#endif
