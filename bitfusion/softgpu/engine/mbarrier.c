/* SPDX-License-Identifier: Apache-2.0
 *
 * Asynchronous barriers: a word of shared memory that counts arrivals and bytes. A phase is complete when no arrival is
 * pending and as many bytes have come as were expected; the next one begins at once. All blocks of a cluster run on
 * one thread at a time, so the word needs no atomics.
 *
 * bits 0-19 pending arrivals, 20-39 arrivals that each phase expects, 40-60 bytes that are still to come (signed), 61
 * the phase's parity, 63 set: it was initialised
 */
#include "internal.h"

#define COUNT_BITS 20
#define MOST ((1 << COUNT_BITS) - 1)

struct barrier {
	int32_t pending, expected, bytes;
	uint64_t phase;
};

static struct barrier unpack(uint64_t word)
{
	return (struct barrier){ .pending = (int32_t)(word & MOST),
				 .expected = (int32_t)(word >> COUNT_BITS & MOST),
				 .bytes = (int32_t)((int64_t)(word << 3) >> 43),
				 .phase = word >> 61 & 1 };
}

static uint64_t pack(struct barrier b)
{
	return (uint64_t)b.pending | (uint64_t)b.expected << COUNT_BITS | ((uint64_t)b.bytes & 0x1fffff) << 40 |
	       b.phase << 61 | 1ull << 63;
}

static bool fail(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const char *why)
{
	sg_fault(w, i, 1u << lane, SG_LAUNCH_FAILED, "%s", why);
	return false;
}

static bool complete(struct barrier *b)
{
	if (b->pending || b->bytes)
		return false;
	b->phase ^= 1;
	b->pending = b->expected;
	return true;
}

static bool open_word(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const uint64_t *word, struct barrier *b)
{
	if (!sg_shared_owner(w->block, word))
		return fail(w, i, lane, "an mbarrier lies in shared memory");
	if (!(*word >> 63))
		return fail(w, i, lane, "the mbarrier is not initialised");
	*b = unpack(*word);
	return true;
}

bool sg_mbarrier_init(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, uint32_t count)
{
	if (!sg_shared_owner(w->block, word))
		return fail(w, i, lane, "an mbarrier lies in shared memory");
	if (!count || count > MOST)
		return fail(w, i, lane, "an mbarrier expects 1 to 1048575 arrivals");
	*word = pack((struct barrier){ .pending = (int32_t)count, .expected = (int32_t)count });
	return true;
}

bool sg_mbarrier_invalidate(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word)
{
	struct barrier b;

	if (!open_word(w, i, lane, word, &b))
		return false;
	*word = 0;
	return true;
}

bool sg_mbarrier_bytes(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, int64_t more)
{
	struct barrier b;

	if (!open_word(w, i, lane, word, &b))
		return false;
	if (b.bytes + more > MOST || b.bytes + more < -MOST)
		return fail(w, i, lane, "the mbarrier counts at most 1048575 bytes");
	b.bytes += (int32_t)more;
	complete(&b);
	*word = pack(b);
	return true;
}

bool sg_mbarrier_arrive(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, uint32_t count,
			unsigned how)
{
	const int64_t bytes = how & SG_ARRIVE_BYTES ? count : 0;
	struct barrier b;

	if (!open_word(w, i, lane, word, &b))
		return false;
	if (how & SG_ARRIVE_BYTES)
		count = 1;
	if (!count || count > (uint32_t)b.pending || ((how & SG_ARRIVE_DROP) && count > (uint32_t)b.expected))
		return fail(w, i, lane, "more arrivals at the mbarrier than it expects");
	if (b.bytes + bytes > MOST)
		return fail(w, i, lane, "the mbarrier counts at most 1048575 bytes");
	b.bytes += (int32_t)bytes;
	b.pending -= (int32_t)count;
	if (how & SG_ARRIVE_DROP)
		b.expected -= (int32_t)count;
	if (complete(&b) && (how & SG_ARRIVE_NO_COMPLETE))
		return fail(w, i, lane, "an arrival with .noComplete completed the phase");
	*word = pack(b);
	return true;
}

bool sg_mbarrier_phase(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const uint64_t *word, uint32_t *phase)
{
	struct barrier b;

	if (!open_word(w, i, lane, word, &b))
		return false;
	*phase = (uint32_t)b.phase;
	return true;
}

uint32_t sg_mbarrier_state_phase(uint64_t state)
{
	return (uint32_t)unpack(state).phase;
}

uint32_t sg_mbarrier_state_pending(uint64_t state)
{
	return (uint32_t)unpack(state).pending;
}
