/* SPDX-License-Identifier: Apache-2.0
 *
 * What a hello says of the client's environment.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a driver reads in its own process and what does no harm in ours: no paths, no device selection. */
static const char *const may_set[] = {
	"CUDA_AUTO_BOOST",
	"CUDA_BINARY_LOADER_THREAD_COUNT",
	"CUDA_CACHE_DISABLE",
	"CUDA_DEVICE_DEFAULT_PERSISTING_L2_CACHE_PERCENTAGE_LIMIT",
	"CUDA_DEVICE_MAX_CONNECTIONS",
	"CUDA_DEVICE_MAX_COPY_CONNECTIONS",
	"CUDA_DEVICE_WAITS_ON_EXCEPTION",
	"CUDA_DISABLE_JIT",
	"CUDA_DISABLE_PTX_JIT",
	"CUDA_FORCE_JIT",
	"CUDA_FORCE_PTX_JIT",
	"CUDA_LAUNCH_BLOCKING",
	"CUDA_MODULE_DATA_LOADING",
	"CUDA_MODULE_LOADING",
	"CUDA_SCALE_LAUNCH_QUEUES",
};
enum { SETTABLE = sizeof(may_set) / sizeof(*may_set) };

static unsigned setting_of(const char *name, size_t size)
{
	unsigned i = 0;
	while (i < SETTABLE && (strlen(may_set[i]) != size || memcmp(may_set[i], name, size) != 0))
		i++;
	return i;
}

/* By name alone, and once of each: the rest is what the client wrote. */
static void tell_ignored(struct bf_session *session, uint32_t ignored)
{
	char list[480] = "";
	size_t used = 0;
	for (unsigned i = 0; i < SETTABLE && used < sizeof(list); i++) {
		if (ignored >> i & 1)
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
						 may_set[i]);
	}
	if (used)
		bf_log(session, "the driver has started already, ignoring %s", list);
}

void bf_set_environment(struct bf_session *session, char *text, size_t size)
{
	uint32_t ignored = 0;
	_Static_assert(SETTABLE <= 32, "a bit for each");
	text[size] = 0;
	for (char *entry = text; entry < text + size && *entry; entry += strlen(entry) + 1) {
		char *equals = strchr(entry, '=');
		unsigned setting = equals ? setting_of(entry, (size_t)(equals - entry)) : SETTABLE;
		if (setting == SETTABLE)
			continue;
		if (session->driver->ready) {
			ignored |= 1u << setting;
			continue;
		}
		*equals = 0;
		setenv(entry, equals + 1, 1);
		*equals = '=';
	}
	tell_ignored(session, ignored);
}
