/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver holds for the session beside what the program has allocated.
 */
#ifndef BITFUSION_EXECUTOR_RESERVE_H
#define BITFUSION_EXECUTOR_RESERVE_H

#include "core.h"

/* ------------------------------------------------------------------ reserve.c */

CUresult bf_reserve_alloc(struct bf_session *session, struct bf_frame *frame, CUstream stream);
CUresult bf_reserve_create(struct bf_session *session, struct bf_frame *frame);
CUresult bf_reserve_destroy(struct bf_session *session, struct bf_frame *frame);
/* A node of a graph that allocates at what *place is then. */
CUresult bf_reserve_node(struct bf_session *session, struct bf_frame *frame, uint64_t size, uint64_t *place);
CUresult bf_reserve_launch(struct bf_session *session, struct bf_frame *frame);
CUresult bf_reserve_end_graph(struct bf_session *session, struct bf_frame *frame);
CUresult bf_reserve_other(struct bf_session *session, struct bf_frame *frame);

/* ------------------------------------------------------------------ limits.c */

CUresult bf_limit_set(struct bf_session *session, struct bf_frame *frame);

#endif
