/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's synchronous upload is over when it returns, so what the program then gives to a non-blocking stream
 * sees the data. Ours is enqueued and not waited for, so that such a stream has to be told to wait for it.
 */
#include "core.h"

void bf_stream_synced(struct bf_session *session, uint32_t context, CUstream stream)
{
	session->synced_stream = stream;
	session->synced_context = context;
	session->synced_epoch = (session->synced_epoch + 1) & 0x3fffffff;
	session->synced_epoch += !session->synced_epoch;
}

CUresult bf_stream_order(struct bf_session *session, uint64_t number, uint64_t stream)
{
	struct bf_entry *entry = bf_handle_entry(&session->handles, BF_STREAM, BF_HANDLE_INDEX(number));
	uint32_t seen = session->synced_epoch << 1 | BF_STREAM_NON_BLOCKING;
	if (!entry || !(entry->flags & BF_STREAM_NON_BLOCKING) || entry->flags == seen)
		return CUDA_SUCCESS;
	entry->flags = seen;
	if (session->synced_context + 1 != bf_context_current)
		return CUDA_SUCCESS;
	CUstream later = (CUstream)(uintptr_t)stream;
	CUstreamCaptureStatus capturing = CU_STREAM_CAPTURE_STATUS_NONE;
	if (session->captures && session->driver->cuStreamIsCapturing(later, &capturing) == CUDA_SUCCESS &&
	    capturing != CU_STREAM_CAPTURE_STATUS_NONE)
		return CUDA_SUCCESS;
	CUresult status;
	struct bf_marker *marker = bf_marker_take(session, &status);
	if (!marker)
		return status;
	status = session->driver->cuEventRecord(marker->event, session->synced_stream);
	if (status == CUDA_SUCCESS)
		status = session->driver->cuStreamWaitEvent(later, marker->event, 0);
	bf_marker_give(session, marker);
	return status;
}
