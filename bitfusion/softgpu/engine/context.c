/* SPDX-License-Identifier: Apache-2.0
 *
 * What the launches of a context share: the heap of device-side malloc, the text of device-side printf and assertions.
 * The heap's bookkeeping lies outside of it, so a kernel that writes past an allocation damages only data.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#define NONE UINT32_MAX
#define UNIT 16
#define ASSERTION_BYTES (512 << 10) /* a line of every thread of a block; no memory until one is written */

struct sg_chunk { /* chunks[0] starts at the heap's start; next and previous by address */
	uint64_t offset, size;
	uint32_t next, previous;
	bool used, valid;
};

static uint32_t new_chunk(struct sg_context *context)
{
	if (context->free_chunk != NONE) {
		const uint32_t index = context->free_chunk;

		context->free_chunk = context->chunks[index].next;
		return index;
	}
	if (context->chunk_count == context->chunk_room) {
		const uint32_t room = context->chunk_room ? 2 * context->chunk_room : 64;
		struct sg_chunk *more = realloc(context->chunks, room * sizeof(*more));

		if (!more)
			return NONE;
		context->chunks = more;
		context->chunk_room = room;
	}
	return context->chunk_count++;
}

static uint64_t whole_pages(uint64_t bytes)
{
	return bytes ? (bytes + 4095) / 4096 * 4096 : 4096;
}

static char *map_heap(struct sg_space *space, uint64_t bytes)
{
	char *heap;

	if (bytes > UINT64_MAX / 2)
		return NULL;
	heap = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (heap == MAP_FAILED)
		return NULL;
	if (!bytes || !sg_space_add(space, (uint64_t)(uintptr_t)heap, whole_pages(bytes)))
		return heap;
	munmap(heap, whole_pages(bytes));
	return NULL;
}

static void unmap_heap(struct sg_context *context)
{
	if (!context->heap)
		return;
	sg_space_remove(context->space, (uint64_t)(uintptr_t)context->heap);
	munmap(context->heap, whole_pages(context->heap_size));
}

/* With nothing allocated in it. */
static void take_heap(struct sg_context *context, char *heap, uint64_t bytes)
{
	context->heap = heap;
	context->heap_size = bytes ? whole_pages(bytes) : 0;
	context->chunks[0] =
		(struct sg_chunk){ .size = context->heap_size, .next = NONE, .previous = NONE, .valid = true };
}

static bool make_text(struct sg_text *text, size_t size)
{
	*text = (struct sg_text){ .bytes = malloc(size ? size : 1), .size = size };
	return text->bytes != NULL;
}

struct sg_context *sg_context_create(struct sg_space *space, uint64_t heap_bytes, uint64_t printf_bytes)
{
	struct sg_context *context = calloc(1, sizeof(*context));
	char *heap;

	if (!context)
		return NULL;
	context->space = space;
	context->free_chunk = NONE;
	make_text(&context->printed, printf_bytes);
	make_text(&context->asserted, ASSERTION_BYTES);
	heap = map_heap(space, heap_bytes);
	pthread_mutex_init(&context->lock, NULL);
	if (heap && new_chunk(context) != NONE)
		take_heap(context, heap, heap_bytes);
	if (context->printed.bytes && context->asserted.bytes && context->heap)
		return context;
	sg_context_destroy(context);
	return NULL;
}

void sg_context_destroy(struct sg_context *context)
{
	if (!context)
		return;
	unmap_heap(context);
	pthread_mutex_destroy(&context->lock);
	free(context->chunks);
	free(context->printed.bytes);
	free(context->asserted.bytes);
	free(context);
}

int sg_context_set_heap(struct sg_context *context, uint64_t bytes)
{
	int answer = 1;

	pthread_mutex_lock(&context->lock);
	if (!context->heap_touched) {
		char *heap = map_heap(context->space, bytes);

		answer = heap ? 0 : -1;
		if (heap) {
			unmap_heap(context);
			take_heap(context, heap, bytes);
		}
	}
	pthread_mutex_unlock(&context->lock);
	return answer;
}

int sg_context_set_text(struct sg_context *context, uint64_t bytes)
{
	int answer = 1;

	pthread_mutex_lock(&context->lock);
	if (!context->text_touched) {
		struct sg_text made;

		answer = make_text(&made, bytes) ? 0 : -1;
		if (!answer) {
			free(context->printed.bytes);
			context->printed = made;
		}
	}
	pthread_mutex_unlock(&context->lock);
	return answer;
}

