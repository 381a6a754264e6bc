/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_DIAL_H
#define BITFUSION_DIAL_H

#include "cuda.h"
#include "transport.h"

/* A connection to the worker that the broker names, handshake done; the caller closes it. Errors have been told. */
CUresult bf_dial(struct bf_transport *server);

#endif
