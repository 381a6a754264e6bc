/* SPDX-License-Identifier: Apache-2.0
 *
 * One call of a row on its way: decode.c reads it, call.c makes it, answer.c composes the reply.
 */
#ifndef BITFUSION_EXECUTOR_FRAME_H
#define BITFUSION_EXECUTOR_FRAME_H

#include "core.h"

/* Reads the arguments of frame->command into what the driver gets. */
CUresult bf_decode(struct bf_session *session, struct bf_frame *frame);
/* How many elements an array has by the argument that counts them. */
uint64_t bf_counted(const struct bf_frame *frame, const struct bf_argument *what);
bool bf_is_array(uint8_t kind);
/* From now on nobody finds what this call, which is made later, will end. */
void bf_free_handles(struct bf_session *session, const struct bf_frame *frame);
/* The driver's device number in a CUmemLocation becomes the session's again. */
void bf_map_location_back(struct bf_session *session, void *location);

#endif
