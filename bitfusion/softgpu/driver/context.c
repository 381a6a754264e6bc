/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: which one a thread works in, their birth and death. A context's object is never freed, so that
 * old handles can be told from wild ones.
 */
#include "driver.h"
#include "memory.h"
#include "queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STACK = 64 };

pthread_mutex_t contexts_lock = PTHREAD_MUTEX_INITIALIZER;

/* The last one is current; NULL entries are "no context", pushed or set. */
static __thread struct {
	struct context *stack[MAX_STACK];
	int depth;
} mine;

static struct {
	struct context **all;
	unsigned count, room;
} created;

struct context *context_current(void)
{
	return mine.depth ? mine.stack[mine.depth - 1] : NULL;
}

struct context *context_get(CUcontext handle)
{
	return object_get(handle, OBJECT_CONTEXT);
}

CUresult context_enter(struct context **result)
{
	TRY(driver_enter());
	struct context *context = context_current();
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!context->alive) {
		if (!context->primary || context->retained)
			return CUDA_ERROR_CONTEXT_IS_DESTROYED;
		/* current without ever having been retained: using it brings it to life */
		TRY(context_activate(context));
	}
	*result = context;
	return context_error(context);
}

CUresult context_push(struct context *context)
{
	if (mine.depth == MAX_STACK)
		return CUDA_ERROR_OUT_OF_MEMORY;
	mine.stack[mine.depth++] = context;
	return CUDA_SUCCESS;
}

struct context *context_pop(void)
{
	return mine.depth ? mine.stack[--mine.depth] : NULL;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *pctx)
{
	ENTER();
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	*pctx = (CUcontext)context_current();
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
	ENTER();
	struct context *context = ctx ? context_get(ctx) : NULL;
	if (ctx && !context)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (context && !context->alive && !context->primary)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	context_pop();
	return context ? context_push(context) : CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	ENTER();
	struct context *context = context_get(ctx);
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!context->alive && !context->primary)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	return context_push(context);
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *pctx)
{
	ENTER();
	struct context *context = context_pop();
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (pctx)
		*pctx = (CUcontext)context;
	return CUDA_SUCCESS;
}

void context_defaults(struct context *context)
{
	static const size_t limits[] = {
		[CU_LIMIT_STACK_SIZE] = KIB(1),
		[CU_LIMIT_PRINTF_FIFO_SIZE] = MIB(1),
		[CU_LIMIT_MALLOC_HEAP_SIZE] = MIB(8),
		[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2,
		[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048,
		[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64,
	};
	memcpy(context->limits, limits, sizeof limits);
	context->cache_config = CU_FUNC_CACHE_PREFER_NONE;
	context->api_version = 3020;
}

/* With contexts_lock held. */
static CUresult bring_up(struct context *context)
{
	static uint64_t last_id;
	struct stream *legacy;
	context->error = 0;
	__atomic_store_n(&context->cancel, 0, __ATOMIC_RELAXED);
	context->id = ++last_id;
	TRY(stream_create(&legacy, context, 0, 0));
	legacy->is_legacy = 1;
	context->legacy = legacy;
	context->alive = 1;
	return CUDA_SUCCESS;
}

CUresult context_activate(struct context *context)
{
	pthread_mutex_lock(&contexts_lock);
	CUresult result = context->alive ? CUDA_SUCCESS : bring_up(context);
	pthread_mutex_unlock(&contexts_lock);
	if (result == CUDA_SUCCESS)
		helper_expect();
	return result;
}

static CUresult remember(struct context *context)
{
	if (created.count == created.room) {
		unsigned room = created.room ? 2 * created.room : 16;
		struct context **all = realloc(created.all, room * sizeof *all);
		if (!all)
			return CUDA_ERROR_OUT_OF_MEMORY;
		created.all = all;
		created.room = room;
	}
	created.all[created.count++] = context;
	return CUDA_SUCCESS;
}

CUresult context_create(struct context **result, struct device *device, unsigned flags)
{
	struct context *context = object_new(OBJECT_CONTEXT, sizeof *context);
	if (!context)
		return CUDA_ERROR_OUT_OF_MEMORY;
	context->device = device;
	context->flags = flags;
	context_defaults(context);
	pthread_mutex_lock(&contexts_lock);
	CUresult status = remember(context);
	if (status == CUDA_SUCCESS)
		status = bring_up(context);
	pthread_mutex_unlock(&contexts_lock);
	*result = context;
	if (status == CUDA_SUCCESS)
		helper_expect();
	return status;
}

/* The memory that belonged to it goes with it. */
static void free_memory(struct context *context)
{
	for (;;) {
		uint64_t address = 0;
		enum range_kind kind = RANGE_FREE;
		pthread_mutex_lock(&memory_lock);
		struct range *range = tree_after(&context->device->arena->tree, 0);
		for (; range; range = tree_after(&context->device->arena->tree, range->base))
			if ((range->kind == RANGE_DEVICE || range->kind == RANGE_ARRAY) && range->context == context) {
				address = range->base;
				kind = range->kind;
				break;
			}
		pthread_mutex_unlock(&memory_lock);
		if (kind == RANGE_FREE)
			return;
		arena_free(address, kind);
	}
}

void context_die(struct context *context)
{
	abi_context_storage_clear((CUcontext)context);
	pthread_mutex_lock(&contexts_lock);
	int was_alive = context->alive;
	context->alive = 0;
	pthread_mutex_unlock(&contexts_lock);
	if (!was_alive)
		return;
	__atomic_store_n(&context->cancel, 1, __ATOMIC_RELAXED);
	streams_abandon(context);
	context_flush_output(context);
	modules_forget_context(context);
	free_memory(context);
	if (context->engine)
		sg_context_destroy(context->engine);
	context->engine = NULL;
	context->legacy = NULL;
	context_defaults(context);
}

void context_cancel_all(void)
{
	for (int i = 0; i < driver.device_count; i++)
		__atomic_store_n(&driver.devices[i].primary->cancel, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < created.count; i++)
		__atomic_store_n(&created.all[i]->cancel, 1, __ATOMIC_RELAXED);
}

struct sg_context *context_engine(struct context *context)
{
	pthread_mutex_lock(&contexts_lock);
	if (!context->engine)
		context->engine = sg_context_create(driver.space, context->limits[CU_LIMIT_MALLOC_HEAP_SIZE],
						    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE]);
	struct sg_context *engine = context->engine;
	pthread_mutex_unlock(&contexts_lock);
	return engine;
}

void context_fail(struct context *context, CUresult error, const char *text)
{
	int none = 0;
	if (!atomic_compare_exchange_strong(&context->error, &none, (int)error))
		return;
	/* one line, in one write: it must be seen even when the program says nothing itself */
	if (text)
		driver_say(text);
}

static void flush(struct sg_context *engine, size_t (*take)(struct sg_context *, char *, size_t), FILE *file)
{
	char text[4096];
	size_t size, total = 0;
	while ((size = take(engine, text, sizeof text)) > 0)
		total += fwrite(text, 1, size, file);
	if (total)
		fflush(file);
}

/* What kernels have printed comes before what the program prints after it waited for them. */
void context_flush_output(struct context *context)
{
	static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
	if (!context->engine)
		return;
	pthread_mutex_lock(&order);
	flush(context->engine, sg_context_take_output, stdout);
	flush(context->engine, sg_context_take_assertions, stderr);
	pthread_mutex_unlock(&order);
}

CUresult context_error(struct context *context)
{
	CUresult error = (CUresult)context->error;
	if (error)
		context_flush_output(context);
	return error;
}
