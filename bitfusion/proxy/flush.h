/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the command queue and the thread that sends its tail.
 */
#ifndef BITFUSION_FLUSH_H
#define BITFUSION_FLUSH_H

#include <stdbool.h>

bool bf_flush_needed(void); /* a first command waits in the buffer; true when the thread must be woken */
void bf_flush_wake(void);   /* starts the thread at the first time; without the queue's lock */
void bf_flush_sent(void);   /* the buffer has been sent */

bool bf_queue_try_flush(void);

#endif
