/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's side of the cache of compiled images.
 */
#ifndef SOFTGPU_CACHE_H
#define SOFTGPU_CACHE_H

#include "driver.h"
#include "../ptx/cache.h"

struct sg_cache_key cache_key(const struct helper_item *items, unsigned count, int link);
/* *image is malloc'ed; 0: it is not there, or not to be trusted. */
int cache_find(const struct sg_cache_key *key, void **image, size_t *size);

/* The first code of a process decides what the next run of a program of this name expects. */
void cache_mark(int found);
int cache_was_enough(void); /* the last run found its first code here */

#endif
