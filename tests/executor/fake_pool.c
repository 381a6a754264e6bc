/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake driver's one pool, which keeps what was freed: until the next call that waits, and then as much of it as
 * FAKE_POOL_KEEPS says. It takes memory in steps of FAKE_POOL_STEP bytes.
 */
#include "fake_driver.h"

#include <stdlib.h>

static size_t used, held, kept; /* held: what allocations take, also those that a stream is yet to free */

static size_t setting(const char *name, size_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 0) : otherwise;
}

static size_t reserved(void)
{
	size_t step = setting("FAKE_POOL_STEP", 1);
	return (held + kept + step - 1) / step * step;
}

static void give(size_t size)
{
	kept -= size;
	memory_used -= size;
}

void pool_lends(size_t size)
{
	give(size < kept ? size : kept);
}

void pool_takes(size_t size)
{
	used += size;
	held += size;
}

void pool_frees(size_t size)
{
	used -= size;
}

void pool_keeps(size_t size)
{
	held -= size;
	kept += size;
}

static void shrink(size_t most)
{
	size_t more = held + kept > most ? held + kept - most : 0;
	give(more < kept ? more : kept);
}

void pool_shrinks(void)
{
	shrink(setting("FAKE_POOL_KEEPS", 0));
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	stream_of(stream); /* looks at it */
	return take(address, size, true);
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
	ENTER();
	NEED_DEVICE(device);
	static struct object only = { 0x9001 };
	*pool = (CUmemoryPool)&only;
	return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
	ENTER();
	CUresult status = CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	if (what == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
		*(cuuint64_t *)value = reserved();
	else if (what == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
		*(cuuint64_t *)value = used;
	else if (what == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
		*(cuuint64_t *)value = setting("FAKE_POOL_KEEPS", 0);
	else
		status = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&lock);
	return status;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t least)
{
	ENTER();
	pthread_mutex_lock(&lock);
	shrink(least);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}
