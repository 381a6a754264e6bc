/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of plain ranges. To the device they are one-way: the bytes are on their way, straight from the caller's
 * memory, when the call returns. To the host they go straight into the caller's memory, and only a copy into
 * pinned memory may still be under way when the call returns.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "late.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

/* With a source that is read late, the bytes are asked for when the stream gets there. */
static CUresult send_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async, bool late)
{
	struct bf_copy copy = { late ? 0 : size, to, size, BF_ARG(stream), async, 0 };
	struct bf_late_box box = { from, size, 1, 1, size, size };
	CUresult status;
	uint8_t *command;

	bf_stream_admit(stream, copy.bulk_size);
	status = late ? bf_late_add(&box, stream, &copy.late) : CUDA_SUCCESS;
	if (status)
		return status;
	command = bf_queue_begin(BF_OP_HTOD, sizeof(struct bf_command) + sizeof copy, late ? 0 : BF_HAS_BULK,
				 bf_self.current);
	if (!command) {
		bf_late_cancel(copy.late);
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	}
	memcpy(command + sizeof(struct bf_command), &copy, sizeof copy);
	if (late)
		bf_queue_end(BF_LATER);
	else
		bf_queue_end_with_bulk(from, size, BF_LATER);
	return CUDA_SUCCESS;
}

CUresult bf_copy_to_device_in_order(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
	bool late;
	CUresult status = bf_late_needed(from, size, stream, &late);

	return status ? status : send_to_device(to, from, size, stream, true, late);
}

/* The program sees what a copy of its own wrote, at once where the copy is not asynchronous. */
static CUresult wrote_shared(CUstream stream, bool async, CUresult status)
{
	bf_shared_after(stream);
	return status || async ? status : bf_stream_wait(stream);
}

static bool is_shared(CUdeviceptr address)
{
	CUdeviceptr device;

	return bf_shared_in_use() && bf_shared_find((const void *)(uintptr_t)address, 1, &device);
}

static CUresult send_from_host(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async)
{
	CUresult status;

	if (async && bf_host_is_pinned(from))
		return bf_copy_to_device_in_order(to, from, size, stream);
	status = async ? CUDA_SUCCESS : bf_host_settle_before(from, size, stream);
	return status ? status : send_to_device(to, from, size, stream, async, false);
}

static CUresult copy_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async)
{
	uint64_t capture = 0;
	bool shared;
	CUresult status = async ? bf_capture_find(stream, &capture) : CUDA_SUCCESS;

	if (status || capture)
		return status ? status : bf_capture_copy(capture, false, to, (void *)from, size, stream);
	shared = is_shared(to);
	status = shared ? bf_shared_before(stream, true) : CUDA_SUCCESS;
	if (status)
		return status;
	status = send_from_host(to, from, size, stream, async);
	if (shared)
		return wrote_shared(stream, async, status);
	return status || async || !bf_shared_in_use() ? status : bf_shared_finish(stream);
}

CUresult bf_copy_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream, bool async)
{
	CUdeviceptr twin;
	CUresult status;
	bool across;

	if (!size)
		return CUDA_SUCCESS;
	if (!from || bf_device_range_check(to, size))
		return CUDA_ERROR_INVALID_VALUE;
	if (bf_shared_in_use() && bf_shared_find(from, size, &twin))
		return bf_copy_between(to, twin, size, stream, async);
	status = bf_across_begin(to, BF_ARG(from), async, &across);
	if (!status)
		status = copy_to_device(to, from, size, stream, async);
	return bf_across_end(across, status, stream);
}

static CUresult send_to_host(struct bf_wait *wait, CUdeviceptr from, size_t size, CUstream stream, bool async,
			     enum bf_urgency urgency, uint64_t *sequence)
{
	struct bf_copy copy = { 0, from, size, BF_ARG(stream), async, 0 };
	uint8_t *command;

	command = bf_queue_begin(BF_OP_DTOH, sizeof(struct bf_command) + sizeof copy, BF_WANTS_REPLY, bf_self.current);
	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	((struct bf_command *)command)->request = bf_wait_add(wait, BF_OP_DTOH);
	memcpy(command + sizeof(struct bf_command), &copy, sizeof copy);
	*sequence = bf_queue_end(urgency);
	return CUDA_SUCCESS;
}

CUresult bf_copy_send_to_device(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
	return send_to_device(to, from, size, stream, true, false);
}

static void copy_finished(struct bf_wait *wait)
{
}

