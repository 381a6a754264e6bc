/* SPDX-License-Identifier: Apache-2.0
 *
 * Branches, calls, exits, and the lanes' own .sync instructions' way to wait.
 */
#include "run.h"

/* All lanes of the running group go to target: back in the loop at once, unless somebody else's turn has come or the
 * place where another group waits would be passed. */
static inline const struct sg_op *go(struct sg_warp *w, const struct sg_op *i, const struct sg_op *target)
{
	if (target > i) {
		if (target <= w->stop)
			return target;
	} else if (--w->budget >= 0) {
		if (w->group_count == 1 || (!w->sticky && --w->turn >= 0))
			return target;
		w->turn--;
	}
	w->groups[0].pc = target;
	return NULL;
}

SG_HANDLER(bra)
{
	const struct sg_op *target = i + (s32)i->x;

	if (m == w->mask)
		return go(w, i, target);
	w->groups[0].pc = i + 1;
	sg_warp_split(w, target, w->frame, m);
	if (target <= i)
		w->budget--, w->turn--;
	return NULL;
}

/* x: index into the image's targets: a count, then distances. a: the index register. */
SG_HANDLER(brx)
{
	const struct sg_image *image = w->block->run->image;
	const uint32_t *targets = image->targets + i->x;
	const u32 *a = sg_at(w, i->a);
	uint32_t left = m;

	w->budget--, w->turn--;
	w->groups[0].pc = i + 1;
	while (left) {
		const uint32_t index = a[sg_lowest(left)];
		uint32_t same = 0;

		SG_EACH(l, left) same |= (uint32_t)(a[l] == index) << l;
		if (index >= targets[0])
			return sg_fault(w, i, same, SG_INVALID_PC, "brx.idx has no target %u", index);
		const struct sg_op *target = i + (s32)targets[1 + index];

		if (same == w->groups[0].mask)
			w->groups[0].pc = target;
		else
			sg_warp_split(w, target, w->frame, same);
		left &= ~same;
	}
	return NULL;
}

static void copy_local(struct sg_warp *w, uint32_t m, uint32_t to, uint32_t from, uint32_t size)
{
	SG_EACH(l, m)
	{
		char *local = w->local + (u64)l * w->local_size;

		if (size == 8)
			memcpy(local + to, local + from, 8);
		else if (size == 4)
			memcpy(local + to, local + from, 4);
		else
			memmove(local + to, local + from, size);
	}
}

static const struct sg_call *call_of(const struct sg_warp *w, const struct sg_op *i)
{
	return w->block->run->image->calls + i->x;
}

static void copy_arguments(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t base)
{
	const struct sg_call *call = call_of(w, i);
	const struct sg_copy *copy = w->block->run->image->copies + call->first_argument;

	for (uint32_t k = 0; k < call->arguments; k++)
		copy_local(w, m, base + copy[k].to, w->frame->local_base + copy[k].from, copy[k].size);
}

static void copy_results(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t caller, uint32_t callee)
{
	const struct sg_call *call = call_of(w, i);
	const struct sg_copy *copy = w->block->run->image->copies + call->first_result;

	for (uint32_t k = 0; k < call->results; k++)
		copy_local(w, m, caller + copy[k].to, callee + copy[k].from, copy[k].size);
}

/* Where the memory of a call ends, alloca's for this lane included. */
static uint32_t top_of(const struct sg_frame *frame, uint32_t lane)
{
	return frame->grown ? frame->top[lane] : frame->local_base + (frame->function->local_bytes + 15) / 16 * 16;
}

/* Lanes that call together have a frame at one place. */
static uint32_t next_base(const struct sg_warp *w, uint32_t m)
{
	uint32_t base = top_of(w->frame, sg_lowest(m));

	if (w->frame->grown)
		SG_EACH(l, m) base = w->frame->top[l] > base ? w->frame->top[l] : base;
	return (base + 15) / 16 * 16 + 16;
}

static bool enter(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t index)
{
	const struct sg_function *function = &w->block->run->image->functions[index];
	const struct sg_call *call = call_of(w, i);
	const uint32_t base = next_base(w, m);
	const uint32_t need = function->local_bytes > call->bytes ? function->local_bytes : call->bytes;
	struct sg_frame *frame;

	if ((u64)base + need > w->local_size) {
		sg_fault(w, i, m, SG_HARDWARE_STACK_ERROR, "the stack of %u bytes a thread is used up", w->local_size);
		return false;
	}
	frame = sg_frame_new(w, function);
	if (!frame) {
		sg_fault(w, i, m, SG_LAUNCH_FAILED, "no memory for the registers of a call");
		return false;
	}
	frame->parent = w->frame;
	frame->call = i;
	frame->depth = w->frame->depth + 1;
	frame->local_base = base;
	frame->grown = 0;
	frame->mask = m;
	copy_arguments(w, i, m, base);
	const struct sg_op *first = w->block->run->image->ops + function->first;

	if (m == w->groups[0].mask) {
		w->groups[0].pc = first;
		w->groups[0].frame = frame;
	} else {
		sg_warp_split(w, first, frame, m);
	}
	return true;
}

