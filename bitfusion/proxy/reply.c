/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies. Any number of threads may wait; one of them, the leader, reads the socket for all and hands the lead
 * on when it has its own answer. There is no reader thread until a host function needs one (callback.c).
 */
#define _GNU_SOURCE
#include "futex.h"
#include "proxy.h"
#include "reply.h"
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BUCKETS = 256, FOLLOW_MS = 2 };
enum bf_wait_state { WAITING, PROMOTED, DONE };

static struct {
	pthread_mutex_t lock;
	struct bf_wait *bucket[BUCKETS];
	struct bf_wait *followers;
	bool led;
	bool reader_waits;          /* the reader thread wants the lead when nobody else does */
	_Atomic uint32_t lead_word; /* futex for the reader thread: changes when the lead becomes free */
	uint32_t next_request;
	bool broken;
	bool unreadable;   /* receiving has failed; of who has the lead */
	_Atomic bool over; /* broken, and nobody brings in anything any more */
	_Atomic unsigned copies;    /* asynchronous ones in flight */
} replies = { .lock = PTHREAD_MUTEX_INITIALIZER };

void bf_reply_open(void)
{
	replies.broken = replies.unreadable = false;
	replies.over = false;
	bf_receive_open();
}

uint32_t bf_wait_add(struct bf_wait *wait, unsigned call)
{
	uint32_t request;

	wait->call = call;
	wait->status = 0;
	wait->deferred = 0;
	wait->deferred_call = 0;
	wait->body = NULL;
	wait->body_size = 0;
	atomic_init(&wait->state, WAITING);
	pthread_mutex_lock(&replies.lock);
	if (++replies.next_request == 0)
		replies.next_request = 1;
	request = wait->request = replies.next_request;
	wait->next = replies.bucket[wait->request % BUCKETS];
	replies.bucket[wait->request % BUCKETS] = wait;
	if (wait->finish)
		atomic_fetch_add(&replies.copies, 1);
	pthread_mutex_unlock(&replies.lock);
	return request;
}

static struct bf_wait **find(uint32_t request)
{
	struct bf_wait **link = &replies.bucket[request % BUCKETS];

	while (*link && (*link)->request != request)
		link = &(*link)->next;
	return link;
}

struct bf_wait *bf_wait_find(uint32_t request)
{
	struct bf_wait *wait;

	pthread_mutex_lock(&replies.lock);
	wait = *find(request);
	pthread_mutex_unlock(&replies.lock);
	return wait;
}

/* Nobody waits for an asynchronous copy: its failure is reported by the next call that does wait. */
static void finish_copy(struct bf_wait *wait)
{
	if (wait->status)
		bf_debug("%s failed with error %d", bf_call_name(wait->call), wait->status);
	bf_deferred_keep(wait->status ? wait->status : wait->deferred);
	bf_wait_drop(wait);
	free(wait);
	atomic_fetch_sub(&replies.copies, 1);
}

static void complete(struct bf_wait *wait)
{
	if (wait->finish) {
		finish_copy(wait);
	} else if (atomic_exchange_explicit(&wait->state, DONE, memory_order_acq_rel) != DONE) {
		/* The thread may be gone by now; a stray wake at a dead address harms nobody. */
		bf_futex_wake(&wait->state);
	}
}

void bf_wait_complete(struct bf_wait *wait)
{
	struct bf_wait **link;

	if (wait->finish) /* while it can still be found: this may write the program's memory */
		wait->finish(wait);
	pthread_mutex_lock(&replies.lock);
	link = find(wait->request);
	if (*link)
		*link = wait->next;
	pthread_mutex_unlock(&replies.lock);
	complete(wait);
}

/* The lead is ours, so that nobody is writing to what these threads wait for. */
static void fail_all(void)
{
	struct bf_wait *all = NULL;

	pthread_mutex_lock(&replies.lock);
	replies.broken = replies.over = true;
	for (int i = 0; i < BUCKETS; i++)
		for (struct bf_wait *wait; (wait = replies.bucket[i]);) {
			replies.bucket[i] = wait->next;
			wait->next = all;
			all = wait;
		}
	pthread_mutex_unlock(&replies.lock);
	while (all) {
		struct bf_wait *wait = all;

		all = wait->next;
		wait->status = CUDA_ERROR_DEVICE_UNAVAILABLE;
		if (wait->finish)
			wait->finish(wait);
		complete(wait);
	}
}

