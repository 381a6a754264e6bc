/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocations, and what they count for against the session's slice of each device.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ the slice */

CUresult bf_memory_reserve(struct bf_session *session, uint32_t device, uint64_t size)
{
	for (bool looked = false;; looked = true) {
		if (bf_ledger_reserve(session->ledger, session->options.slot, device, size) == 0)
			return CUDA_SUCCESS;
		if (looked || (!bf_freed_pending(session) && !bf_reserve_counted(session)))
			return CUDA_ERROR_OUT_OF_MEMORY;
		bf_freed_look(session);
	}
}

CUresult bf_memory_charge(struct bf_session *session, uint64_t size, int *device)
{
	CUresult status = bf_context_device(session, device);
	if (!session->ledger || status != CUDA_SUCCESS)
		return status; /* nothing is taken that cannot be counted */
	return bf_memory_reserve(session, (uint32_t)*device, size);
}

bool bf_memory_coming(struct bf_session *session)
{
	return bf_reap_pending(session) || bf_freed_pending(session) || bf_reserve_counted(session);
}

bool bf_memory_wait(struct bf_session *session, struct bf_tries *tries)
{
	bool reaps = bf_reap_pending(session);
	bf_reap_wait(session, BF_ANY_CONTEXT, 0);
	bf_freed_look(session);
	unsigned settled = atomic_load(&session->freed.settled);
	bool trim = !tries->trimmed || tries->trimmed_at != settled;
	tries->trimmed = true;
	tries->trimmed_at = settled;
	if (reaps || (trim && bf_reserve_trim(session, true)))
		return true;
	return bf_freed_wait(session, tries->settled);
}

void bf_memory_refund(struct bf_session *session, int device, uint64_t size)
{
	if (session->ledger && device >= 0)
		bf_ledger_release(session->ledger, session->options.slot, (uint32_t)device, size);
}

void bf_memory_forget(struct bf_session *session, const struct bf_allocation *gone)
{
	bf_memory_refund(session, (int)gone->device, gone->size);
	if (gone->graph)
		atomic_fetch_sub(&session->reserve.nodes[gone->device], gone->size);
}

static uint64_t limit_of(struct bf_session *session, uint32_t device)
{
	uint64_t limits[BF_MAX_DEVICES] = { 0 };
	if (session->ledger)
		bf_ledger_limits(session->ledger, limits, BF_MAX_DEVICES);
	return limits[device];
}

bool bf_memory_limited(struct bf_session *session, uint32_t device)
{
	return limit_of(session, device) != 0;
}

static uint64_t used_on(struct bf_session *session, uint32_t device)
{
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	bf_ledger_used(session->ledger, -1, used, BF_MAX_DEVICES);
	return used[device];
}

bool bf_memory_over(struct bf_session *session, uint32_t device)
{
	uint64_t limit = limit_of(session, device);
	return limit && used_on(session, device) > limit;
}

uint64_t bf_memory_total(struct bf_session *session, uint32_t device, uint64_t total)
{
	uint64_t limit = limit_of(session, device);
	return limit && limit < total ? limit : total;
}

CUresult bf_memory_info(struct bf_session *session, uint64_t info[2])
{
	size_t free = 0, total = 0;
	int device;
	bf_freed_look(session);
	CUresult status = session->driver->cuMemGetInfo_v2(&free, &total);
	if (status == CUDA_SUCCESS)
		status = bf_context_device(session, &device);
	if (status != CUDA_SUCCESS)
		return status;
	info[0] = free;
	info[1] = total;
	uint64_t freed = bf_reap_pending(session) ? bf_reap_memory(session, (uint32_t)device, 0) : 0;
	info[0] = freed < info[1] - info[0] ? info[0] + freed : info[1];
	uint64_t limit = limit_of(session, (uint32_t)device);
	if (!limit)
		return CUDA_SUCCESS;
	uint64_t used = used_on(session, (uint32_t)device);
	used -= freed < used ? freed : used;
	uint64_t left = used < limit ? limit - used : 0;
	info[0] = left < info[0] ? left : info[0];
	info[1] = limit < info[1] ? limit : info[1];
	return CUDA_SUCCESS;
}

struct info_job {
	struct bf_job job;
	struct bf_command command;
};

enum { SETTLE_MS = 500 };

static void run_info(struct bf_session *session, struct bf_job *job)
{
	struct info_job *work = (struct info_job *)job;
	uint64_t info[2] = { 0, 0 };
	CUresult status = bf_context_ensure(session, job->context);
	if (status == CUDA_SUCCESS) {
		bf_reap_memory(session, 0, SETTLE_MS);
		status = bf_memory_info(session, info);
	}
	bf_done(session, &work->command, status, info, sizeof(info));
	free(work);
}

