/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows that deal with physical memory, for rows.c.
 */
#ifndef BITFUSION_EXECUTOR_VIRTUAL_H
#define BITFUSION_EXECUTOR_VIRTUAL_H

#include "core.h"

CUresult bf_virtual_create(struct bf_session *session, struct bf_frame *frame);
CUresult bf_virtual_release(struct bf_session *session, struct bf_frame *frame);
CUresult bf_virtual_retain(struct bf_session *session, struct bf_frame *frame);
CUresult bf_virtual_map(struct bf_session *session, struct bf_frame *frame);
CUresult bf_virtual_unmap(struct bf_session *session, struct bf_frame *frame);

#endif
