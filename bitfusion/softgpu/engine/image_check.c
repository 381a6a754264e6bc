/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks the records of an image against the handlers' signatures, and puts the handlers in.
 */
#include <stdio.h>
#include <stdlib.h>

#include "generated/opcodes.h"
#include "image.h"
#include "matrix.h"

struct checker {
	const struct sg_image *image;
	const struct sg_function *function;
	unsigned char *starts; /* a byte per record: 1 where an instruction begins */
	uint32_t opcodes;
};

static bool in_area(const struct checker *c, uint32_t operand, uint32_t bytes, bool written)
{
	const uint64_t offset = operand & ~3u, size = (uint64_t)bytes * SG_LANES;

	if (offset % 64)
		return false;
	switch (operand & 3) {
	case SG_AREA_REGISTERS: return offset >= 64 && offset + size <= c->function->register_bytes;
	case SG_AREA_CONSTANTS: return !written && offset + size <= c->image->constant_bytes;
	case SG_AREA_WARP: return !written && bytes <= 4 && offset + size <= SG_WARP_SPECIALS * SG_LANES * 4;
	default: return !written && bytes <= 4 && offset + size <= SG_BLOCK_SPECIALS * SG_LANES * 4;
	}
}

static bool good_predicate(const struct checker *c, uint32_t operand, bool written)
{
	const uint32_t offset = operand & ~3u;

	if (operand & (written ? 3 : 2))
		return false;
	return offset + 4 <= c->function->register_bytes && (!written || offset >= 4);
}

static bool good_operand(const struct checker *c, uint32_t operand, unsigned kind)
{
	switch (kind) {
	case SG_TO16:
	case SG_TO32:
	case SG_TO64:
	case SG_TO128: return in_area(c, operand, 2u << (kind - SG_TO16), true);
	case SG_FROM16:
	case SG_FROM32:
	case SG_FROM64:
	case SG_FROM128: return in_area(c, operand, 2u << (kind - SG_FROM16), false);
	case SG_TO_PRED: return good_predicate(c, operand, true);
	case SG_FROM_PRED: return good_predicate(c, operand, false);
	case SG_TO_PRED_OR_NOT: return operand == SG_NOWHERE || good_predicate(c, operand, true);
	}
	return true;
}

static bool good_address(const struct checker *c, const struct sg_op *op)
{
	if (SG_SPACE(op->flags) >= SG_SPACES)
		return false;
	return SG_SPACE(op->flags) == SG_FRAME || in_area(c, op->a, op->flags & SG_WIDE ? 8 : 4, false);
}

static bool good_vector(const struct checker *c, const struct sg_op *op, unsigned kind)
{
	const uint32_t count = op->c;

	if (!good_address(c, op) || (count != 2 && count != 4 && count != 8) || SG_EXTRA(op->flags) != (count + 3) / 4)
		return false;
	for (uint32_t k = 0; k < count; k++) {
		const uint32_t operand = (&op[1 + k / 4].d)[k % 4];

		if (operand == SG_NOWHERE && kind <= SG_TO64)
			continue;
		if (!good_operand(c, operand, kind))
			return false;
	}
	return true;
}

/* Registers in the records behind one, some of them written. */
static bool good_registers(const struct checker *c, const struct sg_op *op, uint32_t from, uint32_t count, bool written,
			   uint32_t bytes)
{
	for (uint32_t k = from; k < from + count; k++)
		if (!in_area(c, sg_extra(op, k), bytes, written))
			return false;
	return true;
}

static bool good_matrix(const struct checker *c, const struct sg_op *op)
{
	struct sg_matrix s;

	if (!sg_matrix_read(op->x, &s) || SG_EXTRA(op->flags) != (s.operands + 3) / 4)
		return false;
	if ((op->code == SG_OPCODE_mma_quarters) != (s.a_type == SG_F16 && s.k == 4))
		return false;
	if (op->code == SG_OPCODE_mma_quarters && (s.m != 8 || s.n != 8 || (op->x & SG_MATRIX_SPARSE)))
		return false;
	return good_registers(c, op, 0, s.d_regs, true, s.width) &&
	       good_registers(c, op, s.d_regs, s.operands - s.d_regs, false, s.width);
}

static bool good_fragment(const struct checker *c, const struct sg_op *op)
{
	struct sg_fragment f;

	return good_address(c, op) && sg_fragment_read(op->c, &f) && SG_EXTRA(op->flags) == (f.registers + 3) / 4 &&
	       good_registers(c, op, 0, f.registers, op->code == SG_OPCODE_load_fragment, f.width);
}

