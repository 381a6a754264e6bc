/* SPDX-License-Identifier: Apache-2.0
 *
 * A loaded image: instructions as records of one size, and what they name.
 */
#ifndef SOFTGPU_RECORDS_H
#define SOFTGPU_RECORDS_H

#include <stdint.h>

#include "engine.h"

struct sg_op;
struct sg_warp;
/* Runs one instruction for the lanes of m; returns the next one, or NULL when the warp has to choose anew. */
typedef const struct sg_op *(*sg_handler)(struct sg_warp *w, const struct sg_op *i, uint32_t m);

/* d, a, b, c: byte offset of an operand with the area in the low two bits (see encode.py). */
struct sg_op {
	union {
		sg_handler run;
		uint64_t code; /* in an image */
	};
	uint32_t d, a, b, c;
	uint32_t x;
	uint16_t guard; /* predicate slot; slot 0 is always true */
	uint16_t flags;
};
_Static_assert(sizeof(struct sg_op) == 32, "records are 32 bytes");

/* flags: SG_NOT, the guard is negated; SG_WIDE, the address register has 64 bits */
#define SG_SPACE(flags) ((flags) >> 2 & 7)
#define SG_EXTRA(flags) ((flags) >> 8) /* further records that belong to this one */

enum { SG_AREA_REGISTERS, SG_AREA_CONSTANTS, SG_AREA_WARP, SG_AREA_BLOCK };

struct sg_function {
	const char *name;
	uint32_t first, count; /* records */
	uint32_t register_bytes, local_bytes;
	uint32_t parameter_bytes; /* at the start of the local frame: what a caller writes */
	uint32_t line; /* of the first record */
	uint32_t prologue; /* records at its start that do the same in every block of a launch */
};

struct sg_copy { /* one argument or result of a call; both offsets are from the start of a local frame */
	uint32_t from, to, size;
};
struct sg_call {
	uint32_t first_argument, arguments, first_result, results, bytes;
};

struct sg_constant { /* each starts on a multiple of 64 bytes, as 32 values of 2, 4 or 8 bytes do */
	uint64_t value;
	uint32_t variable; /* the address of this variable plus value, or SG_NOWHERE */
	uint16_t bytes, kind;
};
enum {
	SG_CONSTANT_VALUE,
	SG_CONSTANT_LANE,
	SG_CONSTANT_EQ,
	SG_CONSTANT_LE,
	SG_CONSTANT_LT,
	SG_CONSTANT_GE,
	SG_CONSTANT_GT
};

struct sg_relocation {
	uint32_t variable, symbol; /* SG_NOWHERE: value is absolute */
	uint64_t offset, value;
	uint32_t size, shift;
};

struct sg_image {
	unsigned char *bytes; /* our copy; everything below points into it or is allocated beside it */
	struct sg_op *ops;
	uint32_t op_count;
	const uint32_t *lines, *texts; /* per record */
	struct sg_function *functions;
	uint32_t function_count;
	const struct sg_constant *constants;
	uint32_t constant_count;
	uint64_t constant_bytes;
	struct sg_variable *variables;
	const unsigned char **initial;
	uint64_t *initial_size;
	uint32_t variable_count;
	const struct sg_relocation *relocations;
	uint32_t relocation_count;
	struct sg_kernel *kernels;
	struct sg_parameter *parameters;
	uint32_t *kernel_function;
	uint32_t *kernel_flags;
	uint32_t *kernel_stack;
	uint32_t kernel_count;
	const struct sg_call *calls;
	uint32_t call_count;
	const struct sg_copy *copies;
	uint32_t copy_count;
	const uint32_t *targets; /* of brx.idx: count, then record numbers */
	uint32_t target_count;
	const char *strings;
	uint32_t string_bytes;
};
#define SG_KERNEL_DEEP 1u     /* recursion or indirect calls: the stack has no bound */
#define SG_KERNEL_RESERVES 2u /* the system's part of shared memory is used, by cooperative groups */
#define SG_RESERVED_SMEM 1024u

#endif