/* d: function index, x: call index */
SG_HANDLER(call)
{
	w->budget--;
	w->groups[0].pc = sg_next(i);
	enter(w, i, m, i->d);
	return NULL;
}

SG_HANDLER(call_register)
{
	const struct sg_image *image = w->block->run->image;
	const u64 *a = sg_at(w, i->a);
	uint32_t left = m;

	w->budget--;
	w->groups[0].pc = sg_next(i);
	while (left) {
		const u64 target = a[sg_lowest(left)], index = (target - SG_CODE_WINDOW) / 16;
		uint32_t same = 0;

		SG_EACH(l, left) same |= (uint32_t)(a[l] == target) << l;
		if (target < SG_CODE_WINDOW || index >= image->function_count || !image->functions[index].count)
			return sg_fault(w, i, same, SG_INVALID_PC, "no function at address 0x%llx",
					(unsigned long long)target);
		if (!enter(w, i, same, (uint32_t)index))
			return NULL;
		left &= ~same;
	}
	return NULL;
}

/* d: enum sg_system; arguments lie where a callee would find them. */
SG_HANDLER(call_system)
{
	const uint32_t base = next_base(w, m);

	if ((u64)base + call_of(w, i)->bytes > w->local_size)
		return sg_fault(w, i, m, SG_HARDWARE_STACK_ERROR, "the stack of %u bytes a thread is used up",
				w->local_size);
	copy_arguments(w, i, m, base);
	if (!sg_system_call(w, i, m, base))
		return NULL;
	copy_results(w, i, m, w->frame->local_base, base);
	return sg_next(i);
}

SG_HANDLER(ret)
{
	struct sg_frame *frame = w->frame, *parent = frame->parent;
	const struct sg_op *back;

	w->groups[0].pc = i + 1;
	if (!parent) {
		sg_warp_leave(w, m);
		return NULL;
	}
	copy_results(w, frame->call, m, parent->local_base, frame->local_base);
	back = sg_next(frame->call);
	if (m == w->groups[0].mask) {
		w->groups[0].pc = back;
		w->groups[0].frame = parent;
	} else {
		sg_warp_split(w, back, parent, m);
	}
	frame->mask &= ~m;
	if (!frame->mask)
		sg_frame_drop(w, frame);
	return NULL;
}

SG_HANDLER(exit)
{
	w->groups[0].pc = i + 1;
	sg_warp_leave(w, m);
	return NULL;
}

SG_HANDLER(trap)
{
	return sg_fault(w, i, m, SG_LAUNCH_FAILED, "the kernel trapped");
}

SG_HANDLER(brkpt)
{
	return sg_fault(w, i, m, SG_LAUNCH_FAILED, "breakpoint");
}

SG_HANDLER(unknown)
{
	return sg_fault(w, i, m, SG_ILLEGAL_INSTRUCTION, "not carried out: %s", w->block->run->image->strings + i->x);
}

SG_HANDLER(nop)
{
	return i + 1;
}

/* Others run now: the warp gives up its slice, and the group its turn. */
SG_HANDLER(nanosleep)
{
	w->groups[0].pc = i + 1;
	w->budget = -1;
	w->turn = -1;
	return NULL;
}

SG_HANDLER(bar)
{
	return sg_barrier(w, i, m, SG_BARRIER_SYNC, 0);
}

SG_HANDLER(bar_arrive)
{
	return sg_barrier(w, i, m, SG_BARRIER_ARRIVE, 0);
}

