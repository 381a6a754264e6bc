/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory that stands for host memory in a graph. Its address is what tells one such node from another, in
 * clones of the graph and in graphs inside others too.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bf_graph_buffer *buffers;

CUresult bf_buffer_new(void *host, uint64_t size, bool to_host, struct bf_graph_buffer **buffer)
{
	struct bf_graph_buffer *made = calloc(1, sizeof *made);
	CUresult status = made ? bf_memory_allocate(&made->address, size) : CUDA_ERROR_OUT_OF_MEMORY;

	if (status) {
		free(made);
		return status;
	}
	made->references = 1;
	made->host = host;
	made->size = size;
	made->to_host = to_host;
	pthread_mutex_lock(&lock);
	made->next = buffers;
	buffers = made;
	pthread_mutex_unlock(&lock);
	*buffer = made;
	return CUDA_SUCCESS;
}

void bf_buffer_drop(struct bf_graph_buffer *buffer)
{
	struct bf_graph_buffer **link = &buffers;
	bool last;

	if (!buffer)
		return;
	pthread_mutex_lock(&lock);
	last = atomic_fetch_sub(&buffer->references, 1) == 1;
	while (last && *link != buffer)
		link = &(*link)->next;
	if (last)
		*link = buffer->next;
	pthread_mutex_unlock(&lock);
	if (!last)
		return;
	bf_memory_free(buffer->address);
	free(buffer);
}

struct bf_graph_buffer *bf_buffer_find(CUdeviceptr address)
{
	struct bf_graph_buffer *buffer;

	pthread_mutex_lock(&lock);
	buffer = buffers;
	while (buffer && buffer->address != address)
		buffer = buffer->next;
	if (buffer)
		atomic_fetch_add(&buffer->references, 1);
	pthread_mutex_unlock(&lock);
	return buffer;
}

bool bf_buffers_overlap(const struct bf_graph_buffer *one, const struct bf_graph_buffer *two)
{
	return one->host < two->host + two->size && two->host < one->host + one->size;
}
