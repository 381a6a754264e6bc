/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "transport.h"
#include "clock.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The peer orders what one thread sends before what another receives, which ThreadSanitizer cannot see. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define SENDS(transport) __tsan_release(transport)
#define RECEIVED(transport) __tsan_acquire(transport)
#else
#define SENDS(transport) ((void)0)
#define RECEIVED(transport) ((void)0)
#endif

enum { SPIN_US = 50, FEW_MISSES = 4, BULK_BYTES = 64 << 10, PARTS_PER_SEND = 64, BUFFER_BYTES = 4 << 20 };

/* Polling only helps when the peer can run at the same time. */
static int usable_cpus(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof cpus, &cpus))
		return 1;
	return CPU_COUNT(&cpus);
}

void bf_transport_open(struct bf_transport *transport, int fd)
{
	struct sockaddr_storage name;
	socklen_t size = sizeof name;
	int on = 1, bytes = BUFFER_BYTES;

	*transport = (struct bf_transport){ .fd = fd };
	transport->spin_us = usable_cpus() > 1 ? SPIN_US : 0;
	transport->kind = BF_TRANSPORT_UNIX;
	if (!getsockname(fd, (struct sockaddr *)&name, &size) &&
	    (name.ss_family == AF_INET || name.ss_family == AF_INET6)) {
		transport->kind = BF_TRANSPORT_TCP;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		return; /* TCP sizes its own buffers, better than a fixed number */
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

void bf_transport_close(struct bf_transport *transport)
{
	if (transport->fd >= 0)
		close(transport->fd);
	transport->fd = -1;
	transport->kind = BF_TRANSPORT_NONE;
}

static int wait_for(int fd, short events)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	while (poll(&poll_fd, 1, -1) < 0)
		if (errno != EINTR)
			return -1;
	return 0;
}

ssize_t bf_transport_send_some(struct bf_transport *transport, const struct iovec *parts, int count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)parts };
	ssize_t sent;

	message.msg_iovlen = count < PARTS_PER_SEND ? count : PARTS_PER_SEND;
	SENDS(transport);
	do
		sent = sendmsg(transport->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	return sent;
}

static int await_room(struct bf_transport *transport)
{
	return transport->await_room ? transport->await_room(transport) : wait_for(transport->fd, POLLOUT);
}

int bf_transport_send(struct bf_transport *transport, struct iovec *parts, int count)
{
	while (count > 0) {
		ssize_t sent = bf_transport_send_some(transport, parts, count);

		if (sent < 0)
			return -1;
		for (; count > 0 && (size_t)sent >= parts->iov_len; parts++, count--)
			sent -= parts->iov_len;
		if (count == 0)
			return 0;
		parts->iov_base = (char *)parts->iov_base + sent;
		parts->iov_len -= sent;
		if (await_room(transport))
			return -1;
	}
	return 0;
}

ssize_t bf_transport_receive_some(struct bf_transport *transport, void *data, size_t size)
{
	ssize_t received;

	do
		received = recv(transport->fd, data, size, MSG_DONTWAIT);
	while (received < 0 && errno == EINTR);
	RECEIVED(transport);
	return received;
}

/* Polling is worse than useless when the peer waits for this very CPU (yielding does not make it run), or is
 * simply slow. After a few polls in vain there are none but an occasional try. */
static int worth_polling(struct bf_transport *transport)
{
	unsigned doublings = transport->misses - FEW_MISSES;

	if (!transport->spin_us)
		return 0;
	if (transport->misses < FEW_MISSES)
		return 1;
	if (++transport->skipped < 8u << (doublings < 5 ? doublings : 5))
		return 0;
	transport->skipped = 0;
	return 1;
}

/* As bf_transport_receive_some, for as long as polling is good for. */
static ssize_t poll_for(struct bf_transport *transport, void *data, size_t size)
{
	uint64_t until = bf_now_ns() + (uint64_t)transport->spin_us * 1000;

	do {
		ssize_t received = bf_transport_receive_some(transport, data, size);

		if (received >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
			transport->misses = 0;
			return received;
		}
		sched_yield();
	} while (bf_now_ns() < until);
	if (transport->misses < UINT16_MAX)
		transport->misses++;
	errno = EAGAIN;
	return -1;
}

/* One call that sleeps costs much less than a try, a sleep and another try. */
static ssize_t sleep_for(struct bf_transport *transport, void *data, size_t size, int flags)
{
	for (;;) {
		ssize_t received = recv(transport->fd, data, size, flags);

		RECEIVED(transport);
		if (received >= 0)
			return received;
		/* somebody may have made the descriptor non-blocking */
		if (errno == EAGAIN ? wait_for(transport->fd, POLLIN) : errno != EINTR)
			return -1;
	}
}

ssize_t bf_transport_receive(struct bf_transport *transport, void *data, size_t size)
{
	ssize_t received;

	if (!worth_polling(transport))
		return sleep_for(transport, data, size, 0);
	received = poll_for(transport, data, size);
	return received < 0 && errno == EAGAIN ? sleep_for(transport, data, size, 0) : received;
}

int bf_transport_receive_all(struct bf_transport *transport, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		size_t left = size - done;
		ssize_t received = left < BULK_BYTES ? bf_transport_receive(transport, (char *)data + done, left)
						     : sleep_for(transport, (char *)data + done, left, MSG_WAITALL);

		if (received < 0)
			return -1;
		if (received == 0) {
			errno = EPIPE;
			return -1;
		}
		done += received;
	}
	return 0;
}
