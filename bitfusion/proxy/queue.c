/* SPDX-License-Identifier: Apache-2.0
 *
 * The command stream: one buffer under one lock, so that the server sees calls in the order the program made
 * them. Sent when somebody waits, when it is full, when commands have waited a little on an idle link, and by the
 * flusher thread (flush.c) when nothing more comes.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "flush.h"
#include "proxy.h"
#include "reply.h"
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
	SEND_AT = 32 << 10,         /* a fuller buffer is sent */
	BUFFER_SIZE = SEND_AT + BF_MAX_COMMAND + (64 << 10),
	COPY_BULK_BELOW = 4 << 10,  /* smaller bulk goes through the buffer: cheaper than a send of its own */
	GOODBYE_MS = 2000,
};
/* A command waits this long for company, so that a call and the wait after it travel together … */
#define LINGER_NS 2000
/* … and sends are this far apart, unless somebody waits. */
#define INTERVAL_NS 10000

static struct {
	pthread_mutex_t lock;
	struct bf_transport transport;
	uint8_t *buffer;
	size_t start, used; /* the commands lie in [start, start + used) */
	size_t pending;     /* bytes of the command between begin and end */
	uint64_t sequence;
	_Atomic uint64_t published; /* the same, for readers without the lock */
	uint64_t first_ns;  /* when the oldest command in the buffer came */
	uint64_t sent_ns;   /* when the buffer was last sent */
	bool dead;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .transport = { .fd = -1 } };

CUresult bf_queue_open(const struct bf_transport *transport)
{
	if (!queue.buffer) {
		/* pages that are never touched cost nothing */
		void *memory = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return CUDA_ERROR_OUT_OF_MEMORY;
		queue.buffer = memory;
	}
	queue.transport = *transport;
	queue.transport.await_room = bf_reply_until_room;
	queue.start = queue.used = 0;
	queue.dead = false;
	return CUDA_SUCCESS;
}

struct bf_transport *bf_queue_transport(void)
{
	return &queue.transport;
}

static void die(void)
{
	queue.dead = true;
	queue.start = queue.used = 0;
}

/* With the lock held; the caller reports a failure once it has released it. */
static int send_buffer(const void *bulk, size_t size)
{
	struct iovec parts[2] = { { queue.buffer + queue.start, queue.used }, { (void *)bulk, size } };
	bool whole = queue.used == 0;
	int failed;

	if (queue.dead)
		return -1;
	failed = bf_transport_send(&queue.transport, parts + whole, (size ? 2 : 1) - whole);
	queue.start = queue.used = 0;
	queue.sent_ns = bf_now_ns();
	bf_flush_sent();
	if (failed)
		die();
	return failed;
}

static void unlock(int failed)
{
	pthread_mutex_unlock(&queue.lock);
	if (failed)
		bf_connection_lost("cannot send");
}

/* Bulk of an odd size makes the next command start at any byte; move it all so that it is aligned here. */
static uint8_t *aligned_end(void)
{
	size_t shift = -(queue.start + queue.used) & 7;

	if (BF_UNLIKELY(shift)) {
		memmove(queue.buffer + queue.start + shift, queue.buffer + queue.start, queue.used);
		queue.start += shift;
	}
	return queue.buffer + queue.start + queue.used;
}

void *bf_queue_begin(unsigned call, size_t size, unsigned flags, uint32_t context)
{
	struct bf_command *command;

	pthread_mutex_lock(&queue.lock);
	if (BF_UNLIKELY(queue.dead || size > BF_MAX_COMMAND)) {
		bool gone = queue.dead;

		pthread_mutex_unlock(&queue.lock);
		if (gone)
			bf_connection_settle();
		return NULL;
	}
	command = (struct bf_command *)aligned_end();
	*command = (struct bf_command){
		.size = (uint32_t)size, .call = (uint16_t)call, .flags = (uint16_t)flags, .context = context
	};
	queue.pending = size;
	return command;
}

static uint64_t commit(void)
{
	queue.used += queue.pending;
	queue.pending = 0;
	queue.sequence++;
	atomic_store_explicit(&queue.published, queue.sequence, memory_order_release);
	return queue.sequence;
}

static bool is_due(enum bf_urgency urgency, bool first)
{
	uint64_t now;

	if (urgency == BF_NOW || queue.used >= SEND_AT)
		return true;
	now = bf_now_ns();
	if (first)
		queue.first_ns = now;
	return now - queue.first_ns > LINGER_NS && now - queue.sent_ns > INTERVAL_NS;
}

uint64_t bf_queue_end(enum bf_urgency urgency)
{
	bool first = queue.used == 0, wake = false;
	uint64_t sequence = commit();
	int failed = 0;

	if (is_due(urgency, first))
		failed = send_buffer(NULL, 0);
	else if (first)
		wake = bf_flush_needed();
	unlock(failed);
	if (BF_UNLIKELY(wake))
		bf_flush_wake();
	return sequence;
}

uint64_t bf_queue_end_with_bulk(const void *data, size_t size, enum bf_urgency urgency)
{
	uint64_t sequence;

	if (size < COPY_BULK_BELOW) {
		if (size)
			memcpy(queue.buffer + queue.start + queue.used + queue.pending, data, size);
		queue.pending += size;
		return bf_queue_end(urgency);
	}
	sequence = commit();
	unlock(send_buffer(data, size));
	return sequence;
}

uint64_t bf_queue_sequence(void)
{
	return atomic_load_explicit(&queue.published, memory_order_acquire);
}

void bf_queue_flush(void)
{
	int failed = 0;

	pthread_mutex_lock(&queue.lock);
	if (queue.used && !queue.dead)
		failed = send_buffer(NULL, 0);
	unlock(failed);
}

bool bf_queue_try_flush(void)
{
	int failed = 0;

	if (pthread_mutex_trylock(&queue.lock))
		return false; /* somebody is adding to it, and will send or leave it to the next round */
	if (queue.used && !queue.dead)
		failed = send_buffer(NULL, 0);
	unlock(failed);
	return true;
}

/* At the end of the process: whatever was one-way must still go out, but a stuck server must not hold us. */
void bf_queue_goodbye(void)
{
	struct bf_command goodbye = { .size = sizeof goodbye, .call = BF_OP_GOODBYE };
	uint64_t until = bf_now_ns() + (uint64_t)GOODBYE_MS * 1000000;
	size_t done = 0;

	while (pthread_mutex_trylock(&queue.lock)) {
		struct timespec pause = { 0, 100000 };

		if (bf_now_ns() > until)
			return;
		nanosleep(&pause, NULL);
	}
	if (!queue.dead) {
		memcpy(queue.buffer + queue.start + queue.used, &goodbye, sizeof goodbye);
		queue.used += sizeof goodbye;
	}
	while (!queue.dead && done < queue.used && bf_now_ns() < until) {
		struct iovec rest = { queue.buffer + queue.start + done, queue.used - done };
		struct pollfd room = { .fd = queue.transport.fd, .events = POLLOUT };
		ssize_t sent = bf_transport_send_some(&queue.transport, &rest, 1);

		if (sent < 0 || (sent == 0 && poll(&room, 1, 100) < 0 && errno != EINTR))
			break;
		done += sent;
	}
	die(); /* a thread that is still running finds the queue closed */
	pthread_mutex_unlock(&queue.lock);
}
