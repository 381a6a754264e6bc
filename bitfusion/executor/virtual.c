/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory that is mapped at reserved addresses. It counts against the slice for as long as it exists: until
 * its handle has been released and the last mapping of it is gone.
 */
#include "virtual.h"

#include <stdlib.h>

struct bf_physical {
	struct bf_physical *next;
	uint64_t value; /* the driver's handle */
	uint64_t size;
	uint32_t device;
	bool held;         /* by its handle */
	unsigned mappings;
};

struct bf_mapping {
	struct bf_mapping *next;
	uint64_t base, size;
	struct bf_physical *physical;
};

void bf_virtual_init(struct bf_session *session)
{
	pthread_mutex_init(&session->virtual.lock, NULL);
}

/* ------------------------------------------------------------------ with the lock held */

static struct bf_physical *find_physical(struct bf_virtual *virtual, uint64_t value)
{
	struct bf_physical *physical = virtual->physical;
	while (physical && !(physical->held && physical->value == value))
		physical = physical->next;
	return physical;
}

static struct bf_mapping *find_mapping(struct bf_virtual *virtual, uint64_t address)
{
	struct bf_mapping *mapping = virtual->mappings;
	while (mapping && address - mapping->base >= mapping->size)
		mapping = mapping->next;
	return mapping;
}

static void settle(struct bf_session *session, struct bf_physical *physical)
{
	if (physical->held || physical->mappings)
		return;
	struct bf_physical **link = &session->virtual.physical;
	while (*link != physical)
		link = &(*link)->next;
	*link = physical->next;
	bf_memory_refund(session, (int)physical->device, physical->size);
	free(physical);
}

/* ------------------------------------------------------------------ the rows */

/* cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, …) */
CUresult bf_virtual_create(struct bf_session *session, struct bf_frame *frame)
{
	struct bf_virtual *virtual = &session->virtual;
	const CUmemAllocationProp *prop = (const CUmemAllocationProp *)(uintptr_t)frame->argument[2];
	uint64_t *value = (uint64_t *)(uintptr_t)frame->argument[0], size = frame->argument[1];
	bool counts = prop && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && session->ledger;
	int device = counts ? bf_device_of(session, (uint64_t)prop->location.id) : -1;
	if (device < 0 || !value)
		return bf_invoke(frame);
	struct bf_physical *physical = calloc(1, sizeof(*physical));
	if (!physical || bf_memory_reserve(session, (uint32_t)device, size) != CUDA_SUCCESS) {
		free(physical);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	CUresult status = bf_invoke(frame);
	if (status != CUDA_SUCCESS) {
		bf_memory_refund(session, device, size);
		free(physical);
		return status;
	}
	*physical = (struct bf_physical){ NULL, *value, size, (uint32_t)device, true, 0 };
	pthread_mutex_lock(&virtual->lock);
	physical->next = virtual->physical;
	virtual->physical = physical;
	pthread_mutex_unlock(&virtual->lock);
	return CUDA_SUCCESS;
}

CUresult bf_virtual_release(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	pthread_mutex_lock(&session->virtual.lock);
	struct bf_physical *physical = find_physical(&session->virtual, frame->argument[0]);
	if (status == CUDA_SUCCESS && physical) {
		physical->held = false;
		settle(session, physical);
	}
	pthread_mutex_unlock(&session->virtual.lock);
	return status;
}

/* cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address): the client asks only when it has
 * no handle any more, and the driver may give another one than before. */
CUresult bf_virtual_retain(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	pthread_mutex_lock(&session->virtual.lock);
	struct bf_mapping *mapping = find_mapping(&session->virtual, frame->argument[1]);
	if (status == CUDA_SUCCESS && mapping) {
		mapping->physical->held = true;
		mapping->physical->value = *(uint64_t *)(uintptr_t)frame->argument[0];
	}
	pthread_mutex_unlock(&session->virtual.lock);
	return status;
}

/* cuMemMap(CUdeviceptr base, size_t size, size_t offset, CUmemGenericAllocationHandle handle, …) */
CUresult bf_virtual_map(struct bf_session *session, struct bf_frame *frame)
{
	struct bf_virtual *virtual = &session->virtual;
	struct bf_mapping *mapping = session->ledger ? calloc(1, sizeof(*mapping)) : NULL;
	if (session->ledger && !mapping)
		return CUDA_ERROR_OUT_OF_MEMORY;
	/* the handle may be released, and the addresses unmapped, as soon as the call is over */
	pthread_mutex_lock(&virtual->lock);
	CUresult status = bf_invoke(frame);
	struct bf_physical *physical = find_physical(virtual, frame->argument[3]);
	if (status == CUDA_SUCCESS && physical && mapping) {
		*mapping = (struct bf_mapping){ virtual->mappings, frame->argument[0], frame->argument[1], physical };
		virtual->mappings = mapping;
		physical->mappings++;
		mapping = NULL;
	}
	pthread_mutex_unlock(&virtual->lock);
	free(mapping);
	return status;
}

/* It needs no context, but where there is one a driver waits for what its streams still do. */
CUresult bf_virtual_unmap(struct bf_session *session, struct bf_frame *frame)
{
	struct bf_virtual *virtual = &session->virtual;
	if (frame->command->context)
		bf_context_ensure(session, frame->command->context);
	CUresult status = bf_invoke(frame);
	uint64_t base = frame->argument[0], size = frame->argument[1];
	if (status != CUDA_SUCCESS)
		return status;
	pthread_mutex_lock(&virtual->lock);
	for (struct bf_mapping **link = &virtual->mappings, *mapping; (mapping = *link);) {
		if (mapping->base - base >= size) {
			link = &mapping->next;
			continue;
		}
		*link = mapping->next;
		mapping->physical->mappings--;
		settle(session, mapping->physical);
		free(mapping);
	}
	pthread_mutex_unlock(&virtual->lock);
	return CUDA_SUCCESS;
}