static bool good_8x8(const struct checker *c, const struct sg_op *op, bool written)
{
	return good_address(c, op) && (op->c == 1 || op->c == 2 || op->c == 4) && SG_EXTRA(op->flags) == 1 &&
	       good_registers(c, op, 0, op->c, written, 4);
}

static bool good_target(const struct checker *c, const struct sg_op *op, uint32_t distance)
{
	const int64_t target = (int64_t)(op - c->image->ops) + (int32_t)distance;
	const int64_t first = c->function->first;

	return target >= first && target < first + c->function->count && c->starts[target];
}

static bool good_table(const struct checker *c, const struct sg_op *op)
{
	const struct sg_image *image = c->image;
	uint32_t count;

	if (op->x >= image->target_count)
		return false;
	count = image->targets[op->x];
	if (count > image->target_count - op->x - 1)
		return false;
	for (uint32_t k = 0; k < count; k++)
		if (!good_target(c, op, image->targets[op->x + 1 + k]))
			return false;
	return true;
}

static bool good_copies(const struct checker *c, uint32_t first, uint32_t count, uint32_t from_size, uint32_t to_size)
{
	const struct sg_image *image = c->image;

	if (first > image->copy_count || count > image->copy_count - first)
		return false;
	for (uint32_t k = first; k < first + count; k++) {
		const struct sg_copy *copy = &image->copies[k];

		if (copy->from > from_size || copy->size > from_size - copy->from || copy->to > to_size ||
		    copy->size > to_size - copy->to)
			return false;
	}
	return true;
}

static bool good_call(const struct checker *c, const struct sg_op *op)
{
	const uint32_t local = c->function->local_bytes;
	const struct sg_call *call;

	if (op->x >= c->image->call_count)
		return false;
	call = &c->image->calls[op->x];
	return call->bytes <= SG_MAX_STACK &&
	       good_copies(c, call->first_argument, call->arguments, local, call->bytes) &&
	       good_copies(c, call->first_result, call->results, call->bytes, local);
}

static bool good_callee(const struct checker *c, const struct sg_op *op)
{
	return op->d < c->image->function_count && c->image->functions[op->d].count && good_call(c, op);
}

static bool good_system(const struct checker *c, const struct sg_op *op)
{
	return op->d < SG_SYSTEMS && good_call(c, op) && c->image->calls[op->x].bytes >= SG_SYSTEM_BYTES;
}

static bool good_shuffle(const struct checker *c, const struct sg_op *op)
{
	return SG_EXTRA(op->flags) == 1 && (op[1].a == SG_NOWHERE || in_area(c, op[1].a, 4, false)) &&
	       good_operand(c, op[1].d, SG_TO_PRED_OR_NOT);
}

static bool good_copy(const struct checker *c, const struct sg_op *op)
{
	return in_area(c, op->a, 8, false) && in_area(c, op->d, op->flags & SG_WIDE ? 8 : 4, false) &&
	       in_area(c, op->b, 4, false) && (op->c == 4 || op->c == 8 || op->c == 16);
}

/* Further operands of 64 bits: 12, of which some are not there. */
static bool good_operands(const struct checker *c, const struct sg_op *op)
{
	if (SG_EXTRA(op->flags) != 3)
		return false;
	for (uint32_t k = 0; k < 12; k++) {
		const uint32_t operand = (&op[1 + k / 4].d)[k % 4];

		if (operand != SG_NOWHERE && !in_area(c, operand, 8, false))
			return false;
	}
	return true;
}

/* 24 words, of which some are not there; the first four are results. */
static bool good_texture(const struct checker *c, const struct sg_op *op)
{
	if (SG_EXTRA(op->flags) != 6)
		return false;
	for (uint32_t k = 0; k < 24; k++) {
		const uint32_t operand = (&op[1 + k / 4].d)[k % 4];

		if (operand != SG_NOWHERE && !in_area(c, operand, 4, k < 4))
			return false;
	}
	return true;
}

