/* SPDX-License-Identifier: Apache-2.0
 *
 * Doing one piece of work, and what it holds.
 */
#include "graph.h"
#include "memory.h"
#include "queue.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static CUresult run_kernel(struct context *context, const struct kernel_work *kernel)
{
	const struct function *function = kernel->function;
	struct sg_context *engine = context_engine(context);
	struct sg_pool *pool = driver_pool();
	if (!engine || !pool)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct sg_launch launch = {
		.module = function->placed,
		.kernel = function->code,
		.context = engine,
		.dynamic_shared = kernel->dynamic_shared,
		.cooperative = kernel->cooperative,
		.parameters = kernel->parameters,
		.cancel = &context->cancel,
	};
	memcpy(launch.grid, kernel->grid, sizeof launch.grid);
	memcpy(launch.block, kernel->block, sizeof launch.block);
	memcpy(launch.cluster, kernel->cluster, sizeof launch.cluster);
	struct sg_fault fault = { 0 };
	if (!sg_launch(pool, &launch, &fault) || context_cancelled(context))
		return CUDA_SUCCESS;
	CUresult error = fault.error ? (CUresult)fault.error : CUDA_ERROR_LAUNCH_FAILED;
	context_fail(context, error, fault.text);
	return error;
}

static void run_copy(const struct copy_work *copy)
{
	const char *source = copy->staged ? copy->staged : (const char *)(uintptr_t)copy->source;
	char *target = (char *)(uintptr_t)copy->target;
	uint64_t row = copy->width, rows = copy->height;
	if (copy->source_pitch == row && copy->target_pitch == row) { /* whole slices at once */
		row *= rows;
		rows = 1;
	}
	for (uint64_t z = 0; z < copy->depth; z++)
		for (uint64_t y = 0; y < rows; y++)
			memmove(target + z * copy->target_slice + y * copy->target_pitch,
				source + z * copy->source_slice + y * copy->source_pitch, row);
}

static void set_row(char *target, unsigned value, unsigned element, uint64_t width)
{
	if (element == 1) {
		memset(target, (int)value, width);
	} else if (element == 2) {
		for (uint64_t x = 0; x < width; x++)
			((uint16_t *)(void *)target)[x] = (uint16_t)value;
	} else {
		for (uint64_t x = 0; x < width; x++)
			((uint32_t *)(void *)target)[x] = value;
	}
}

static void run_set(const struct set_work *set)
{
	for (uint64_t y = 0; y < set->height; y++)
		set_row((char *)(uintptr_t)set->target + y * set->pitch, set->value, set->element, set->width);
}

static void run_host(struct context *context, const struct host_work *host)
{
	in_host_function = 1;
	if (host->callback)
		host->callback(host->stream, context->error, host->data);
	else if (!context->error)
		host->function(host->data);
	in_host_function = 0;
}

static int value_reached(const struct value_work *wait)
{
	uint64_t is = wait->bits == 32 ? __atomic_load_n((uint32_t *)(uintptr_t)wait->address, __ATOMIC_ACQUIRE)
				       : __atomic_load_n((uint64_t *)(uintptr_t)wait->address, __ATOMIC_ACQUIRE);
	uint64_t mask = wait->bits == 32 ? UINT32_MAX : UINT64_MAX;
	switch (wait->flags & 3) {
	case CU_STREAM_WAIT_VALUE_GEQ:
		return wait->bits == 32 ? (int32_t)(is - wait->value) >= 0 : (int64_t)(is - wait->value) >= 0;
	case CU_STREAM_WAIT_VALUE_EQ: return is == (wait->value & mask);
	case CU_STREAM_WAIT_VALUE_AND: return (is & wait->value) != 0;
	default: return (~(is | wait->value) & mask) != 0;
	}
}

/* The value may be written by anyone, so there is nothing to sleep on. */
static void run_wait_value(struct context *context, const struct value_work *wait)
{
	struct timespec pause = { 0, 1000 };
	while (!value_reached(wait) && !context_cancelled(context) && !context->error) {
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 500000)
			pause.tv_nsec *= 2;
	}
}

static void run_write_value(const struct value_work *write)
{
	if (write->bits == 32)
		__atomic_store_n((uint32_t *)(uintptr_t)write->address, (uint32_t)write->value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint64_t *)(uintptr_t)write->address, write->value, __ATOMIC_RELEASE);
}

CUresult work_run(struct context *context, struct work *work)
{
	if (work->kind == WORK_FREE) {
		pool_free_begun(work->memory.address);
		return CUDA_SUCCESS;
	}
	/* in a context that has failed or is about to die nothing runs any more; callbacks are told */
	if (!context->alive)
		return CUDA_SUCCESS;
	if (context->error && !(work->kind == WORK_HOST && work->host.callback))
		return CUDA_SUCCESS;
	switch (work->kind) {
	case WORK_KERNEL: return run_kernel(context, &work->kernel);
	case WORK_COPY: run_copy(&work->copy); break;
	case WORK_SET: run_set(&work->set); break;
	case WORK_HOST: run_host(context, &work->host); break;
	case WORK_WAIT_VALUE: run_wait_value(context, &work->value); break;
	case WORK_WRITE_VALUE: run_write_value(&work->value); break;
	case WORK_GRAPH: return plan_run(context, work->plan);
	default: break;
	}
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ what work holds */

struct work *work_copy(const struct work *work)
{
	size_t tail = work->kind == WORK_KERNEL ? work->kernel.size : 0;
	struct work *copy = work_new(work->kind, tail);
	if (!copy)
		return NULL;
	memcpy(copy, work, sizeof *copy);
	copy->next = NULL;
	copy->dependencies = copy->few;
	copy->dependency_count = copy->dependencies_met = 0;
	if (work->kind == WORK_KERNEL) {
		memcpy(copy->tail, work->kernel.parameters, tail);
		copy->kernel.parameters = copy->tail;
	}
	if (work->kind == WORK_RECORD || work->kind == WORK_EVENT_WAIT)
		copy->record.event->references++;
	if (work->kind == WORK_ALLOCATE)
		copy->memory.owned->references++;
	return copy;
}

void work_free(struct work *work)
{
	if (!work)
		return;
	for (unsigned i = 0; i < work->dependency_count; i++)
		stream_unref(work->dependencies[i].stream);
	if (work->dependencies != work->few)
		free(work->dependencies);
	if (work->kind == WORK_COPY)
		copy_unstage(&work->copy);
	else if (work->kind == WORK_RECORD || work->kind == WORK_EVENT_WAIT)
		event_unref(work->record.event);
	else if (work->kind == WORK_GRAPH)
		plan_unref(work->plan);
	else if (work->kind == WORK_ALLOCATE)
		graph_memory_unref(work->memory.owned);
	free(work);
}

void work_discard(struct work *work)
{
	pthread_mutex_lock(&queue_lock);
	work_free(work);
	pthread_mutex_unlock(&queue_lock);
}
