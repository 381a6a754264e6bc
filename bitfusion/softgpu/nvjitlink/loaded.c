/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that is linked against a library has loaded it, from wherever the loader found it, and tools that put libraries into
 * wheels give them other names (libnvrtc-b51b459d.so.12). What stays is the version of its symbols, libnvrtc.so.12.
 */
#define _GNU_SOURCE
#include "loaded.h"

#include "dlsym.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

struct search {
	const char *begin;
	unsigned skip;
	char path[4096];
};

/* Copies the path: to open a library while the list of them is held could wait for ever. */
static int find_next(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct search *search = argument;
	const char *slash = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;

	if (!slash || strncmp(slash + 1, search->begin, strlen(search->begin)) || search->skip--)
		return 0;
	return (size_t)snprintf(search->path, sizeof search->path, "%s", info->dlpi_name) < sizeof search->path ? 1
														: -1;
}

void *loaded_library(const char *begin, const char *function, const char *version)
{
	struct search search = { .begin = begin };
	unsigned count = 0;

	while (dl_iterate_phdr(find_next, &search) > 0) {
		void *library = dlopen(search.path, RTLD_LAZY | RTLD_NOLOAD);

		if (library && (version ? dlvsym(library, function, version) : real_dlsym()(library, function)))
			return library;
		if (library)
			dlclose(library);
		search.skip = ++count;
	}
	return NULL;
}