/* Nobody waits: whoever reads the socket next, at the latest the sync that orders the copy, brings it in. */
static CUresult start_to_host(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
	struct bf_wait *wait = calloc(1, sizeof *wait);
	uint64_t sequence;
	CUresult status;

	if (!wait)
		return CUDA_ERROR_OUT_OF_MEMORY;
	wait->data = to;
	wait->data_size = size;
	wait->finish = copy_finished;
	wait->stream = BF_ARG(stream);
	wait->host = to;
	wait->host_end = wait->host + size;
	bf_stream_admit(stream, size);
	status = send_to_host(wait, from, size, stream, true, BF_LATER, &sequence);
	if (status)
		free(wait);
	return status ? status : bf_shared_copying(to, size);
}

CUresult bf_copy_to_host(void *to, CUdeviceptr from, size_t size, CUstream stream, bool async)
{
	struct bf_wait wait = { .data = to, .data_size = size };
	uint64_t capture = 0, sequence;
	CUdeviceptr twin;
	CUresult status;
	bool across; /* it is waited for in any case */

	if (!size)
		return CUDA_SUCCESS;
	if (!to || bf_device_range_check(from, size))
		return CUDA_ERROR_INVALID_VALUE;
	if (bf_shared_in_use() && bf_shared_find(to, size, &twin))
		return bf_copy_between(twin, from, size, stream, async);
	status = bf_across_begin(BF_ARG(to), from, async, &across);
	if (!status && async)
		status = bf_capture_find(stream, &capture);
	if (status || capture)
		return status ? status : bf_capture_copy(capture, true, from, to, size, stream);
	if (bf_shared_in_use() && (is_shared(from) || !async)) /* a wait, so kernels see what the program wrote */
		status = bf_shared_before(stream, false);
	if (status)
		return status;
	if (async && bf_host_is_pinned(to))
		return start_to_host(to, from, size, stream);
	status = send_to_host(&wait, from, size, stream, false, BF_NOW, &sequence); /* pageable memory is waited for */
	if (status)
		return status;
	status = bf_wait_for(&wait);
	bf_wait_drop(&wait);
	if (!status && bf_shared_in_use())
		status = bf_shared_waited(bf_stream_number(stream), sequence);
	return status;
}

static CUresult send_between(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream, bool async)
{
	/* the synchronous form is asynchronous too as far as the host can see, so a stream of its own is no harm */
	if (async || stream)
		return BF_CALL(cuMemcpyDtoDAsync_v2, to, from, size, BF_ARG(stream));
	bf_stream_admit(stream, 0);
	return BF_CALL(cuMemcpyDtoD_v2, to, from, size);
}

static CUresult copy_shared(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream, bool async)
{
	bool to_shared = is_shared(to);
	CUresult status = to_shared || is_shared(from) ? bf_shared_before(stream, to_shared) : CUDA_SUCCESS;

	if (status)
		return status;
	status = send_between(to, from, size, stream, async);
	return to_shared ? wrote_shared(stream, async, status) : status;
}

CUresult bf_copy_between(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream, bool async)
{
	CUresult status;
	bool across;

	if (!size)
		return CUDA_SUCCESS;
	if (bf_device_range_check(to, size) || bf_device_range_check(from, size))
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_across_begin(to, from, async, &across);
	if (!status)
		status = (bf_shared_in_use() ? copy_shared : send_between)(to, from, size, stream, async || across);
	return bf_across_end(across, status, stream);
}

static CUresult copy_on_host(void *to, const void *from, size_t size, CUstream stream, bool async)
{
	CUresult status;
	uint64_t capture;

	if (!size)
		return CUDA_SUCCESS;
	if (!to || !from)
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_capture_find(stream, &capture);
	if (status || capture)
		return status ? status : bf_capture_refuse(capture, "a copy from host to host");
	if (async) /* the host does it, in its place in the stream */
		status = bf_stream_wait(stream);
	else if (bf_shared_in_use())
		status = bf_shared_finish(stream);
	if (!status)
		status = bf_host_settle(from, size);
	if (!status)
		status = bf_host_settle(to, size);
	if (!status)
		memmove(to, from, size);
	return status;
}

