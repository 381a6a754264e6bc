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

static void drop_buffer(struct bf_graph_buffer *buffer)
{
	if (atomic_fetch_sub(&buffer->references, 1) > 1)
		return;
	bf_memory_free(buffer->address);
	free(buffer);
}

void bf_work_drop(struct bf_graph_work *work)
{
	if (!work || atomic_fetch_sub(&work->references, 1) > 1)
		return;
	for (unsigned i = 0; i < work->copy_count; i++)
		drop_buffer(work->copies[i].buffer);
	atomic_fetch_sub(&bf_works, 1);
	free(work);
}

struct bf_graph_work *bf_work_join(const struct bf_graph_work *one, const struct bf_graph_work *two, unsigned more)
{
	unsigned first = one ? one->copy_count : 0, second = two ? two->copy_count : 0;
	struct bf_graph_work *work = calloc(1, sizeof *work + (first + second + more) * sizeof *work->copies);

	if (!work)
		return NULL;
	atomic_fetch_add(&bf_works, 1);
	work->references = 1;
	work->functions = (one ? one->functions : 0) + (two ? two->functions : 0);
	work->copy_count = first + second;
	if (first)
		memcpy(work->copies, one->copies, first * sizeof *work->copies);
	if (second)
		memcpy(work->copies + first, two->copies, second * sizeof *work->copies);
	for (unsigned i = 0; i < work->copy_count; i++)
		atomic_fetch_add(&work->copies[i].buffer->references, 1);
	return work;
}

static bool overlap(const struct bf_graph_copy *one, const struct bf_graph_copy *two)
{
	return one->host < two->host + two->size && two->host < one->host + one->size;
}

/* Copies move before and after the whole launch: that shows when one node writes what another one reads, or when
 * a function in the middle may look at the memory. Such a graph is refused. */
bool bf_work_is_sound(const struct bf_graph_work *work)
{
	if (work->functions && work->copy_count)
		return false;
	for (unsigned i = 0; i < work->copy_count; i++)
		for (unsigned j = i + 1; j < work->copy_count; j++) {
			const struct bf_graph_copy *one = &work->copies[i], *two = &work->copies[j];

			if ((one->to_host || two->to_host) && overlap(one, two))
				return false;
		}
	return true;
}

static CUresult replace(struct bf_graph_work **work, struct bf_graph_work *by)
{
	if (!bf_work_is_sound(by)) {
		bf_debug("refused: this graph mixes host memory with host functions, or writes what it reads");
		bf_work_drop(by);
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	bf_work_drop(*work);
	*work = by;
	return CUDA_SUCCESS;
}

CUresult bf_work_add_copy(struct bf_graph_work **work, bool to_host, void *host, size_t size, CUdeviceptr *device)
{
	struct bf_graph_work *longer = bf_work_join(*work, NULL, 1);
	struct bf_graph_buffer *buffer = calloc(1, sizeof *buffer);
	CUresult status = longer && buffer ? bf_memory_allocate(&buffer->address, size) : CUDA_ERROR_OUT_OF_MEMORY;

	if (status) {
		bf_work_drop(longer);
		free(buffer);
		return status;
	}
	buffer->references = 1;
	*device = buffer->address;
	longer->copies[longer->copy_count++] = (struct bf_graph_copy){ host, size, to_host, buffer };
	return replace(work, longer);
}

CUresult bf_work_add_function(struct bf_graph_work **work)
{
	struct bf_graph_work *more = bf_work_join(*work, NULL, 0);

	if (!more)
		return CUDA_ERROR_OUT_OF_MEMORY;
	more->functions++;
	return replace(work, more);
}
