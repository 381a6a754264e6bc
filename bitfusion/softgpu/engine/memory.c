/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of single lanes: which window they lie in, whether they are in bounds and aligned.
 */
#include <stdio.h>

#include "internal.h"

pthread_mutex_t sg_wide_lock = PTHREAD_MUTEX_INITIALIZER;

static char *in_space(struct sg_warp *w, struct sg_range *range, uint64_t address, uint64_t bytes)
{
	struct sg_range found;

	if (address - range->base < range->size && range->size - (address - range->base) >= bytes)
		return (char *)(uintptr_t)address;
	if (!sg_space_lookup(w->block->run->launch->context->space, address, &found.base, &found.size))
		return NULL;
	if (found.size - (address - found.base) < bytes)
		return NULL;
	*range = found;
	return (char *)(uintptr_t)address;
}

bool sg_range_find(struct sg_warp *w, const struct sg_op *i, uint64_t address)
{
	return in_space(w, sg_range_of(w, i), address, 1);
}

static char *in_window(char *memory, uint64_t size, uint64_t offset, uint64_t bytes)
{
	return offset <= size && size - offset >= bytes ? memory + offset : NULL;
}

/* Shared memory of any block of the cluster. */
static char *in_shared(struct sg_warp *w, uint64_t address, uint64_t bytes)
{
	const struct sg_block *block = w->block;
	const uint64_t tag = address >> SG_TAG_SHIFT;

	if (tag) {
		if (tag > block->cluster->size)
			return NULL;
		block = block->cluster->blocks[tag - 1];
	}
	return in_window(block->shared, block->shared_size, address & ~(uint64_t)SG_TAG_MASK, bytes);
}

struct sg_block *sg_shared_owner(const struct sg_block *block, const void *host)
{
	const struct sg_cluster *cluster = block->cluster;

	for (uint32_t k = 0; k < cluster->size; k++)
		if ((uintptr_t)host - (uintptr_t)cluster->blocks[k]->shared < cluster->blocks[k]->shared_size)
			return cluster->blocks[k];
	return NULL;
}

static char *host_in(struct sg_warp *w, struct sg_range *range, unsigned space, uint32_t lane, uint64_t address,
		     uint64_t bytes)
{
	const struct sg_run *run = w->block->run;

	switch (space) {
	case SG_GLOBAL: return in_space(w, range, address, bytes);
	case SG_SHARED: return in_shared(w, address, bytes);
	case SG_LOCAL: return in_window(w->local + (uint64_t)lane * w->local_size, w->local_size, address, bytes);
	case SG_FRAME:
		return in_window(w->local + (uint64_t)lane * w->local_size, w->local_size,
				 w->frame->local_base + address, bytes);
	case SG_PARAM: return in_window(run->parameters, run->launch->kernel->parameters_size, address, bytes);
	}
	if (!(address >> 56))
		return in_space(w, range, address, bytes);
	switch (address & 0xffull << 56) {
	case SG_SHARED_WINDOW: return host_in(w, range, SG_SHARED, lane, address - SG_SHARED_WINDOW, bytes);
	case SG_LOCAL_WINDOW: return host_in(w, range, SG_LOCAL, lane, address - SG_LOCAL_WINDOW, bytes);
	case SG_PARAM_WINDOW: return host_in(w, range, SG_PARAM, lane, address - SG_PARAM_WINDOW, bytes);
	}
	return NULL;
}

char *sg_host(struct sg_warp *w, uint32_t lane, uint64_t address, uint64_t bytes)
{
	return host_in(w, w->block->ranges, SG_GENERIC, lane, address, bytes);
}

char *sg_host_span(struct sg_warp *w, uint32_t lane, uint64_t address, uint64_t *bytes)
{
	const uint64_t offset = address & ~(0xffull << 56);
	char *host = sg_host(w, lane, address, 1);

	if (!host)
		return NULL;
	switch (address & 0xffull << 56) {
	case SG_SHARED_WINDOW: *bytes = w->block->shared_size - (offset & ~(uint64_t)SG_TAG_MASK); break;
	case SG_LOCAL_WINDOW: *bytes = w->local_size - offset; break;
	case SG_PARAM_WINDOW: *bytes = w->block->run->launch->kernel->parameters_size - offset; break;
	default: *bytes = w->block->ranges[0].size - (address - w->block->ranges[0].base);
	}
	return host;
}

static const char *const space_names[SG_SPACES] = { "", "global ", "shared ", "local ", "parameter ", "local " };

static uint64_t address_of(const struct sg_warp *w, const struct sg_op *i, uint32_t lane)
{
	const uint64_t offset = (uint64_t)(int64_t)(int32_t)i->x;
	const void *a;

	if (SG_SPACE(i->flags) == SG_FRAME)
		return i->x;
	a = sg_at(w, i->a);
	return (i->flags & SG_WIDE ? ((const uint64_t *)a)[lane] : ((const uint32_t *)a)[lane]) + offset;
}

char *sg_resolve_line(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t offset, uint32_t bytes,
		      uint32_t align)
{
	const unsigned space = SG_SPACE(i->flags);
	const uint64_t address = address_of(w, i, lane) + offset;
	char *at;

	if (address & (align - 1)) {
		sg_fault(w, i, 1u << lane, SG_MISALIGNED_ADDRESS, "%saddress 0x%llx is not aligned to %u bytes",
			 space_names[space], (unsigned long long)address, align);
		return NULL;
	}
	at = host_in(w, sg_range_of(w, i), space, lane, address, bytes);
	if (!at)
		sg_fault(w, i, 1u << lane, SG_ILLEGAL_ADDRESS, "no %smemory at address 0x%llx (%u bytes)",
			 space_names[space], (unsigned long long)address, bytes);
	return at;
}

bool sg_resolve_lanes(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, uint64_t *host)
{
	SG_EACH(lane, m)
	{
		char *at = sg_resolve_line(w, i, lane, 0, bytes, bytes);

		if (!at)
			return false;
		host[lane] = (uint64_t)(uintptr_t)at;
	}
	return true;
}
