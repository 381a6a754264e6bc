/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA_VISIBLE_DEVICES: a list of numbers and of UUIDs or their beginnings. It ends at the first word that names no
 * device; a device that is named twice makes all of it void.
 */
#include "abi.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Does "GPU-8932f937-d72c-…", or any beginning of it, name this device? */
static int uuid_matches(const char *word, size_t size, const uint8_t uuid[16])
{
	size_t nibble = 0;
	if (size < 5 || strncasecmp(word, "GPU-", 4) != 0)
		return 0;
	for (size_t i = 4; i < size; i++) {
		int digit = hex_digit(word[i]);
		if (word[i] == '-')
			continue;
		if (digit < 0 || nibble >= 32 || digit != (uuid[nibble / 2] >> (nibble % 2 ? 0 : 4) & 15))
			return 0;
		nibble++;
	}
	return nibble > 0;
}

/* -1: none, or more than one. */
static int find(const char *word, size_t size, unsigned count, abi_uuid_function uuid)
{
	int found = -1;
	if (size && isdigit((unsigned char)*word)) {
		char *end;
		unsigned long number = strtoul(word, &end, 10);
		return end == word + size && number < count ? (int)number : -1;
	}
	for (unsigned i = 0; i < count; i++) {
		uint8_t bytes[16];
		uuid(bytes, (int)i);
		if (!uuid_matches(word, size, bytes))
			continue;
		if (found >= 0)
			return -1;
		found = (int)i;
	}
	return found;
}

static int contains(const uint32_t *chosen, unsigned count, uint32_t device)
{
	for (unsigned i = 0; i < count; i++)
		if (chosen[i] == device)
			return 1;
	return 0;
}

unsigned abi_visible_devices(unsigned count, abi_uuid_function uuid, uint32_t *chosen)
{
	static const char blank[] = " \t\n\v\f\r";
	const char *list = getenv("CUDA_VISIBLE_DEVICES");
	unsigned used = 0;
	for (; !list && used < count; used++)
		chosen[used] = used;
	while (list) {
		list += strspn(list, blank);
		size_t size = strcspn(list, ", \t\n\v\f\r");
		int device = find(list, size, count, uuid);
		if (device < 0)
			break;
		if (contains(chosen, used, (uint32_t)device))
			return 0;
		chosen[used++] = (uint32_t)device;
		list += size;
		list += strspn(list, blank);
		list = *list == ',' ? list + 1 : NULL;
	}
	return used;
}
