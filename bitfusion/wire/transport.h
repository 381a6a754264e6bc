/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving bytes over one connection, for both ends. A transport knows nothing of what the bytes mean.
 * Today every transport is a stream socket (TCP or Unix); shared memory rings get their place here: a new
 * value of enum bf_transport_kind and a branch in the four functions of transport.c.
 *
 * One thread may send while another receives; two senders, or two receivers, need a lock of their own.
 */
#ifndef BITFUSION_TRANSPORT_H
#define BITFUSION_TRANSPORT_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum bf_transport_kind { BF_TRANSPORT_NONE, BF_TRANSPORT_TCP, BF_TRANSPORT_UNIX };

struct bf_transport {
	int fd;
	enum bf_transport_kind kind;
	int spin_us; /* how long to poll before sleeping; 0 on a machine with one CPU */
	unsigned misses, skipped; /* polls in a row that brought nothing, and how often none was tried since */
	/* What a sender does until there is room, when it must do more than sleep; 0, or -1 to give up. */
	int (*await_room)(struct bf_transport *transport);
};

/* Takes over a connected socket: sets its options and finds out what it is. */
void bf_transport_open(struct bf_transport *transport, int fd);
void bf_transport_close(struct bf_transport *transport);

/* Sends everything, sleeping while the socket is full; 0, or -1 with errno. `parts` is used up. Never SIGPIPE. */
int bf_transport_send(struct bf_transport *transport, struct iovec *parts, int count);

/* Sends what fits without sleeping; bytes sent (perhaps 0), or -1 with errno. */
ssize_t bf_transport_send_some(struct bf_transport *transport, const struct iovec *parts, int count);

/* Receives at least one byte, polling for spin_us before it sleeps; bytes, 0 at the end, or -1 with errno. */
ssize_t bf_transport_receive(struct bf_transport *transport, void *data, size_t size);

/* The same, but without waiting: -1 with EAGAIN when there is nothing. */
ssize_t bf_transport_receive_some(struct bf_transport *transport, void *data, size_t size);

/* Receives exactly size bytes; 0, or -1 with errno (EPIPE when the peer closed). */
int bf_transport_receive_all(struct bf_transport *transport, void *data, size_t size);

#endif