/* While frees are under way neither the driver's numbers nor a guess is exact, and mostly they end soon. */
void bf_op_memory_info(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct info_job *work = bf_reap_pending(session) ? calloc(1, sizeof(*work)) : NULL;
	if (work) {
		*work = (struct info_job){ { .run = run_info, .context = command->context }, *command };
		if (bf_submit(session, &work->job))
			return;
		free(work);
	}
	uint64_t info[2] = { 0, 0 };
	CUresult status = bf_memory_info(session, info);
	bf_done(session, command, status, info, sizeof(info));
}

/* ------------------------------------------------------------------ what lies where: open addressing by address */

static size_t home(uint64_t address, size_t size)
{
	return (size_t)((address * 0x9e3779b97f4a7c15ull) >> 32) & (size - 1);
}

static void insert(struct bf_allocation *table, size_t size, struct bf_allocation entry)
{
	size_t i = home(entry.address, size);
	while (table[i].address)
		i = (i + 1) & (size - 1);
	table[i] = entry;
}

static bool grow(struct bf_session *session)
{
	size_t size = session->allocation_size ? 2 * session->allocation_size : 256;
	struct bf_allocation *table = calloc(size, sizeof(*table));
	if (!table)
		return false;
	for (size_t i = 0; i < session->allocation_size; i++) {
		if (session->allocation[i].address)
			insert(table, size, session->allocation[i]);
	}
	free(session->allocation);
	session->allocation = table;
	session->allocation_size = size;
	return true;
}

static void close_gap(struct bf_session *session, size_t gap)
{
	struct bf_allocation *table = session->allocation;
	size_t mask = session->allocation_size - 1;
	for (size_t i = (gap + 1) & mask; table[i].address; i = (i + 1) & mask) {
		size_t wanted = home(table[i].address, session->allocation_size);
		if (((i - wanted) & mask) < ((i - gap) & mask))
			continue;
		table[gap] = table[i];
		gap = i;
	}
	table[gap].address = 0;
	session->allocation_used--;
}

/* allocation_size when it is not there. With the lock held. */
static size_t find(const struct bf_session *session, uint64_t address)
{
	size_t size = session->allocation_size;
	for (size_t i = size ? home(address, size) : 0; address && size && session->allocation[i].address;
	     i = (i + 1) & (size - 1)) {
		if (session->allocation[i].address == address)
			return i;
	}
	return size;
}

/* What a graph allocated ends with the graph, which nobody says here: the driver gives the address again. */
static void drop_stale(struct bf_session *session, uint64_t address)
{
	size_t i = find(session, address);
	if (i >= session->allocation_size)
		return;
	bf_memory_forget(session, &session->allocation[i]);
	close_gap(session, i);
}

bool bf_memory_add(struct bf_session *session, const struct bf_allocation *allocation)
{
	pthread_mutex_lock(&session->memory_lock);
	drop_stale(session, allocation->address);
	bool room = 2 * session->allocation_used < session->allocation_size || grow(session);
	if (room && allocation->address) {
		insert(session->allocation, session->allocation_size, *allocation);
		session->allocation_used++;
	}
	pthread_mutex_unlock(&session->memory_lock);
	return room;
}

bool bf_memory_remove(struct bf_session *session, uint64_t address, struct bf_allocation *allocation)
{
	pthread_mutex_lock(&session->memory_lock);
	size_t i = find(session, address);
	bool found = i < session->allocation_size;
	if (found) {
		*allocation = session->allocation[i];
		close_gap(session, i);
	}
	pthread_mutex_unlock(&session->memory_lock);
	return found;
}

void bf_memory_end_context(struct bf_session *session, uint32_t context)
{
	pthread_mutex_lock(&session->memory_lock);
	for (size_t i = 0; i < session->allocation_size;) {
		struct bf_allocation *allocation = &session->allocation[i];
		if (!allocation->address || allocation->context != context) {
			i++;
			continue;
		}
		bf_memory_forget(session, allocation);
		close_gap(session, i); /* another one may lie here now */
	}
	pthread_mutex_unlock(&session->memory_lock);
	bf_limits_end_context(session, context);
}

bool bf_memory_find(struct bf_session *session, uint64_t address, struct bf_allocation *allocation)
{
	pthread_mutex_lock(&session->memory_lock);
	size_t i = find(session, address);
	bool found = i < session->allocation_size;
	if (found)
		*allocation = session->allocation[i];
	pthread_mutex_unlock(&session->memory_lock);
	return found;
}

/* ------------------------------------------------------------------ the operations */

