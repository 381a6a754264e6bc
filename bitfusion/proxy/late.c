/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory that is read late: CUDA reads the source of an asynchronous copy when the stream gets there, and a
 * host function or a copy that comes first may still write it. The server asks for the bytes at that point; a
 * thread of its own answers, because the one that runs host functions may be inside one.
 */
#define _GNU_SOURCE
#include "late.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

struct source {
	struct source *next;
	struct bf_late_box box;
	uint64_t stream;
	uint32_t number;
};

struct fetch {
	struct fetch *next;
	struct bf_fetch asked;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct source *sources;
	struct fetch *first, **last;
	uint32_t next_number;
	uint32_t sending; /* whose bytes are being sent */
	bool started;
} late = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .last = &late.first };

static _Atomic unsigned source_count;
static __thread bool is_sender;

CUresult bf_late_needed(const void *data, size_t size, CUstream stream, bool *needed)
{
	uint64_t writer;
	CUresult status;

	*needed = false;
	if (BF_UNLIKELY(bf_callback_pending()) && !bf_self.in_callback) {
		status = bf_stream_query(stream); /* what it has done already cannot write any more */
		*needed = status == CUDA_ERROR_NOT_READY;
		if (status && !*needed)
			return status;
	}
	*needed |= bf_reply_writes(data, size, &writer);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ sources */

static uint64_t box_span(const struct bf_late_box *box)
{
	return (box->depth - 1) * box->layer + (box->height - 1) * box->pitch + box->width;
}

static struct source **find(uint32_t number)
{
	struct source **link = &late.sources;

	while (*link && (*link)->number != number)
		link = &(*link)->next;
	return link;
}

static void remove_source(struct source **link)
{
	struct source *gone = *link;

	*link = gone->next;
	free(gone);
	atomic_fetch_sub(&source_count, 1);
}

static bool overlaps(const struct source *source, const uint8_t *data, size_t size)
{
	return source->box.at < data + size && data < source->box.at + box_span(&source->box);
}

static void *late_main(void *unused);

static CUresult start_thread(void)
{
	CUresult status = CUDA_SUCCESS;

	pthread_mutex_lock(&late.lock);
	if (!late.started) {
		late.started = !bf_thread_start(late_main);
		status = late.started ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	pthread_mutex_unlock(&late.lock);
	if (!status)
		bf_reply_start_reader();
	return status;
}

CUresult bf_late_add(const struct bf_late_box *box, CUstream stream, uint32_t *number)
{
	struct source *source = malloc(sizeof *source);
	CUresult status = source ? start_thread() : CUDA_ERROR_OUT_OF_MEMORY;

	if (status) {
		free(source);
		return status;
	}
	source->box = *box;
	source->stream = BF_ARG(stream);
	pthread_mutex_lock(&late.lock);
	late.next_number += late.next_number == UINT32_MAX ? 2 : 1; /* 0 is none */
	*number = source->number = late.next_number;
	source->next = late.sources;
	late.sources = source;
	atomic_fetch_add(&source_count, 1);
	pthread_mutex_unlock(&late.lock);
	return CUDA_SUCCESS;
}

void bf_late_cancel(uint32_t number)
{
	struct source **link;

	pthread_mutex_lock(&late.lock);
	link = find(number);
	if (*link)
		remove_source(link);
	pthread_mutex_unlock(&late.lock);
}

bool bf_late_reads(const void *data, size_t size, uint64_t *stream)
{
	struct source *source;

	if (BF_LIKELY(!atomic_load_explicit(&source_count, memory_order_acquire)))
		return false;
	pthread_mutex_lock(&late.lock);
	for (source = late.sources; source && !overlaps(source, data, size);)
		source = source->next;
	if (source)
		*stream = source->stream;
	pthread_mutex_unlock(&late.lock);
	return source != NULL;
}

void bf_late_forget(const void *data, size_t size, uint64_t stream)
{
	struct source **link = &late.sources;

	pthread_mutex_lock(&late.lock);
	while (*link) {
		if ((*link)->stream != stream || !overlaps(*link, data, size)) {
			link = &(*link)->next;
		} else if ((*link)->number != late.sending) {
			remove_source(link);
		} else {
			pthread_cond_wait(&late.changed, &late.lock);
			link = &late.sources;
		}
	}
	pthread_mutex_unlock(&late.lock);
}

void bf_late_settle(void)
{
	if (BF_LIKELY(!atomic_load_explicit(&source_count, memory_order_acquire)) || is_sender)
		return;
	pthread_mutex_lock(&late.lock);
	while (late.sending)
		pthread_cond_wait(&late.changed, &late.lock);
	while (late.sources)
		remove_source(&late.sources);
	pthread_mutex_unlock(&late.lock);
}

/* ------------------------------------------------------------------ answers */

/* Bytes [offset, offset + size) of the box as if it lay packed. */
static void gather(const struct bf_late_box *box, uint64_t offset, uint8_t *to, uint64_t size)
{
	while (size) {
		uint64_t row = offset / box->width, x = offset % box->width;
		uint64_t part = box->width - x < size ? box->width - x : size;

		memcpy(to, box->at + row / box->height * box->layer + row % box->height * box->pitch + x, part);
		to += part;
		offset += part;
		size -= part;
	}
}

static void send_bytes(const struct bf_fetch *asked, const void *bytes, uint64_t size)
{
	struct bf_late answer = { size, asked->token };
	uint8_t *command = bf_queue_begin(BF_OP_LATE, sizeof(struct bf_command) + sizeof answer, BF_HAS_BULK, 0);

	if (!command)
		return;
	memcpy(command + sizeof(struct bf_command), &answer, sizeof answer);
	bf_queue_end_with_bulk(bytes, size, BF_NOW);
}

static bool is_flat(const struct bf_late_box *box)
{
	return (box->pitch == box->width || (box->height == 1 && box->depth == 1)) &&
	       (box->layer == box->width * box->height || box->depth == 1);
}

static void send_source(const struct bf_fetch *asked, const struct bf_late_box *box)
{
	uint8_t *packed;

	if (is_flat(box)) {
		send_bytes(asked, box->at + asked->offset, asked->size);
		return;
	}
	packed = malloc(asked->size);
	if (packed)
		gather(box, asked->offset, packed, asked->size);
	else
		bf_debug("no memory for %llu bytes of a copy", (unsigned long long)asked->size);
	send_bytes(asked, packed, packed ? asked->size : 0);
	free(packed);
}

static bool is_within(const struct bf_fetch *asked, const struct bf_late_box *box)
{
	uint64_t total = box->width * box->height * box->depth;

	return asked->offset < total && asked->size <= total - asked->offset && asked->size <= BF_MAX_FETCH;
}

/* With the lock held; the source stays while it is being sent. */
static void answer(const struct bf_fetch *asked)
{
	struct source *source = *find(asked->source);
	struct bf_late_box box;
	bool known = source && is_within(asked, &source->box);

	if (known)
		box = source->box;
	late.sending = known ? asked->source : 0;
	pthread_mutex_unlock(&late.lock);
	if (known)
		send_source(asked, &box);
	else
		send_bytes(asked, NULL, 0);
	pthread_mutex_lock(&late.lock);
	late.sending = 0;
	if (known && asked->last)
		remove_source(find(asked->source));
	pthread_cond_broadcast(&late.changed);
}

static void *late_main(void *unused)
{
	prctl(PR_SET_NAME, "bitfusion-late");
	is_sender = true;
	pthread_mutex_lock(&late.lock);
	for (;;) {
		struct fetch *fetch = late.first;

		if (!fetch) {
			pthread_cond_wait(&late.changed, &late.lock);
			continue;
		}
		late.first = fetch->next;
		if (!late.first)
			late.last = &late.first;
		answer(&fetch->asked);
		free(fetch);
	}
	return unused;
}

void bf_late_fetch(const struct bf_fetch *asked)
{
	struct fetch *fetch = malloc(sizeof *fetch);

	if (!fetch) {
		bf_connection_lost("no memory for a copy");
		return;
	}
	fetch->next = NULL;
	fetch->asked = *asked;
	pthread_mutex_lock(&late.lock);
	*late.last = fetch;
	late.last = &fetch->next;
	pthread_cond_broadcast(&late.changed);
	pthread_mutex_unlock(&late.lock);
}