/* Each allocation is preceded by a unit that holds the number of its chunk. */
static uint64_t allocate(struct sg_context *context, uint64_t size)
{
	const uint64_t need = (size + UNIT - 1) / UNIT * UNIT + UNIT;
	uint32_t index = 0;

	if (need < size)
		return 0;
	while (index != NONE && (context->chunks[index].used || context->chunks[index].size < need))
		index = context->chunks[index].next;
	if (index == NONE)
		return 0;
	if (context->chunks[index].size > need) {
		const uint32_t rest = new_chunk(context);
		struct sg_chunk *chunk = &context->chunks[index];

		if (rest == NONE)
			return 0;
		context->chunks[rest] = (struct sg_chunk){ .offset = chunk->offset + need,
							   .size = chunk->size - need,
							   .next = chunk->next,
							   .previous = index,
							   .valid = true };
		if (chunk->next != NONE)
			context->chunks[chunk->next].previous = rest;
		chunk->next = rest;
		chunk->size = need;
	}
	context->chunks[index].used = true;
	memcpy(context->heap + context->chunks[index].offset, &index, sizeof(index));
	return (uint64_t)(uintptr_t)context->heap + context->chunks[index].offset + UNIT;
}

uint64_t sg_context_malloc(struct sg_context *context, uint64_t size)
{
	uint64_t address;

	pthread_mutex_lock(&context->lock);
	context->heap_touched = true;
	address = allocate(context, size ? size : 1);
	pthread_mutex_unlock(&context->lock);
	return address;
}

static void join_next(struct sg_context *context, uint32_t index)
{
	struct sg_chunk *chunk = &context->chunks[index];
	const uint32_t next = chunk->next;

	if (next == NONE || context->chunks[next].used)
		return;
	chunk->size += context->chunks[next].size;
	chunk->next = context->chunks[next].next;
	if (chunk->next != NONE)
		context->chunks[chunk->next].previous = index;
	context->chunks[next].valid = false;
	context->chunks[next].next = context->free_chunk;
	context->free_chunk = next;
}

static int release(struct sg_context *context, uint64_t address)
{
	const uint64_t offset = address - (uint64_t)(uintptr_t)context->heap - UNIT;
	uint32_t index;

	if (offset >= context->heap_size || offset % UNIT)
		return -1;
	memcpy(&index, context->heap + offset, sizeof(index));
	if (index >= context->chunk_count || !context->chunks[index].valid || !context->chunks[index].used ||
	    context->chunks[index].offset != offset)
		return -1;
	context->chunks[index].used = false;
	join_next(context, index);
	if (context->chunks[index].previous != NONE && !context->chunks[context->chunks[index].previous].used)
		join_next(context, context->chunks[index].previous);
	return 0;
}

int sg_context_free(struct sg_context *context, uint64_t address)
{
	int answer;

	pthread_mutex_lock(&context->lock);
	answer = release(context, address);
	pthread_mutex_unlock(&context->lock);
	return answer;
}

static bool add_text(struct sg_text *to, const char *text, size_t size)
{
	if (size > to->size - to->used)
		return false;
	memcpy(to->bytes + to->used, text, size);
	to->used += size;
	return true;
}

bool sg_context_print(struct sg_context *context, const char *text, size_t size)
{
	bool fits;

	pthread_mutex_lock(&context->lock);
	context->text_touched = true;
	fits = add_text(&context->printed, text, size);
	pthread_mutex_unlock(&context->lock);
	return fits;
}

void sg_context_tell_assertion(struct sg_context *context, const char *text, size_t size)
{
	pthread_mutex_lock(&context->lock);
	add_text(&context->asserted, text, size);
	pthread_mutex_unlock(&context->lock);
}

static size_t take_text(struct sg_context *context, struct sg_text *from, char *text, size_t size)
{
	pthread_mutex_lock(&context->lock);
	if (size > from->used)
		size = from->used;
	memcpy(text, from->bytes, size);
	memmove(from->bytes, from->bytes + size, from->used - size);
	from->used -= size;
	pthread_mutex_unlock(&context->lock);
	return size;
}

size_t sg_context_take_output(struct sg_context *context, char *text, size_t size)
{
	return take_text(context, &context->printed, text, size);
}

size_t sg_context_take_assertions(struct sg_context *context, char *text, size_t size)
{
	return take_text(context, &context->asserted, text, size);
}
