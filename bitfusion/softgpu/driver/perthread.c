/* SPDX-License-Identifier: Apache-2.0
 *
 * Each thread's own default stream in each context it uses, and the flavours of the API that mean it.
 */
#include "queue.h"

#include <stdlib.h>

struct own_stream {
	struct own_stream *next;
	uint64_t context_id;
	CUstream handle;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread struct own_stream *own;

static void forget(void *list)
{
	struct own_stream *entry = list;
	while (entry) {
		struct own_stream *next = entry->next;
		if (driver.state == DRIVER_READY)
			cuStreamDestroy_v2(entry->handle);
		free(entry);
		entry = next;
	}
	own = NULL;
}

static void make_key(void)
{
	pthread_key_create(&key, forget);
}

struct stream *per_thread_stream(struct context *context)
{
	for (struct own_stream *entry = own; entry; entry = entry->next)
		if (entry->context_id == context->id)
			return object_get(entry->handle, OBJECT_STREAM);
	struct own_stream *entry = malloc(sizeof *entry);
	struct stream *stream;
	if (!entry || stream_create(&stream, context, 0, 0) != CUDA_SUCCESS) {
		free(entry);
		return NULL;
	}
	*entry = (struct own_stream){ own, context->id, (CUstream)stream };
	own = entry;
	pthread_once(&once, make_key);
	pthread_setspecific(key, own);
	return stream;
}
