/* SPDX-License-Identifier: Apache-2.0
 *
 * What a graph needs of the program's memory and functions. A node that copies from or to host memory becomes one
 * that copies from or to device memory of ours; the launch brings that in before, and out after.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>
#include <string.h>

_Atomic unsigned bf_works;

struct bf_graph_function *bf_graph_function_new(void)
{
	struct bf_graph_function *function = calloc(1, sizeof *function);

	if (function)
		*function = (struct bf_graph_function){ .references = 1, .context = bf_self.current };
	return function;
}

void bf_graph_function_drop(struct bf_graph_function *function)
{
	uint32_t current = bf_self.current;

	if (!function || atomic_fetch_sub(&function->references, 1) > 1)
		return;
	bf_ticket_drop(function->ticket);
	bf_self.current = function->context; /* which the thread that runs functions has none of */
	bf_work_drop(function->before);
	if (function->stream)
		cuStreamDestroy_v2(function->stream);
	bf_self.current = current;
	free(function);
}

void bf_work_drop(struct bf_graph_work *work)
{
	if (!work || atomic_fetch_sub(&work->references, 1) > 1)
		return;
	for (unsigned i = 0; i < work->copy_count; i++)
		bf_buffer_drop(work->copies[i].buffer);
	for (unsigned i = 0; i < work->function_count; i++)
		bf_graph_function_drop(work->functions[i].function);
	atomic_fetch_sub(&bf_works, 1);
	free(work->functions);
	free(work);
}

struct bf_graph_work *bf_work_new(unsigned copies, unsigned functions)
{
	struct bf_graph_work *work = calloc(1, sizeof *work + copies * sizeof *work->copies);

	if (work)
		work->functions = calloc(functions + 1, sizeof *work->functions);
	if (!work || !work->functions) {
		free(work);
		return NULL;
	}
	atomic_fetch_add(&bf_works, 1);
	work->references = 1;
	return work;
}

static void take_copy(struct bf_graph_work *work, const struct bf_graph_copy *copy)
{
	work->copies[work->copy_count++] = *copy;
	atomic_fetch_add(&copy->buffer->references, 1);
}

static void take_over(struct bf_graph_work *work, const struct bf_graph_work *from,
		      const struct bf_graph_buffer *buffer, const struct bf_graph_function *function)
{
	for (unsigned i = 0; from && i < from->copy_count; i++)
		if (from->copies[i].buffer != buffer)
			take_copy(work, &from->copies[i]);
	for (unsigned i = 0; from && i < from->function_count; i++)
		if (from->functions[i].function != function)
			bf_work_append_function(work, from->functions[i].function, from->functions[i].node);
}

void bf_work_append_copy(struct bf_graph_work *work, struct bf_graph_buffer *buffer, uint64_t node)
{
	take_copy(work, &(struct bf_graph_copy){ .buffer = buffer, .node = node });
}

void bf_work_append_function(struct bf_graph_work *work, struct bf_graph_function *function, uint64_t node)
{
	work->functions[work->function_count++] = (struct bf_graph_call){ function, node };
	atomic_fetch_add(&function->references, 1);
}

/* With room for one copy and one function more. */
struct bf_graph_work *bf_work_join(const struct bf_graph_work *one, const struct bf_graph_work *two)
{
	struct bf_graph_work *work = bf_work_new(1 + (one ? one->copy_count : 0) + (two ? two->copy_count : 0),
						 1 + (one ? one->function_count : 0) + (two ? two->function_count : 0));

	if (!work)
		return NULL;
	take_over(work, one, NULL, NULL);
	take_over(work, two, NULL, NULL);
	return work;
}

struct bf_graph_work *bf_work_without(const struct bf_graph_work *from, const struct bf_graph_buffer *buffer,
				      const struct bf_graph_function *function)
{
	struct bf_graph_work *work =
		bf_work_new(1 + (from ? from->copy_count : 0), 1 + (from ? from->function_count : 0));

	if (work)
		take_over(work, from, buffer, function);
	return work;
}

struct bf_graph_work *bf_work_apart(const struct bf_graph_work *from, CUstream stream)
{
	struct bf_graph_work *work = bf_work_join(from, NULL);

