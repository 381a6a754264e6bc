/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the waiting threads (reply.c) and the decoder of what the server sends (receive.c).
 */
#ifndef BITFUSION_REPLY_H
#define BITFUSION_REPLY_H

#include "proxy.h"

struct bf_wait *bf_wait_find(uint32_t request);
bool bf_wait_is_done(const struct bf_wait *wait);
void bf_wait_until_done(struct bf_wait *wait); /* without a look at what it says */
void bf_wait_complete(struct bf_wait *wait); /* takes it off the list and wakes, or frees, its owner */

/* Until the socket takes more: receives what comes meanwhile, if nobody else does. The lock of the queue is held,
 * so that nothing that this calls may send. -1 when the connection is gone. */
int bf_reply_until_room(struct bf_transport *transport);

bool bf_reply_is_over(void);    /* the connection is gone, and nobody brings in anything any more */
void bf_reply_until_over(void); /* the connection is gone: until nobody does. Not for the thread that leads. */

/* A failure of work that nobody waited for (answer.c); the first one counts. */
void bf_deferred_keep(int32_t status);

void bf_receive_open(void);
int bf_receive_frames(void); /* waits for bytes, handles all whole frames; -1 when the connection is gone */
bool bf_receive_ready(void); /* is there something to read? */
int bf_receive_poll(void);   /* waits until there is something to read; -1 when the connection is gone */

#endif
