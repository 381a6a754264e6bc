/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture is not here yet, so no stream is ever capturing; libraries ask before every operation.
 */
#define _GNU_SOURCE
#include "proxy.h"

static CUresult not_capturing(CUstream stream, CUstreamCaptureStatus *captureStatus, bool per_thread)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (!status)
		status = bf_stream_check(stream);
	if (status)
		return status;
	if (!captureStatus)
		return CUDA_ERROR_INVALID_VALUE;
	*captureStatus = CU_STREAM_CAPTURE_STATUS_NONE;
	return CUDA_SUCCESS;
}

#define CAPTURE_QUERIES(suffix, per_thread)                                                                    \
	BF_EXPORT CUresult cuStreamIsCapturing##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus) \
	{                                                                                                      \
		return not_capturing(hStream, captureStatus, per_thread);                                      \
	}                                                                                                      \
	BF_EXPORT CUresult cuStreamGetCaptureInfo##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, \
							  cuuint64_t *id_out)                                  \
	{                                                                                                      \
		return not_capturing(hStream, captureStatus_out, per_thread);                                  \
	}                                                                                                      \
	BF_EXPORT CUresult cuStreamGetCaptureInfo_v2##suffix(                                                  \
		CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out,                \
		CUgraph *graph_out, const CUgraphNode **dependencies_out, size_t *numDependencies_out)         \
	{                                                                                                      \
		return not_capturing(hStream, captureStatus_out, per_thread);                                  \
	}                                                                                                      \
	BF_EXPORT CUresult cuStreamGetCaptureInfo_v3##suffix(                                                  \
		CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out,                \
		CUgraph *graph_out, const CUgraphNode **dependencies_out,                                      \
		const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)                             \
	{                                                                                                      \
		return not_capturing(hStream, captureStatus_out, per_thread);                                  \
	}

CAPTURE_QUERIES(, false)
CAPTURE_QUERIES(_ptsz, true)

BF_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode before = (CUstreamCaptureMode)bf_self.capture_mode;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	bf_self.capture_mode = *mode;
	*mode = before;
	return CUDA_SUCCESS;
}
