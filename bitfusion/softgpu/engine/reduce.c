/* SPDX-License-Identifier: Apache-2.0
 *
 * Reductions of bulk copies: element by element, each with an atomic instruction, as others may reduce into the same
 * memory at the same time. Additions of f32 flush subnormals.
 */
#include "bulk.h"
#include "run.h"

#define REDUCE(name, T, expression) \
	static void name(void *to, const void *from, uint64_t count) \
	{ \
		for (uint64_t k = 0; k < count; k++) { \
			T *p = (T *)to + k; \
			const T B = ((const T *)from)[k]; \
			T old = __atomic_load_n(p, __ATOMIC_RELAXED), made; \
			do \
				made = (T)(expression); \
			while (!__atomic_compare_exchange_n(p, &old, made, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); \
		} \
	}

REDUCE(add_u32, u32, old + B)
REDUCE(add_u64, u64, old + B)
REDUCE(add_f32, u32, sg_bits32(sg_ftz(sg_nan32(sg_ftz(sg_from32(old)) + sg_ftz(sg_from32(B))))))
REDUCE(add_f64, u64, sg_bits64(sg_from64(old) + sg_from64(B)))
REDUCE(add_f16, u16, sg_f32_to_f16(sg_f16_to_f32(old) + sg_f16_to_f32(B)))
REDUCE(add_bf16, u16, sg_f32_to_bf16(sg_bf16_to_f32(old) + sg_bf16_to_f32(B)))
REDUCE(min_u32, u32, old < B ? old : B)
REDUCE(min_s32, u32, (s32)old < (s32)B ? old : B)
REDUCE(min_u64, u64, old < B ? old : B)
REDUCE(min_s64, u64, (s64)old < (s64)B ? old : B)
REDUCE(min_f16, u16, sg_f32_to_f16(sg_min32(sg_f16_to_f32(old), sg_f16_to_f32(B))))
REDUCE(min_bf16, u16, sg_f32_to_bf16(sg_min32(sg_bf16_to_f32(old), sg_bf16_to_f32(B))))
REDUCE(max_u32, u32, old > B ? old : B)
REDUCE(max_s32, u32, (s32)old > (s32)B ? old : B)
REDUCE(max_u64, u64, old > B ? old : B)
REDUCE(max_s64, u64, (s64)old > (s64)B ? old : B)
REDUCE(max_f16, u16, sg_f32_to_f16(sg_max32(sg_f16_to_f32(old), sg_f16_to_f32(B))))
REDUCE(max_bf16, u16, sg_f32_to_bf16(sg_max32(sg_bf16_to_f32(old), sg_bf16_to_f32(B))))
REDUCE(inc_u32, u32, old >= B ? 0 : old + 1)
REDUCE(dec_u32, u32, old == 0 || old > B ? B : old - 1)
REDUCE(and_u32, u32, old &B)
REDUCE(and_u64, u64, old &B)
REDUCE(or_u32, u32, old | B)
REDUCE(or_u64, u64, old | B)
REDUCE(xor_u32, u32, old ^ B)
REDUCE(xor_u64, u64, old ^ B)

#define BITS(name) \
	{ [SG_ELEMENT_U32] = name##_u32, \
	  [SG_ELEMENT_S32] = name##_u32, \
	  [SG_ELEMENT_U64] = name##_u64, \
	  [SG_ELEMENT_S64] = name##_u64 }
#define ORDERED(name) \
	{ [SG_ELEMENT_U32] = name##_u32, [SG_ELEMENT_S32] = name##_s32, [SG_ELEMENT_U64] = name##_u64, \
	  [SG_ELEMENT_S64] = name##_s64, [SG_ELEMENT_F16] = name##_f16, [SG_ELEMENT_BF16] = name##_bf16 }

static const sg_reduction reductions[SG_REDUCTIONS][SG_ELEMENTS] = {
	[SG_REDUCE_ADD] = { [SG_ELEMENT_U32] = add_u32,
			    [SG_ELEMENT_S32] = add_u32,
			    [SG_ELEMENT_U64] = add_u64,
			    [SG_ELEMENT_S64] = add_u64,
			    [SG_ELEMENT_F16] = add_f16,
			    [SG_ELEMENT_F32] = add_f32,
			    [SG_ELEMENT_F32_FTZ] = add_f32,
			    [SG_ELEMENT_F64] = add_f64,
			    [SG_ELEMENT_BF16] = add_bf16 },
	[SG_REDUCE_MIN] = ORDERED(min),
	[SG_REDUCE_MAX] = ORDERED(max),
	[SG_REDUCE_INC] = { [SG_ELEMENT_U32] = inc_u32 },
	[SG_REDUCE_DEC] = { [SG_ELEMENT_U32] = dec_u32 },
	[SG_REDUCE_AND] = BITS(and),
	[SG_REDUCE_OR] = BITS(or),
	[SG_REDUCE_XOR] = BITS(xor),
};

sg_reduction sg_reduction_of(unsigned verb, unsigned type)
{
	return verb < SG_REDUCTIONS && type < SG_ELEMENTS ? reductions[verb][type] : NULL;
}
