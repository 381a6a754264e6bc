/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk copies between global and shared memory. They are done when they are issued, which the memory model allows:
 * their groups are always complete, and their barriers count the bytes at once.
 */
#include "bulk.h"

static bool fail(struct sg_warp *w, const struct sg_op *i, uint32_t lane, int error, const char *why)
{
	sg_fault(w, i, 1u << lane, error, "%s", why);
	return false;
}

/* Host address of one end of a copy. */
static char *end_of(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t address, uint64_t bytes,
		    bool shared)
{
	char *host;

	if (address % 16) {
		sg_fault(w, i, 1u << lane, SG_MISALIGNED_ADDRESS, "address 0x%llx of a bulk copy is not aligned to 16",
			 (unsigned long long)address);
		return NULL;
	}
	host = sg_host(w, lane, address, bytes ? bytes : 1);
	if (!host || shared != (sg_shared_owner(w->block, host) != NULL)) {
		sg_fault(w, i, 1u << lane, SG_ILLEGAL_ADDRESS, "no %s memory at address 0x%llx (%llu bytes)",
			 shared ? "shared" : "global", (unsigned long long)address, (unsigned long long)bytes);
		return NULL;
	}
	return host;
}

bool sg_bulk_complete(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t address, uint64_t bytes)
{
	uint64_t *word = (uint64_t *)(void *)sg_host(w, lane, address, 8);

	if (!word || address % 8)
		return fail(w, i, lane, word ? SG_MISALIGNED_ADDRESS : SG_ILLEGAL_ADDRESS,
			    "no mbarrier at the address that is to be told");
	return sg_mbarrier_bytes(w, i, lane, word, -(int64_t)bytes);
}

bool sg_bulk_targets(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const char *to, uint64_t barrier,
		     const uint64_t *mask, struct sg_targets *targets)
{
	struct sg_block *owner = sg_shared_owner(w->block, to);
	char *word = sg_host(w, lane, barrier, 8);
	const struct sg_cluster *cluster = w->block->cluster;

	targets->count = 0;
	if (!word || barrier % 8 || !sg_shared_owner(w->block, word))
		return fail(w, i, lane, SG_ILLEGAL_ADDRESS, "no mbarrier at the address that is to be told");
	if (!mask) {
		if (sg_shared_owner(w->block, word) != owner)
			return fail(w, i, lane, SG_ILLEGAL_ADDRESS, "the mbarrier is not in the block that is written");
		targets->to[targets->count] = (char *)(uintptr_t)to;
		targets->word[targets->count++] = (uint64_t *)(void *)word;
		return true;
	}
	if (*mask >> cluster->size)
		return fail(w, i, lane, SG_ILLEGAL_ADDRESS, "a multicast to blocks that the cluster does not have");
	for (uint32_t rank = 0; rank < cluster->size; rank++) {
		if (!(*mask >> rank & 1))
			continue;
		targets->to[targets->count] = cluster->blocks[rank]->shared + (to - owner->shared);
		targets->word[targets->count++] =
			(uint64_t *)(void *)(cluster->blocks[rank]->shared +
					     (word - sg_shared_owner(w->block, word)->shared));
	}
	return true;
}

/* A mask says which of each 16 bytes are copied. */
static void copy_masked(char *to, const char *from, uint64_t bytes, uint64_t mask)
{
	for (uint64_t k = 0; k < bytes; k++)
		if (mask >> k % 16 & 1)
			to[k] = from[k];
}

bool sg_bulk_copy(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const struct sg_bulk *bulk)
{
	struct sg_targets targets = { .count = 1 };
	char *to, *from;

	if (bulk->bytes % 16)
		return fail(w, i, lane, SG_MISALIGNED_ADDRESS, "the size of a bulk copy is not a multiple of 16");
	to = end_of(w, i, lane, bulk->to, bulk->bytes, bulk->to_shared);
	from = to ? end_of(w, i, lane, bulk->from, bulk->bytes, bulk->from_shared) : NULL;
	if (!from)
		return false;
	targets.to[0] = to;
	if (bulk->barrier && !sg_bulk_targets(w, i, lane, to, *bulk->barrier, bulk->mask, &targets))
		return false;
	for (uint32_t k = 0; k < targets.count; k++) {
		if (bulk->reduction)
			bulk->reduction(targets.to[k], from, bulk->bytes / bulk->element);
		else if (bulk->byte_mask)
			copy_masked(targets.to[k], from, bulk->bytes, *bulk->byte_mask);
		else
			memmove(targets.to[k], from, bulk->bytes);
		if (bulk->barrier && !sg_mbarrier_bytes(w, i, lane, targets.word[k], -(int64_t)bulk->bytes))
			return false;
	}
	return true;
}

bool sg_bulk_cancel(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t answer, uint64_t barrier)
{
	uint32_t words[4] = { 0 };
	char *to = end_of(w, i, lane, answer, sizeof(words), true);

	if (!to || !sg_bulk_complete(w, i, lane, barrier, sizeof(words)))
		return false;
	words[0] = sg_run_withdraw(w->block->run, &words[1]);
	memcpy(to, words, sizeof(words));
	return true;
}
