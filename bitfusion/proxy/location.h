/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_LOCATION_H
#define BITFUSION_LOCATION_H

#include "proxy.h"

uint64_t bf_location_value(uint64_t value); /* CUmemLocation by value */
/* Those inside an argument's bytes, in place. */
void bf_location_map(const struct bf_argument *argument, void *bytes, uint64_t size, bool to_server);

#endif