static CUresult allocate(struct bf_session *session, const struct bf_alloc *alloc, uint64_t answer[2])
{
	CUdeviceptr address = 0;
	size_t pitch = 0;
	uint64_t size = alloc->size;
	CUresult status;
	if (alloc->height) {
		/* the driver chooses the pitch, so charge for it once it is known */
		status = session->driver->cuMemAllocPitch_v2(&address, &pitch, alloc->size, alloc->height,
							     alloc->element_size);
		if (status != CUDA_SUCCESS)
			return status;
		if (__builtin_mul_overflow(pitch, alloc->height, &size)) {
			session->driver->cuMemFree_v2(address);
			return CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	int device;
	status = bf_memory_charge(session, size, &device);
	bool charged = status == CUDA_SUCCESS;
	if (charged && !alloc->height)
		status = session->driver->cuMemAlloc_v2(&address, size);
	struct bf_allocation made = { address, size, (uint32_t)device, bf_context_index(), false };
	if (status == CUDA_SUCCESS && !bf_memory_add(session, &made))
		status = CUDA_ERROR_OUT_OF_MEMORY;
	if (status != CUDA_SUCCESS) {
		if (charged)
			bf_memory_refund(session, device, size);
		if (address)
			session->driver->cuMemFree_v2(address);
		return status;
	}
	answer[0] = address;
	answer[1] = pitch;
	return CUDA_SUCCESS;
}

/* Addresses that the client cannot use stay allocated until another one is found, but no longer count. */
static bool take_rejected(struct bf_session *session, const uint64_t *rejected, uint32_t count)
{
	struct bf_allocation allocation;
	for (uint32_t i = 0; i < count; i++) {
		if (!bf_memory_remove(session, rejected[i], &allocation))
			return false;
		bf_memory_refund(session, (int)allocation.device, allocation.size);
	}
	return true;
}

struct alloc_job {
	struct bf_job job;
	struct bf_command command;
	struct bf_alloc alloc;
};

static void run_alloc(struct bf_session *session, struct bf_job *job)
{
	struct alloc_job *work = (struct alloc_job *)job;
	uint64_t answer[2] = { 0, 0 };
	CUresult status = bf_context_ensure(session, job->context);
	bf_reap_wait(session, BF_ANY_CONTEXT, 0);
	struct bf_tries tries = { 0 };
	for (bool again = status == CUDA_SUCCESS; again;) {
		tries.settled = atomic_load(&session->freed.settled);
		status = allocate(session, &work->alloc, answer);
		again = status == CUDA_ERROR_OUT_OF_MEMORY && bf_memory_wait(session, &tries);
		if (again)
			status = bf_context_ensure(session, job->context);
		again &= status == CUDA_SUCCESS;
	}
	bf_done(session, &work->command, status, answer, sizeof(answer));
	free(work);
}

/* There may be room once what the program has freed is free. */
static bool try_later(struct bf_session *session, const struct bf_command *command, const struct bf_alloc *alloc)
{
	struct alloc_job *work = calloc(1, sizeof(*work));
	if (!work)
		return false;
	*work = (struct alloc_job){ { .run = run_alloc, .context = command->context }, *command, *alloc };
	if (bf_submit(session, &work->job))
		return true;
	free(work);
	return false;
}

void bf_op_alloc(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	const struct bf_alloc *alloc = (const struct bf_alloc *)body;
	const uint64_t *rejected = (const uint64_t *)(alloc + 1);
	if (size - sizeof(*alloc) < (uint64_t)alloc->rejected_count * 8 ||
	    !take_rejected(session, rejected, alloc->rejected_count)) {
		bf_violation(session, "bad list of rejected addresses");
		return;
	}
	uint64_t answer[2] = { 0, 0 };
	CUresult status = allocate(session, alloc, answer);
	for (uint32_t i = 0; i < alloc->rejected_count; i++)
		bf_reap_free(session, &(struct bf_command){ .call = BF_OP_FREE, .context = command->context },
			     rejected[i]);
	if (status == CUDA_ERROR_OUT_OF_MEMORY && bf_memory_coming(session)) {
		bf_freed_close(session);
		if (try_later(session, command, alloc))
			return;
	}
	bf_done(session, command, status, answer, sizeof(answer));
}

CUresult bf_memory_release(struct bf_session *session, uint64_t address)
{
	struct bf_allocation allocation;
	bool known = bf_memory_remove(session, address, &allocation);
	CUresult status = session->driver->cuMemFree_v2(address);
	if (!known)
		return status;
	if (status == CUDA_SUCCESS)
		bf_memory_forget(session, &allocation);
	else
		bf_memory_add(session, &allocation);
	return status;
}

void bf_op_free(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	bf_reap_free(session, command, ((const struct bf_free *)body)->address);
}
