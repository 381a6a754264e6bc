/* SPDX-License-Identifier: Apache-2.0
 *
 * What pools take of the arena, and keep of it when it is freed: it counts as used, but the next allocation may have it.
 */
#include "memory.h"

void pool_takes(struct pool *pool, uint64_t span)
{
	pool->held += span;
	if (pool->held + pool->kept > pool->reserved_high)
		pool->reserved_high = pool->held + pool->kept;
}

void pool_keeps(struct pool *pool, uint64_t span)
{
	pool->held -= span;
	if (pool->ended)
		return;
	pool->kept += span;
	pool->device->arena->used += span;
}

void pool_gives(struct pool *pool, uint64_t most)
{
	uint64_t given = most < pool->kept ? most : pool->kept;
	pool->kept -= given;
	if (given)
		pool->device->arena->used -= given;
}

void pool_shrinks(struct pool *pool, uint64_t most)
{
	uint64_t reserved = pool->held + pool->kept;
	if (reserved > most)
		pool_gives(pool, reserved - most);
}

/* What graphs keep they keep until it is trimmed. */
void pools_synchronized(struct device *device)
{
	pthread_mutex_lock(&memory_lock);
	for (struct pool *pool = device->pools; pool; pool = pool->next)
		if (pool != device->graph_pool)
			pool_shrinks(pool, pool->release_threshold);
	pthread_mutex_unlock(&memory_lock);
}