static void leave_followers(struct bf_wait *wait)
{
	struct bf_wait **link = &replies.followers;

	while (*link && *link != wait)
		link = &(*link)->next_follower;
	if (*link)
		*link = wait->next_follower;
}

/* With the lock held. The lead goes to a thread that waits, else the reader thread may take it. */
static void release_lead(void)
{
	struct bf_wait *heir = replies.followers;
	uint32_t waiting = WAITING;

	replies.led = false;
	if (heir) {
		if (atomic_compare_exchange_strong(&heir->state, &waiting, PROMOTED))
			bf_futex_wake(&heir->state);
		return;
	}
	if (replies.reader_waits) {
		atomic_fetch_add(&replies.lead_word, 1);
		bf_futex_wake(&replies.lead_word);
	}
}

/* With the lead. What follows a rule that was broken is not believed, and in the middle of a frame nothing makes sense. */
static int receive(void)
{
	if (!replies.unreadable)
		replies.unreadable = bf_receive_frames() != 0;
	return replies.unreadable ? -1 : 0;
}

static void lead(struct bf_wait *wait, bool broken)
{
	while (!broken && atomic_load_explicit(&wait->state, memory_order_acquire) != DONE)
		if (receive()) {
			bf_connection_lost("cannot receive");
			broken = true;
		}
	if (broken)
		fail_all();
}

static bool take_lead(void)
{
	bool mine;

	pthread_mutex_lock(&replies.lock);
	mine = !replies.led;
	replies.led = true;
	pthread_mutex_unlock(&replies.lock);
	return mine;
}

/* A server with many replies that nobody takes stops reading: taking them is what makes room. Without the lead,
 * try again soon, because its holder may stop leading at any time. 1 when there is room, -1 when all is over. */
static int receive_or_follow(struct bf_transport *transport, bool leading)
{
	struct pollfd socket = { .fd = transport->fd, .events = leading ? POLLOUT | POLLIN : POLLOUT };
	int ready = poll(&socket, 1, leading ? -1 : FOLLOW_MS);

	if (ready < 0)
		return errno == EINTR ? 0 : -1;
	if (!ready)
		return 0;
	if (socket.revents != POLLIN)
		return 1;
	return receive() ? -1 : 0;
}

int bf_reply_until_room(struct bf_transport *transport)
{
	bool leading;
	int done;

	do {
		leading = take_lead();
		done = receive_or_follow(transport, leading);
		if (leading) {
			pthread_mutex_lock(&replies.lock);
			replies.broken |= done < 0;
			release_lead();
			pthread_mutex_unlock(&replies.lock);
		}
	} while (!done);
	return done < 0 ? -1 : 0;
}

/* The socket is shut down by now: whoever leads notices, and else we do the rest here. */
void bf_reply_break(void)
{
	bool mine;

	pthread_mutex_lock(&replies.lock);
	replies.broken = true;
	mine = !replies.led;
	replies.led = true;
	pthread_mutex_unlock(&replies.lock);
	if (!mine)
		return;
	fail_all();
	pthread_mutex_lock(&replies.lock);
	release_lead();
	pthread_mutex_unlock(&replies.lock);
}

/* One turn for a thread that waits for something else than an answer of its own. */
static void receive_or_pause(bool broken)
{
	const struct timespec pause = { 0, FOLLOW_MS * 1000000L };
	struct pollfd socket = { .fd = bf_queue_transport()->fd, .events = POLLIN };

	if (!take_lead()) {
		nanosleep(&pause, NULL);
		return;
	}
	if (!broken && poll(&socket, 1, FOLLOW_MS) > 0 && receive()) {
		bf_connection_lost("cannot receive");
		broken = true;
	}
	if (broken)
		fail_all();
	pthread_mutex_lock(&replies.lock);
	release_lead();
	pthread_mutex_unlock(&replies.lock);
}

