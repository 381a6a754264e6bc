/* SPDX-License-Identifier: Apache-2.0
 *
 * A call of a row on its way into a command (command.c) and back (call.c).
 */
#ifndef BITFUSION_PROXY_COMMAND_H
#define BITFUSION_PROXY_COMMAND_H

#include "proxy.h"

struct bf_row_call {
	const struct bf_row *row;
	unsigned number;
	uint64_t args[BF_MAX_ARGUMENTS];
	uint64_t wire[BF_MAX_ARGUMENTS];  /* the value or byte count that travels */
	uint64_t minted[BF_MAX_ARGUMENTS];
	size_t size;
};

/* Checks one argument, counts the bytes that it takes and mints the handles that the call is to make. */
CUresult bf_command_measure(struct bf_row_call *call, int i);
/* The arguments, as they lie in a command of call->size bytes. */
void bf_command_encode(const struct bf_row_call *call, uint8_t *at);

#endif
