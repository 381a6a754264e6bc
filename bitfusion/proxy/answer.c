/* SPDX-License-Identifier: Apache-2.0
 *
 * What calls return: the status in a reply, or a failure of earlier work that nobody has been told of.
 */
#include "proxy.h"
#include "reply.h"

#include <stdatomic.h>
#include <string.h>

static _Atomic int deferred; /* a failure that no waiting thread has seen yet */

void bf_deferred_keep(int32_t status)
{
	int none = 0;

	if (status)
		atomic_compare_exchange_strong(&deferred, &none, status);
}

void bf_fail_later(CUresult status)
{
	if (!bf_is_fault(status)) /* else the context knows */
		bf_deferred_keep((int32_t)status);
}

static void wait_for_answer(struct bf_wait *wait)
{
	bf_wait_until_done(wait);
	if (BF_UNLIKELY(wait->status == CUDA_ERROR_DEVICE_UNAVAILABLE) && bf_reply_is_over())
		bf_connection_settle();
	if (wait->deferred)
		bf_debug("%s failed earlier with error %d, reported by %s", bf_call_name(wait->deferred_call),
			 wait->deferred, bf_call_name(wait->call));
}

/* The same failure is reported once. */
static CUresult report(int status)
{
	int same = status;

	atomic_compare_exchange_strong(&deferred, &same, 0);
	return (CUresult)status;
}

CUresult bf_wait_for(struct bf_wait *wait)
{
	int earlier;

	wait_for_answer(wait);
	if (wait->status && wait->status != CUDA_ERROR_NOT_READY) {
		bf_fault_note((CUresult)wait->status);
		bf_deferred_keep(wait->deferred);
		return report(wait->status);
	}
	if (wait->deferred)
		return report(wait->deferred);
	earlier = atomic_exchange(&deferred, 0);
	return (CUresult)(earlier ? earlier : wait->status);
}

CUresult bf_wait_for_result(struct bf_wait *wait)
{
	wait_for_answer(wait);
	bf_deferred_keep(wait->deferred);
	if (BF_UNLIKELY(wait->status))
		bf_fault_note((CUresult)wait->status);
	return wait->status ? report(wait->status) : CUDA_SUCCESS;
}

CUresult bf_question(struct bf_wait *wait, unsigned call, const void *body, size_t size)
{
	uint8_t *command = bf_queue_begin(call, sizeof(struct bf_command) + size, BF_WANTS_REPLY, bf_self.current);

	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	((struct bf_command *)command)->request = bf_wait_add(wait, call);
	if (size)
		memcpy(command + sizeof(struct bf_command), body, size);
	bf_queue_end(BF_NOW);
	return CUDA_SUCCESS;
}

CUresult bf_ask(unsigned call, const void *body, size_t size, void *answer, size_t answer_size)
{
	struct bf_wait wait = { 0 };
	CUresult status = bf_question(&wait, call, body, size);

	if (status)
		return status;
	status = answer_size ? bf_wait_for_result(&wait) : bf_wait_for(&wait);
	if (wait.body_size >= answer_size && answer_size)
		memcpy(answer, wait.body, answer_size);
	else if (!status && answer_size)
		status = CUDA_ERROR_UNKNOWN;
	bf_wait_drop(&wait);
	return status;
}

CUresult bf_post(unsigned call, const void *body, size_t size)
{
	uint8_t *command = bf_queue_begin(call, sizeof(struct bf_command) + size, 0, bf_self.current);

	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	memcpy(command + sizeof(struct bf_command), body, size);
	bf_queue_end(BF_LATER);
	return CUDA_SUCCESS;
}