/* c: the predicate that is reduced, negated by bit 0 */
#define REDUCE(name, statement) \
	SG_HANDLER(bar_red_##name) \
	{ \
		uint32_t any, all, count; \
\
		if (!sg_barrier_value(w, &any, &all, &count)) \
			return sg_barrier(w, i, m, SG_BARRIER_REDUCE, sg_truth(w, i->c)); \
		statement; \
		return i + 1; \
	}
REDUCE(and, sg_predicate_set(w, i->d, m, all ? SG_ALL : 0))
REDUCE(or, sg_predicate_set(w, i->d, m, any ? SG_ALL : 0))
REDUCE(popc, {
	u32 *d = sg_at(w, i->d);
	SG_EACH(l, m) d[l] = count;
})

SG_HANDLER(bar_warp)
{
	return sg_warp_gather(w, i, m, sg_at(w, i->a)) ? i + 1 : NULL;
}

/* d: address of b more bytes of local memory, a multiple of x; they are the call's until it returns. */
#define STACK(bits) \
	SG_HANDLER(alloca_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
		const u##bits *b = sg_at(w, i->b); \
		struct sg_frame *frame = w->frame; \
\
		for (uint32_t l = 0; l < SG_LANES && !frame->grown; l++) \
			frame->top[l] = top_of(frame, l); \
		frame->grown = 1; \
		SG_EACH(l, m) \
		{ \
			const uint32_t at = (frame->top[l] + i->x - 1) & ~(i->x - 1); \
\
			if (at > w->local_size || b[l] > w->local_size - at) \
				return sg_fault(w, i, 1u << l, SG_HARDWARE_STACK_ERROR, \
						"the stack of %u bytes a thread is used up", w->local_size); \
			frame->top[l] = at + (uint32_t)b[l]; \
			d[l] = at; \
		} \
		return i + 1; \
	} \
	SG_HANDLER(stacksave_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
\
		SG_EACH(l, m) d[l] = top_of(w->frame, l); \
		return i + 1; \
	} \
	SG_HANDLER(stackrestore_##bits) \
	{ \
		const u##bits *a = sg_at(w, i->a); \
		const uint32_t first = w->frame->local_base + (w->frame->function->local_bytes + 15) / 16 * 16; \
\
		SG_EACH(l, m) \
		{ \
			if (a[l] < first || a[l] > top_of(w->frame, l)) \
				return sg_fault(w, i, 1u << l, SG_HARDWARE_STACK_ERROR, \
						"stackrestore to a place that stacksave did not give"); \
			if (w->frame->grown) \
				w->frame->top[l] = (uint32_t)a[l]; \
		} \
		return i + 1; \
	}
STACK(32)
STACK(64)

/* Address, in the local window, of something in the function's own frame. */
#define FRAME_ADDRESS(bits) \
	SG_HANDLER(frame_address_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
		const u##bits value = w->frame->local_base + i->x; \
		SG_LOOP(const u##bits r = value) \
	}
FRAME_ADDRESS(32)
FRAME_ADDRESS(64)

/* Every clock is this one: nanoseconds in 64 bits, cut by the encoder. */
SG_HANDLER(special)
{
	u64 *d = sg_at(w, i->d);
	const u64 value = sg_now_ns();

	SG_EACH(l, m) d[l] = value;
	w->budget--; /* programs spin on clocks */
	return i + 1;
}

SG_HANDLER(not_pred)
{
	sg_predicate_set(w, i->d, m, ~sg_truth(w, i->a));
	return i + 1;
}

SG_HANDLER(mov_pred)
{
	sg_predicate_set(w, i->d, m, sg_truth(w, i->a));
	return i + 1;
}

SG_HANDLER(mov_word_pred)
{
	const u32 *a = sg_at(w, i->a);
	uint32_t bits = 0;

	SG_EACH(l, m) bits |= (uint32_t)(a[l] != 0) << l;
	sg_predicate_set(w, i->d, m, bits);
	return i + 1;
}

#define PREDICATES(name, sign) \
	SG_HANDLER(name##_pred) \
	{ \
		sg_predicate_set(w, i->d, m, sg_truth(w, i->a) sign sg_truth(w, i->b)); \
		return i + 1; \
	}
PREDICATES(and, &)
PREDICATES(or, |)
PREDICATES(xor, ^)

#define SELECT(bits) \
	SG_HANDLER(selp_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
		const u##bits *a = sg_at(w, i->a), *b = sg_at(w, i->b); \
		const uint32_t p = sg_truth(w, i->c); \
		SG_LOOP(const u##bits r = p & sg_bit[l] ? a[l] : b[l]) \
	}
SELECT(16)
SELECT(32)
SELECT(64)

/* d = b with a's low bits inserted at c; x: the operand that holds the length */
#define INSERT(bits) \
	SG_HANDLER(bfi_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
		const u##bits *a = sg_at(w, i->a), *b = sg_at(w, i->b); \
		const u32 *c = sg_at(w, i->c), *n = sg_at(w, i->x); \
		SG_EACH(l, m) d[l] = (u##bits)sg_bfi(a[l], b[l], c[l], n[l], bits); \
		return i + 1; \
	}
INSERT(32)
INSERT(64)