static bool good_rest(const struct checker *c, const struct sg_op *op, unsigned check)
{
	switch (check) {
	case SG_CHECK_MEMORY: return good_address(c, op);
	case SG_CHECK_ATOMIC: return good_address(c, op) && SG_SPACE(op->flags) != SG_FRAME;
	case SG_CHECK_VLOAD16:
	case SG_CHECK_VLOAD32:
	case SG_CHECK_VLOAD64:
		return good_vector(c, op,
				   check == SG_CHECK_VLOAD16   ? SG_TO16
				   : check == SG_CHECK_VLOAD32 ? SG_TO32
							       : SG_TO64);
	case SG_CHECK_VSTORE16:
	case SG_CHECK_VSTORE32:
	case SG_CHECK_VSTORE64:
		return good_vector(c, op,
				   check == SG_CHECK_VSTORE16   ? SG_FROM16
				   : check == SG_CHECK_VSTORE32 ? SG_FROM32
								: SG_FROM64);
	case SG_CHECK_TEST: return !(op->x & 3) || good_predicate(c, op->x >> 2, false);
	case SG_CHECK_LENGTH: return in_area(c, op->x, 4, false);
	case SG_CHECK_BRANCH: return good_target(c, op, op->x);
	case SG_CHECK_TABLE: return good_table(c, op);
	case SG_CHECK_CALL: return good_callee(c, op);
	case SG_CHECK_CALLREG: return good_call(c, op);
	case SG_CHECK_CALLSYS: return good_system(c, op);
	case SG_CHECK_SHUFFLE: return good_shuffle(c, op);
	case SG_CHECK_COPY: return good_copy(c, op);
	case SG_CHECK_MATRIX: return good_matrix(c, op);
	case SG_CHECK_FRAGMENT: return good_fragment(c, op);
	case SG_CHECK_LDMATRIX:
	case SG_CHECK_STMATRIX: return good_8x8(c, op, check == SG_CHECK_LDMATRIX);
	case SG_CHECK_OPERANDS: return good_operands(c, op);
	case SG_CHECK_TEXTURE: return good_texture(c, op);
	case SG_CHECK_STRING: return op->x < c->image->string_bytes;
	case SG_CHECK_POWER: return op->x && !(op->x & (op->x - 1)) && op->x <= 1u << 15;
	}
	return true;
}

/* Only these look at further records. */
static bool has_extra(unsigned check)
{
	switch (check) {
	case SG_CHECK_SHUFFLE:
	case SG_CHECK_OPERANDS:
	case SG_CHECK_TEXTURE:
	case SG_CHECK_MATRIX:
	case SG_CHECK_FRAGMENT:
	case SG_CHECK_LDMATRIX:
	case SG_CHECK_STMATRIX: return true;
	}
	return check >= SG_CHECK_VLOAD16 && check <= SG_CHECK_VSTORE64;
}

static bool good_op(const struct checker *c, const struct sg_op *op)
{
	const struct sg_signature *signature = &sg_signatures[op->code];
	const uint32_t operands[4] = { op->d, op->a, op->b, op->c };

	if ((op->guard + 1u) * 4 > c->function->register_bytes || (SG_EXTRA(op->flags) && !has_extra(signature->check)))
		return false;
	for (int k = 0; k < 4; k++) {
		if (signature->check == SG_CHECK_ATOMIC && k == 0 && operands[0] == SG_NOWHERE)
			continue;
		if (!good_operand(c, operands[k], signature->operand[k]))
			return false;
	}
	return good_rest(c, op, signature->check);
}

/* Marks where instructions begin; a function's last one must not fall off its end. */
static bool mark_starts(struct checker *c)
{
	const struct sg_op *ops = c->image->ops;
	const uint32_t first = c->function->first, end = first + c->function->count;
	uint32_t last = first;

	for (uint32_t k = first; k < end; k += 1 + SG_EXTRA(ops[k].flags)) {
		if (ops[k].code >= c->opcodes || SG_EXTRA(ops[k].flags) >= end - k || c->starts[k])
			return false;
		c->starts[k] = 1;
		last = k;
	}
	if (first == end)
		return !c->function->prologue;
	if (c->function->prologue >= end - first || !c->starts[first + c->function->prologue])
		return false;
	return ops[last].code == SG_OPCODE_exit && !ops[last].guard && !(ops[last].flags & SG_NOT);
}

static bool check_functions(struct checker *c)
{
	const struct sg_image *image = c->image;

	for (uint32_t f = 0; f < image->function_count; f++) {
		c->function = &image->functions[f];
		if (!mark_starts(c))
			return false;
	}
	for (uint32_t f = 0; f < image->function_count; f++) {
		c->function = &image->functions[f];
		for (uint32_t k = c->function->first; k < c->function->first + c->function->count; k++)
			if (c->starts[k] && !good_op(c, &image->ops[k]))
				return false;
	}
	return true;
}

bool sg_image_check(const struct sg_image *image, char *reason, size_t reason_size)
{
	struct checker c = { .image = image, .opcodes = SG_OPCODE_COUNT, .starts = calloc(image->op_count + 1, 1) };
	const sg_handler *handlers = sg_handlers();
	const bool good = c.starts && check_functions(&c);

	for (uint32_t k = 0; good && k < image->op_count; k++)
		image->ops[k].run = c.starts[k] ? handlers[image->ops[k].code] : NULL;
	free(c.starts);
	if (!good)
		snprintf(reason, reason_size, "damaged image: a record of '%s' is not valid",
			 c.function ? c.function->name : "it");
	return good;
}