CUresult bf_copy_any(uint64_t to, uint64_t from, size_t size, CUstream stream, bool async)
{
	bool to_device = bf_is_device_memory(to), from_device = bf_is_device_memory(from);

	if (to_device && from_device)
		return bf_copy_between(to, from, size, stream, async);
	if (to_device)
		return bf_copy_to_device(to, (const void *)(uintptr_t)from, size, stream, async);
	if (from_device)
		return bf_copy_to_host((void *)(uintptr_t)to, from, size, stream, async);
	return copy_on_host((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size, stream, async);
}

/* ------------------------------------------------------------------ entry points
 *
 * Four of each: synchronous and asynchronous, on the legacy stream and on the calling thread's own.
 */

static CUresult enter_synchronous(CUstream *stream, bool per_thread)
{
	CUresult status = bf_stream_enter(stream, per_thread);

	return status ? status : bf_capture_permit();
}

#define SYNCHRONOUS(name, function, to_type, from_type) \
	static CUresult name##_on(to_type to, from_type from, size_t size, bool per_thread) \
	{ \
		CUstream stream = NULL; \
		CUresult status = enter_synchronous(&stream, per_thread); \
\
		return status ? status : function(to, from, size, stream, false); \
	} \
	BF_EXPORT CUresult name(to_type to, from_type from, size_t size) \
	{ \
		return name##_on(to, from, size, false); \
	} \
	BF_EXPORT CUresult name##_ptds(to_type to, from_type from, size_t size) \
	{ \
		return name##_on(to, from, size, true); \
	}

#define ASYNCHRONOUS(name, function, to_type, from_type) \
	static CUresult name##_on(to_type to, from_type from, size_t size, CUstream stream, bool per_thread) \
	{ \
		CUresult status = bf_stream_enter(&stream, per_thread); \
\
		return status ? status : function(to, from, size, stream, true); \
	} \
	BF_EXPORT CUresult name(to_type to, from_type from, size_t size, CUstream hStream) \
	{ \
		return name##_on(to, from, size, hStream, false); \
	} \
	BF_EXPORT CUresult name##_ptsz(to_type to, from_type from, size_t size, CUstream hStream) \
	{ \
		return name##_on(to, from, size, hStream, true); \
	}

SYNCHRONOUS(cuMemcpy, bf_copy_any, CUdeviceptr, CUdeviceptr)
SYNCHRONOUS(cuMemcpyHtoD_v2, bf_copy_to_device, CUdeviceptr, const void *)
SYNCHRONOUS(cuMemcpyDtoH_v2, bf_copy_to_host, void *, CUdeviceptr)
SYNCHRONOUS(cuMemcpyDtoD_v2, bf_copy_between, CUdeviceptr, CUdeviceptr)
ASYNCHRONOUS(cuMemcpyAsync, bf_copy_any, CUdeviceptr, CUdeviceptr)
ASYNCHRONOUS(cuMemcpyHtoDAsync_v2, bf_copy_to_device, CUdeviceptr, const void *)
ASYNCHRONOUS(cuMemcpyDtoHAsync_v2, bf_copy_to_host, void *, CUdeviceptr)
ASYNCHRONOUS(cuMemcpyDtoDAsync_v2, bf_copy_between, CUdeviceptr, CUdeviceptr)

static CUresult send_peer(const uint64_t args[6], CUstream stream, bool async)
{
	if (is_shared(args[0]) || is_shared(args[2]))
		return copy_shared(args[0], args[2], args[4], stream, async);
	if (async || stream)
		return BF_CALL(cuMemcpyPeerAsync, args[0], args[1], args[2], args[3], args[4], BF_ARG(stream));
	bf_stream_admit(stream, 0);
	return bf_call(BF_cuMemcpyPeer, args);
}

static CUresult copy_peer(const uint64_t args[6], bool async, bool per_thread)
{
	CUstream stream = (CUstream)(uintptr_t)args[5];
	CUresult status = async ? bf_stream_enter(&stream, per_thread) : enter_synchronous(&stream, per_thread);
	bool across = false;

	if (status || !args[4])
		return status;
	if (bf_device_range_check(args[0], args[4]) || bf_device_range_check(args[2], args[4]))
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_across_begin_named((CUcontext)(uintptr_t)args[1], (CUcontext)(uintptr_t)args[3], async, &across);
	if (!status)
		status = send_peer(args, stream, async || across);
	return bf_across_end(across, status, stream);
}

#define PEER_ARGS(stream) \
	((const uint64_t[]){ dstDevice, BF_ARG(dstContext), srcDevice, BF_ARG(srcContext), ByteCount, BF_ARG(stream) })

BF_EXPORT CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
				CUcontext srcContext, size_t ByteCount)
{
	return copy_peer(PEER_ARGS(0), false, false);
}

BF_EXPORT CUresult cuMemcpyPeer_ptds(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
				     CUcontext srcContext, size_t ByteCount)
{
	return copy_peer(PEER_ARGS(0), false, true);
}

BF_EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
				     CUcontext srcContext, size_t ByteCount, CUstream hStream)
{
	return copy_peer(PEER_ARGS(hStream), true, false);
}

BF_EXPORT CUresult cuMemcpyPeerAsync_ptsz(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
					  CUcontext srcContext, size_t ByteCount, CUstream hStream)
{
	return copy_peer(PEER_ARGS(hStream), true, true);
}
