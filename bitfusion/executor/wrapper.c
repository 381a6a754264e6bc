/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program's own compiler puts around its code, made again for the driver: it says how a fat binary is to be
 * read, and what linked code was linked from.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* The sizes stand first, then the parts; nothing may be left over. */
static bool find_parts(const uint8_t *bulk, uint64_t size, const void **parts, uint32_t count)
{
	uint64_t at = 8 * (uint64_t)count;
	if (at > size)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t part;
		memcpy(&part, bulk + 8 * (size_t)i, 8);
		if (!part || part > size - at || bf_pad(part) > size - at)
			return false;
		parts[i] = bulk + at;
		at += bf_pad(part);
	}
	return at == size;
}

bool bf_wrapper_fill(struct bf_wrapper *wrapper, const uint8_t *bulk, uint64_t size, uint32_t input_count)
{
	*wrapper = (struct bf_wrapper){ { WRAPPER_MAGIC, WRAPPER_PLAIN, bulk, NULL }, NULL };
	if (!input_count)
		return true;
	/* a NULL ends the inputs */
	const void **parts = calloc((size_t)input_count + 2, sizeof(*parts));
	if (!parts || !find_parts(bulk, size, parts, 1 + input_count)) {
		free(parts);
		return false;
	}
	*wrapper = (struct bf_wrapper){ { WRAPPER_MAGIC, WRAPPER_LINKED, parts[0], parts + 1 }, parts };
	return true;
}

const void *bf_wrapper_code(const struct bf_wrapper *wrapper)
{
	uint32_t magic;
	memcpy(&magic, wrapper->code.data, 4);
	return wrapper->code.version == WRAPPER_LINKED || magic == FATBIN_MAGIC ? (const void *)&wrapper->code
										: wrapper->code.data;
}

void bf_wrapper_free(struct bf_wrapper *wrapper)
{
	free(wrapper->parts);
	wrapper->parts = NULL;
}
