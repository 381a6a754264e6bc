/* SPDX-License-Identifier: Apache-2.0
 *
 * The session's one connection: its beginning, its loss, and what a forked child does with its copy.
 */
#include "dial.h"
#include "late.h"
#include "reply.h"

#include <sys/socket.h>

CUresult bf_connect(void)
{
	struct bf_transport server;
	CUresult status = bf_dial(&server);

	if (status)
		return status;
	bf_reply_open();
	status = bf_queue_open(&server);
	if (status)
		bf_transport_close(&server);
	else
		bf_debug("connected over %s", server.kind == BF_TRANSPORT_TCP ? "tcp" : "unix");
	return status;
}

void bf_connection_lost(const char *what)
{
	int ready = BF_READY;

	/* before cuInit is done the state is still BF_NEW, and cuInit reports by itself */
	if (atomic_compare_exchange_strong(&bf_state, &ready, BF_LOST)) {
		bf_tell("connection to the GPU server was lost");
		bf_debug("connection lost: %s", what);
	}
	shutdown(bf_queue_transport()->fd, SHUT_RDWR);
	bf_reply_break();
}

void bf_connection_settle(void)
{
	if (atomic_load(&bf_state) == BF_ENDED)
		return;
	if (!bf_reply_is_over()) {
		bf_connection_lost("cannot send");
		bf_reply_until_over();
	}
	bf_late_settle();
}

void bf_connection_leave(void)
{
	bf_transport_close(bf_queue_transport());
}
