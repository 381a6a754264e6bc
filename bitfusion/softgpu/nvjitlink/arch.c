/* SPDX-License-Identifier: Apache-2.0
 *
 * -arch=sm_130, --gpu-architecture=compute_130, or the name alone as the option after. The copy and the names it needs are one
 * piece of memory.
 */
#include "arch.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_NAME = 48 };

/* Where the number of an architecture begins, and the number; NULL when the option names none. */
static const char *find_number(const char *option, int *number)
{
	static const char *const names[] = { "sm_", "compute_", "lto_" };
	static const char *const prefixes[] = { "-arch=", "--gpu-architecture=", "-gpu-architecture=", "" };

	for (unsigned p = 0; p < sizeof prefixes / sizeof *prefixes; p++)
		for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
			size_t prefix = strlen(prefixes[p]), name = strlen(names[n]);

			if (strncmp(option, prefixes[p], prefix) || strncmp(option + prefix, names[n], name))
				continue;
			*number = atoi(option + prefix + name);
			return option + prefix + name;
		}
	return NULL;
}

const char **arch_options(int count, const char *const *options, int newest, int *exchanged)
{
	size_t slots = (size_t)(count > 0 ? count : 0);
	const char **copy = malloc(slots * (sizeof *copy + LONGEST_NAME) + 1);
	char *text = copy ? (char *)(copy + slots) : NULL;

	*exchanged = 0;
	for (size_t i = 0; copy && i < slots; i++, text += LONGEST_NAME) {
		int number = 0;
		const char *at = options[i] ? find_number(options[i], &number) : NULL;

		copy[i] = options[i];
		if (!at || number <= newest)
			continue;
		snprintf(text, LONGEST_NAME, "%.*s%d", (int)(at - options[i]), options[i], newest);
		copy[i] = text;
		++*exchanged;
	}
	return copy;
}

void arch_options_free(const char **options)
{
	free((void *)(uintptr_t)options);
}