bool bf_reply_is_over(void)
{
	return atomic_load_explicit(&replies.over, memory_order_acquire);
}

void bf_reply_until_over(void)
{
	while (!bf_reply_is_over())
		receive_or_pause(true);
}

void bf_reply_until_written(const void *data, size_t size)
{
	uint64_t stream;

	bf_queue_flush();
	while (!bf_reply_is_over() && bf_reply_writes(data, size, &stream))
		receive_or_pause(false);
}

bool bf_wait_is_done(const struct bf_wait *wait)
{
	return atomic_load_explicit(&wait->state, memory_order_acquire) == DONE;
}

static void follow(struct bf_wait *wait)
{
	uint32_t state;

	while ((state = atomic_load_explicit(&wait->state, memory_order_acquire)) == WAITING)
		bf_futex_wait(&wait->state, WAITING, NULL);
}

/* Until done: lead if nobody does, else sleep until the leader has the answer or hands on the lead. */
void bf_wait_until_done(struct bf_wait *wait)
{
	pthread_mutex_lock(&replies.lock);
	while (atomic_load_explicit(&wait->state, memory_order_acquire) != DONE) {
		uint32_t promoted = PROMOTED;

		atomic_compare_exchange_strong(&wait->state, &promoted, WAITING);
		if (!replies.led) {
			bool broken = replies.broken;

			replies.led = true;
			pthread_mutex_unlock(&replies.lock);
			lead(wait, broken);
			pthread_mutex_lock(&replies.lock);
			release_lead();
		} else {
			wait->next_follower = replies.followers;
			replies.followers = wait;
			pthread_mutex_unlock(&replies.lock);
			follow(wait);
			pthread_mutex_lock(&replies.lock);
			leave_followers(wait);
		}
	}
	/* promoted and answered at once: somebody else must lead */
	if (!replies.led)
		release_lead();
	pthread_mutex_unlock(&replies.lock);
}

void bf_wait_drop(struct bf_wait *wait)
{
	if (wait->body != (uint8_t *)wait->inline_body)
		free(wait->body);
	wait->body = NULL;
}

static bool overlaps(const struct bf_wait *wait, const uint8_t *data, size_t size)
{
	return wait->finish && wait->host < data + size && data < wait->host_end;
}

bool bf_reply_writes(const void *data, size_t size, uint64_t *stream)
{
	bool found = false;

	if (!atomic_load(&replies.copies)) /* in one order with bf_twin_count: see bf_shared_copying */
		return false;
	pthread_mutex_lock(&replies.lock);
	for (int i = 0; i < BUCKETS && !found; i++)
		for (struct bf_wait *wait = replies.bucket[i]; wait && !found; wait = wait->next)
			if (overlaps(wait, data, size)) {
				*stream = wait->stream;
				found = true;
			}
	pthread_mutex_unlock(&replies.lock);
	return found;
}

/* The reader thread: takes the lead only when no thread of the program has it. */
static void *reader_main(void *unused)
{
	for (;;) {
		uint32_t word = atomic_load(&replies.lead_word);
		bool mine, broken;

		if (bf_receive_poll())
			return unused;
		pthread_mutex_lock(&replies.lock);
		mine = !replies.led;
		replies.led = true;
		replies.reader_waits = !mine;
		pthread_mutex_unlock(&replies.lock);
		if (!mine) {
			bf_futex_wait(&replies.lead_word, word, NULL);
			continue;
		}
		broken = bf_receive_ready() && receive();
		if (broken) {
			bf_connection_lost("cannot receive");
			fail_all();
		}
		pthread_mutex_lock(&replies.lock);
		release_lead(); /* also then: a thread may have begun to wait just now */
		pthread_mutex_unlock(&replies.lock);
		if (broken)
			return unused;
	}
}

static void start_reader(void)
{
	if (bf_thread_start(reader_main))
		bf_debug("cannot start the reader thread: host functions run only while a call waits");
}

void bf_reply_start_reader(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start_reader);
}
