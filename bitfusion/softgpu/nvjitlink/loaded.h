/* SPDX-License-Identifier: Apache-2.0
 *
 * NVIDIA's libraries that this process has loaded already.
 */
#ifndef NVJITLINK_LOADED_H
#define NVJITLINK_LOADED_H

/* The library of a name that begins so, in which `function` is of `version`, NULL for any; NULL when there is none. */
void *loaded_library(const char *begin, const char *function, const char *version);

#endif
