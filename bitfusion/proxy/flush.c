/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread that sends the tail of a burst: commands after which the program makes no further call for a
 * while. It looks every PERIOD while there is traffic and sleeps without a time limit when there is none, so
 * that waking it costs the program one system call per burst.
 */
#define _GNU_SOURCE
#include "flush.h"
#include "futex.h"
#include "proxy.h"

#include <signal.h>
#include <sys/prctl.h>

#define PERIOD_NS 100000
enum { QUIET_ROUNDS = 10 };

enum { ASLEEP, AWAKE };

static _Atomic uint32_t flusher = ASLEEP; /* futex */
static _Atomic uint32_t waiting;          /* something lies in the buffer */
static _Atomic uint32_t started;

bool bf_flush_needed(void)
{
	atomic_store_explicit(&waiting, 1, memory_order_seq_cst);
	return atomic_load_explicit(&flusher, memory_order_seq_cst) == ASLEEP;
}

void bf_flush_sent(void)
{
	atomic_store_explicit(&waiting, 0, memory_order_relaxed);
}

static void *flusher_main(void *unused)
{
	const struct timespec period = { 0, PERIOD_NS };
	int quiet = 0;

	prctl(PR_SET_NAME, "bitfusion-flush");
	prctl(PR_SET_TIMERSLACK, 1000UL);
	for (;;) {
		if (atomic_load(&waiting) == 0) {
			if (++quiet < QUIET_ROUNDS) {
				nanosleep(&period, NULL);
				continue;
			}
			atomic_store(&flusher, ASLEEP);
			if (atomic_load(&waiting) == 0)
				bf_futex_wait(&flusher, ASLEEP, NULL);
			atomic_store(&flusher, AWAKE);
		}
		quiet = 0;
		nanosleep(&period, NULL); /* give the burst a chance to fill the buffer */
		if (atomic_load(&waiting))
			bf_queue_try_flush();
	}
	return unused;
}

/* No signal handler of the program may run on a thread of ours. */
int bf_thread_start(void *(*start)(void *argument))
{
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;
	int failed;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	failed = pthread_create(&thread, &attributes, start, NULL);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return failed;
}

void bf_flush_wake(void)
{
	uint32_t no = 0;

	if (atomic_load_explicit(&started, memory_order_acquire)) {
		atomic_store(&flusher, AWAKE);
		bf_futex_wake(&flusher);
	} else if (atomic_compare_exchange_strong(&started, &no, 1) && bf_thread_start(flusher_main)) {
		bf_debug("cannot start the flusher thread: sending at once");
		bf_queue_flush();
		atomic_store(&started, 0);
	}
}
