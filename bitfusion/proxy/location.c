/* SPDX-License-Identifier: Apache-2.0
 *
 * Device numbers inside structs (CUmemLocation): the program's on one side, the server's on the other.
 */
#define _GNU_SOURCE
#include "location.h"

#include <string.h>

static void map_one(CUmemLocation *location, bool to_server)
{
	if (location->type != CU_MEM_LOCATION_TYPE_DEVICE)
		return;
	if (to_server) {
		if (bf_device_valid(location->id))
			location->id = (int)bf_device_index(location->id);
		else
			location->id = -1; /* a number that is wrong on the server too */
		return;
	}
	for (unsigned i = 0; i < bf_device_count(); i++)
		if (bf_device_index((CUdevice)i) == (uint32_t)location->id) {
			location->id = (int)i;
			return;
		}
}

uint64_t bf_location_value(uint64_t value)
{
	CUmemLocation location;

	memcpy(&location, &value, sizeof value);
	map_one(&location, true);
	memcpy(&value, &location, sizeof value);
	return value;
}

void bf_location_map(const struct bf_argument *argument, void *bytes, uint64_t size, bool to_server)
{
	if (!argument->location)
		return;
	for (uint64_t at = 0; at + argument->size <= size; at += argument->size) {
		uint8_t *field = (uint8_t *)bytes + at + argument->location - 1;
		CUmemLocation location;

		memcpy(&location, field, sizeof location);
		map_one(&location, to_server);
		memcpy(field, &location, sizeof location);
	}
}
