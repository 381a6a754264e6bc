/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver keeps of what was freed: a pool's, up to its release threshold or until a call that waits, and that of
 * graphs until they are trimmed. The driver tells how much that is. It counts against the slice like what is allocated,
 * even beyond it, until whoever is short of memory has it given back.
 */
#include "ledger.h"
#include "reserve.h"

#include <stdlib.h>

struct bf_reserve_pool {
	struct bf_reserve_pool *next;
	uint64_t number; /* the client's */
	CUmemoryPool pool;
	uint32_t device;
};

void bf_reserve_init(struct bf_session *session)
{
	pthread_mutex_init(&session->reserve.lock, NULL);
	pthread_mutex_init(&session->reserve.ending, NULL);
}

/* ------------------------------------------------------------------ with the lock held */

static uint64_t idle_of_pool(struct bf_session *session, CUmemoryPool pool)
{
	cuuint64_t reserved = 0, used = 0;
	__typeof__(&cuMemPoolGetAttribute) ask = session->driver->cuMemPoolGetAttribute;
	if (!ask || ask(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS ||
	    ask(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) != CUDA_SUCCESS)
		return 0;
	return reserved > used ? reserved - used : 0;
}

static CUmemoryPool default_pool(struct bf_session *session, uint32_t device)
{
	CUmemoryPool pool = NULL;
	if (!session->driver->cuDeviceGetDefaultMemPool ||
	    session->driver->cuDeviceGetDefaultMemPool(&pool, session->ordinal[device]) != CUDA_SUCCESS)
		return NULL;
	return pool;
}

static uint64_t idle_of_pools(struct bf_session *session, uint32_t device)
{
	CUmemoryPool usual = default_pool(session, device);
	uint64_t idle = usual ? idle_of_pool(session, usual) : 0;
	for (struct bf_reserve_pool *own = session->reserve.pools; own; own = own->next)
		idle += own->device == device ? idle_of_pool(session, own->pool) : 0;
	return idle;
}

/* Beyond what counts as allocations: what a launch has mapped once stays so. */
static uint64_t idle_of_graphs(struct bf_session *session, uint32_t device)
{
	cuuint64_t reserved = 0;
	__typeof__(&cuDeviceGetGraphMemAttribute) ask = session->driver->cuDeviceGetGraphMemAttribute;
	if (!ask || ask(session->ordinal[device], CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS)
		return 0;
	uint64_t nodes = atomic_load(&session->reserve.nodes[device]);
	return reserved > nodes ? reserved - nodes : 0;
}

static void count(struct bf_session *session, uint32_t device, uint64_t *counted, uint64_t now)
{
	if (now > *counted)
		bf_ledger_take(session->ledger, session->options.slot, device, now - *counted);
	else if (now < *counted)
		bf_ledger_release(session->ledger, session->options.slot, device, *counted - now);
	atomic_fetch_add(&session->reserve.total, now - *counted);
	*counted = now;
}

/* ------------------------------------------------------------------ what counts */

void bf_reserve_update(struct bf_session *session)
{
	struct bf_reserve *reserve = &session->reserve;
	if (likely(!atomic_load(&reserve->devices) && !atomic_load(&reserve->graphs)))
		return;
	pthread_mutex_lock(&reserve->lock);
	for (uint32_t device = 0; device < BF_MAX_DEVICES; device++) {
		/* what streams have yet to free is no longer in use, but counts as what it was allocated as (freed.c) */
		uint64_t freed = bf_freed_bytes(session, device);
		uint64_t idle = reserve->devices >> device & 1 ? idle_of_pools(session, device) : 0;
		count(session, device, &reserve->pooled[device], idle > freed ? idle - freed : 0);
		if (reserve->graphs >> device & 1)
			count(session, device, &reserve->graphed[device], idle_of_graphs(session, device));
	}
	pthread_mutex_unlock(&reserve->lock);
}

bool bf_reserve_exact(struct bf_session *session, uint32_t device)
{
	pthread_mutex_lock(&session->reserve.lock);
	uint64_t freed = bf_freed_bytes(session, device);
	bool exact = !freed || freed <= idle_of_pools(session, device);
	pthread_mutex_unlock(&session->reserve.lock);
	return exact;
}

/* To the allocation that is made next, which the driver may serve with it. */
static void lend(struct bf_session *session, uint32_t device)
{
	pthread_mutex_lock(&session->reserve.lock);
	atomic_fetch_or(&session->reserve.devices, (uint64_t)1 << device);
	count(session, device, &session->reserve.pooled[device], 0);
	pthread_mutex_unlock(&session->reserve.lock);
}

static void trim(struct bf_session *session, CUmemoryPool pool, bool all)
{
	cuuint64_t least = 0;
	if (!all && session->driver->cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &least))
		return;
	session->driver->cuMemPoolTrimTo(pool, (size_t)least);
}

/* A driver may wait for what runs, so nobody else must have to wait for the lock meanwhile; and a host function may wait
 * for the very thread that is short of memory. */
bool bf_reserve_trim(struct bf_session *session, bool all)
{
	struct bf_reserve *reserve = &session->reserve;
	bf_reserve_update(session);
	uint64_t before = atomic_load(&reserve->total);
	if (!before || !session->driver->cuMemPoolTrimTo || bf_host_function_pending(session))
		return false;
	pthread_mutex_lock(&reserve->ending);
	for (uint32_t device = 0; device < BF_MAX_DEVICES; device++) {
		CUmemoryPool usual = reserve->devices >> device & 1 ? default_pool(session, device) : NULL;
		if (usual)
			trim(session, usual, all);
		if (all && reserve->graphs >> device & 1 && session->driver->cuDeviceGraphMemTrim)
			session->driver->cuDeviceGraphMemTrim(session->ordinal[device]);
	}
	pthread_mutex_lock(&reserve->lock);
	struct bf_reserve_pool *own = reserve->pools;
	pthread_mutex_unlock(&reserve->lock);
	for (; own; own = own->next) /* what comes meanwhile is before it, and nothing goes */
		trim(session, own->pool, all);
	pthread_mutex_unlock(&reserve->ending);
	bf_reserve_update(session);
	return atomic_load(&reserve->total) < before;
}

/* ------------------------------------------------------------------ the rows */

/* Counted as kept by the driver, for the time that it is: once more waiting for what was never had would not end. */
static void undo(struct bf_session *session, uint64_t address, CUstream stream)
{
	struct bf_allocation gone;
	session->driver->cuMemFreeAsync(address, stream);
	if (bf_memory_remove(session, address, &gone))
		bf_memory_refund(session, (int)gone.device, gone.size);
	bf_reserve_update(session);
}

/* A pool takes more than it is asked for, in steps of its own. */
CUresult bf_reserve_alloc(struct bf_session *session, struct bf_frame *frame, CUstream stream)
{
	uint64_t *place = (uint64_t *)(uintptr_t)frame->argument[0];
	int device;
	CUresult status = bf_context_device(session, &device);
	if (status != CUDA_SUCCESS || !bf_memory_limited(session, (uint32_t)device) || !session->driver->cuMemFreeAsync)
		return bf_row_charged(session, frame, frame->argument[1], place, 0);
	lend(session, (uint32_t)device);
	status = bf_row_charged(session, frame, frame->argument[1], place, 0);
	bf_reserve_update(session);
	if (status != CUDA_SUCCESS || !bf_memory_over(session, (uint32_t)device))
		return status;
	undo(session, *place, stream);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* (CUmemoryPool *pool, const CUmemPoolProps *properties) */
CUresult bf_reserve_create(struct bf_session *session, struct bf_frame *frame)
{
	const CUmemPoolProps *properties = (const CUmemPoolProps *)(uintptr_t)frame->argument[1];
	bool counts = properties && properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE && session->ledger;
	int device = counts ? bf_device_of(session, (uint64_t)properties->location.id) : -1;
	if (device < 0 || !frame->argument[0] || !bf_memory_limited(session, (uint32_t)device))
		return bf_invoke(frame);
	struct bf_reserve_pool *made = malloc(sizeof(*made));
	CUresult status = made ? bf_invoke(frame) : CUDA_ERROR_OUT_OF_MEMORY;
	if (status != CUDA_SUCCESS) {
		free(made);
		return status;
	}
	CUmemoryPool pool = *(CUmemoryPool *)(uintptr_t)frame->argument[0];
	pthread_mutex_lock(&session->reserve.lock);
	*made = (struct bf_reserve_pool){ session->reserve.pools, frame->given[0], pool, (uint32_t)device };
	session->reserve.pools = made;
	pthread_mutex_unlock(&session->reserve.lock);
	return CUDA_SUCCESS;
}

static struct bf_reserve_pool *leave(struct bf_reserve *reserve, uint64_t number)
{
	pthread_mutex_lock(&reserve->lock);
	struct bf_reserve_pool **link = &reserve->pools, *found;
	while (*link && (*link)->number != number)
		link = &(*link)->next;
	found = *link;
	if (found)
		*link = found->next;
	pthread_mutex_unlock(&reserve->lock);
	return found;
}

/* Nobody may ask for a pool that ends; what it keeps ends with it. */
CUresult bf_reserve_destroy(struct bf_session *session, struct bf_frame *frame)
{
	struct bf_reserve *reserve = &session->reserve;
	pthread_mutex_lock(&reserve->ending);
	struct bf_reserve_pool *gone = leave(reserve, frame->given[0]);
	CUresult status = bf_invoke(frame);
	if (status != CUDA_SUCCESS && gone) {
		pthread_mutex_lock(&reserve->lock);
		gone->next = reserve->pools;
		reserve->pools = gone;
		pthread_mutex_unlock(&reserve->lock);
		gone = NULL;
	}
	pthread_mutex_unlock(&reserve->ending);
	free(gone);
	bf_reserve_update(session);
	return status;
}

CUresult bf_reserve_node(struct bf_session *session, struct bf_frame *frame, uint64_t size, uint64_t *place)
{
	struct bf_allocation made;
	int device;
	CUresult status = bf_context_device(session, &device);
	if (status == CUDA_SUCCESS && bf_memory_limited(session, (uint32_t)device))
		atomic_fetch_or(&session->reserve.graphs, (uint64_t)1 << device);
	status = bf_row_charged(session, frame, size, place, 0);
	if (status != CUDA_SUCCESS || !bf_memory_remove(session, *place, &made))
		return status;
	made.graph = true;
	atomic_fetch_add(&session->reserve.nodes[made.device], made.size);
	bf_memory_add(session, &made);
	return status;
}

static bool is_any_over(struct bf_session *session)
{
	uint64_t graphs = atomic_load(&session->reserve.graphs);
	for (uint32_t device = 0; graphs; device++, graphs >>= 1)
		if (graphs & 1 && bf_memory_over(session, device))
			return true;
	return false;
}

/* What the program has freed of a graph must be free before the graph allocates it again, or another one at its place. */
static void finish_frees(struct bf_session *session)
{
	if (likely(!atomic_load(&session->reaper.nodes)))
		return;
	bf_ahead_start(session);
	bf_reap_wait(session, BF_ANY_CONTEXT, 0);
}

/* A launch maps what its nodes allocate, and the driver tells only afterwards how much that is. */
CUresult bf_reserve_launch(struct bf_session *session, struct bf_frame *frame)
{
	finish_frees(session);
	if (likely(!atomic_load_explicit(&session->reserve.graphs, memory_order_acquire)))
		return bf_invoke(frame);
	bf_reserve_update(session);
	if (is_any_over(session))
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult status = bf_invoke(frame);
	bf_reserve_update(session);
	return status;
}

/* What else may give memory back, or has a pool keep less of it. */
CUresult bf_reserve_other(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	bf_reserve_update(session);
	return status;
}

/* (CUgraph graph), (CUgraphExec exec) */
CUresult bf_reserve_end_graph(struct bf_session *session, struct bf_frame *frame)
{
	finish_frees(session);
	return bf_reserve_other(session, frame);
}
