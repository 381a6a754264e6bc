/* SPDX-License-Identifier: Apache-2.0
 *
 * Architectures newer than a compiler knows.
 */
#ifndef NVJITLINK_ARCH_H
#define NVJITLINK_ARCH_H

/* The software GPU is of a compute capability that no compiler has heard of. Copies `count` options (not the strings), with
 * those that name an architecture beyond `newest` exchanged, and says how many those were. NULL when out of memory. */
const char **arch_options(int count, const char *const *options, int newest, int *exchanged);
void arch_options_free(const char **options);

#endif
