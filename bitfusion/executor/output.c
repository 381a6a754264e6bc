/* SPDX-License-Identifier: Apache-2.0
 *
 * The watcher: forwards what the driver prints (device printf, assertions) and sees that the client is gone
 * even when every other thread is stuck in the driver.
 */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_BYTES = 32 << 10, FULL_MS = 10, LOOK_MS = 250 };

static void forward(struct bf_session *session, unsigned which)
{
	uint8_t text[TEXT_BYTES + 8];
	for (;;) {
		ssize_t size = read(session->output[which], text, TEXT_BYTES);
		if (size <= 0)
			return;
		memset(text + size, 0, bf_pad((size_t)size) - (size_t)size);
		struct bf_output output = { which + 1, (uint32_t)size };
		struct bf_reply reply = {
			.size = (uint32_t)(sizeof(reply) + sizeof(output) + bf_pad((size_t)size)),
			.kind = BF_OUTPUT,
		};
		bf_send(session, &reply, &output, sizeof(output), text, bf_pad((size_t)size), NULL);
		if (size < TEXT_BYTES)
			return;
	}
}

/* Under a lock, so that a reply cannot overtake text that the watcher has read already. Messages on the
 * second descriptor tell of failures, so a success need not look there. */
void bf_output_drain(struct bf_session *session, bool all)
{
	pthread_mutex_lock(&session->output_lock);
	for (unsigned which = 0; which < (all ? 2 : 1); which++)
		if (session->output[which] >= 0)
			forward(session, which);
	pthread_mutex_unlock(&session->output_lock);
}

static int redirect(int fd, int *saved)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	*saved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	dup2(ends[1], fd);
	close(ends[1]);
	return ends[0];
}

/* The client closed its end: what runs has a moment, then the process ends under it. */
static void outlive(struct bf_session *session)
{
	struct pollfd stop = { .fd = session->stop[0], .events = POLLIN };
	if (poll(&stop, 1, (int)session->options.grace_ms) == 0) {
		bf_log(session, "the client is gone and the driver is still busy: ending");
		_exit(BF_ENDED_CLIENT_GONE);
	}
}

static void *watch(void *argument)
{
	struct bf_session *session = argument;
	for (;;) {
		/* a client that does not read makes those wait that print */
		bool full = atomic_load(&session->outbox.over);
		struct pollfd pollers[4] = {
			{ .fd = session->transport.fd, .events = POLLRDHUP },
			{ .fd = session->stop[0], .events = POLLIN },
			{ .fd = full ? -1 : session->output[0], .events = POLLIN },
			{ .fd = full ? -1 : session->output[1], .events = POLLIN },
		};
		int timeout_ms = full ? FULL_MS : session->host_memory.limit ? LOOK_MS : -1;
		if (poll(pollers, 4, timeout_ms) < 0 && errno != EINTR)
			return NULL;
		if (pollers[1].revents)
			return NULL;
		if (bf_host_memory_over(session))
			_exit(BF_ENDED_MEMORY); /* waiters make it grow, or the issue thread is stuck */
		if (pollers[2].revents || pollers[3].revents)
			bf_output_drain(session, true);
		if (pollers[0].revents) {
			outlive(session);
			return NULL;
		}
	}
}

bool bf_output_start(struct bf_session *session)
{
	session->output[0] = session->output[1] = session->saved[0] = session->saved[1] = -1;
	if (pipe2(session->stop, O_CLOEXEC) != 0)
		return false;
	if (!(session->options.flags & BF_SERVE_KEEP_OUTPUT)) {
		session->output[1] = redirect(2, &session->saved[1]);
		session->output[0] = redirect(1, &session->saved[0]);
	}
	return pthread_create(&session->watcher, NULL, watch, session) == 0;
}

static void restore(int fd, int *saved, int *output)
{
	if (*saved >= 0) {
		dup2(*saved, fd);
		close(*saved);
	}
	if (*output >= 0)
		close(*output);
	*saved = *output = -1;
}

void bf_output_stop(struct bf_session *session)
{
	bf_output_drain(session, true);
	(void)!write(session->stop[1], "", 1);
	pthread_join(session->watcher, NULL);
	pthread_mutex_lock(&session->output_lock); /* threads that wait for the driver still look for output */
	restore(1, &session->saved[0], &session->output[0]);
	restore(2, &session->saved[1], &session->output[1]);
	pthread_mutex_unlock(&session->output_lock);
	close(session->stop[0]);
	close(session->stop[1]);
}