	for (unsigned i = 0; work && i < work->copy_count; i++)
		if (!stream || work->copies[i].stream == stream)
			work->copies[i].stream = NULL;
	return work;
}

/* Copies move before and after the whole launch: that shows when one node writes what another one reads. */
static bool is_sound(const struct bf_graph_work *work)
{
	for (unsigned i = 0; i < work->copy_count; i++)
		for (unsigned j = i + 1; j < work->copy_count; j++) {
			const struct bf_graph_buffer *one = work->copies[i].buffer, *two = work->copies[j].buffer;

			if ((one->to_host || two->to_host) && bf_buffers_overlap(one, two))
				return false;
		}
	return true;
}

/* Two that were captured apart: who knows in which order. */
bool bf_work_may_join(const struct bf_graph_work *one, const struct bf_graph_work *two)
{
	struct bf_graph_work *both;
	bool sound;

	if (!one || !two)
		return true;
	if ((one->function_count && two->copy_count) || (one->copy_count && two->function_count))
		return false;
	both = bf_work_join(one, two);
	sound = both && is_sound(both);
	bf_work_drop(both);
	return sound;
}

static CUresult replace(struct bf_graph_work **work, struct bf_graph_work *by)
{
	if (!is_sound(by)) {
		bf_debug("refused: this graph writes host memory that it reads");
		bf_work_drop(by);
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	bf_work_drop(*work);
	*work = by;
	return CUDA_SUCCESS;
}

/* What a function ahead of it may still write cannot be read before the launch. */
CUresult bf_work_add_copy(struct bf_graph_work **work, struct bf_graph_buffer *buffer, CUstream stream)
{
	struct bf_graph_work *longer;

	if (!buffer->to_host && *work && (*work)->function_count)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	longer = bf_work_join(*work, NULL);
	if (!longer)
		return CUDA_ERROR_OUT_OF_MEMORY;
	take_copy(longer, &(struct bf_graph_copy){ .buffer = buffer, .stream = stream });
	return replace(work, longer);
}

static bool is_to_bring(const struct bf_graph_copy *copy)
{
	return copy->buffer->to_host && !copy->brought;
}

const struct bf_graph_copy *bf_work_brings(const struct bf_graph_work *before, unsigned *i)
{
	while (before && *i < before->copy_count && !is_to_bring(&before->copies[*i]))
		++*i;
	return before && *i < before->copy_count ? &before->copies[*i] : NULL;
}

/* The function sees what the stream has copied before: it brings that out first, unless one ahead of it in the stream
 * has. Of copies in other streams nobody here knows whether they are ahead of it, nor of functions that bring them. */
CUresult bf_work_add_function(struct bf_graph_work **work, struct bf_graph_function *function, CUstream stream)
{
	struct bf_graph_work *more = bf_work_join(*work, NULL);
	CUresult status = more ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	unsigned count = 0;

	for (unsigned i = 0; more && i < more->copy_count; i++) {
		struct bf_graph_copy *copy = &more->copies[i];

		count += is_to_bring(copy);
		if (copy->buffer->to_host && copy->stream != stream)
			status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		copy->brought = copy->buffer->to_host;
	}
	if (!status && count)
		status = cuStreamCreate(&function->stream, CU_STREAM_NON_BLOCKING);
	if (status) {
		bf_work_drop(more);
		return status;
	}
	if (count) {
		function->before = *work;
		atomic_fetch_add(&function->before->references, 1);
	}
	bf_work_append_function(more, function, 0);
	return replace(work, more);
}

void bf_graph_function_bring_out(const struct bf_graph_function *function)
{
	const struct bf_graph_copy *copy;
	uint32_t current = bf_self.current;
	CUresult status = CUDA_SUCCESS;

	if (!function->before)
		return;
	bf_self.current = function->context;
	for (unsigned i = 0; !status && (copy = bf_work_brings(function->before, &i)); i++)
		status = bf_copy_to_host(copy->buffer->host, copy->buffer->address, copy->buffer->size,
					 function->stream, true);
	if (!status)
		status = bf_stream_wait(function->stream);
	bf_self.current = current;
	bf_fail_later(status);
}
