/* SPDX-License-Identifier: Apache-2.0
 *
 * dlsym is ours where this library is loaded: see dlsym.c.
 */
#ifndef NVJITLINK_DLSYM_H
#define NVJITLINK_DLSYM_H

typedef void *(*dlsym_function)(void *handle, const char *name);

dlsym_function real_dlsym(void);

/* What a library's function is exchanged for; NULL when it is left alone. `find` is the real dlsym. */
void *nvrtc_steer(void *handle, const char *name, dlsym_function find);
void *nvvm_steer(void *handle, const char *name, dlsym_function find);

#endif
