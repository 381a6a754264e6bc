/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads and stores. Addresses of all lanes are checked together against the range that the warp hit last; only
 * where that fails is each lane looked up (memory.c), which also makes the faults. run_memory_whole.c has the quicker
 * handlers for whole warps.
 */
#include "run.h"

/* Tries the range that this instruction hit last, then the one of the first lane; false: it takes lane by lane. */
static inline bool resolve_global(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, u64 *host)
{
	const u64 *a = sg_at(w, i->a);
	const u64 offset = (u64)(s64)(s32)i->x;
	const struct sg_range *range = sg_range_of(w, i);

	if (!(i->flags & SG_WIDE))
		return sg_resolve_lanes(w, i, m, bytes, host);
	for (int attempt = 0; attempt < 2; attempt++) {
		const u64 base = range->base, limit = range->size - bytes;
		u64 bad = 0, low = 0;

		/* bad's top bit: a lane outside; low: the lanes' addresses or'ed */
		SG_VECTOR for (int l = 0; l < SG_LANES; l++)
		{
			const u64 x = a[l] + offset, t = x - base, use = -(u64)(m >> l & 1);

			bad |= (t | (limit - t)) & use;
			low |= x & use;
			host[l] = x;
		}
		if ((s64)bad >= 0 && range->size >= bytes && !(low & (bytes - 1)))
			return true;
		if (attempt || !sg_range_find(w, i, host[sg_lowest(m)]))
			break;
	}
	return sg_resolve_lanes(w, i, m, bytes, host);
}

static inline bool resolve_shared(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, u64 *host)
{
	const u32 *a = sg_at(w, i->a);
	const u32 offset = i->x, limit = w->block->shared_size - bytes;
	const u64 base = (u64)(uintptr_t)w->block->shared;
	u32 bad = 0, low = 0;

	if (w->block->shared_size < bytes)
		return sg_resolve_lanes(w, i, m, bytes, host);
	SG_VECTOR for (int l = 0; l < SG_LANES; l++)
	{
		const u32 x = a[l] + offset, use = -(m >> l & 1);

		bad |= (x | (limit - x)) & use;
		low |= x & use;
		host[l] = base + x;
	}
	if ((s32)bad < 0 || (low & (bytes - 1)))
		return sg_resolve_lanes(w, i, m, bytes, host);
	return true;
}

/* 64-bit addresses that begin with start; lane l's memory is at memory + l * stride. */
static inline bool resolve_window(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, u64 start,
				  const char *memory, u64 stride, u64 size, u64 *host)
{
	const u64 *a = sg_at(w, i->a);
	const u64 offset = (u64)(s64)(s32)i->x - start, limit = size - bytes;
	u64 bad = 0, low = 0;

	if (!(i->flags & SG_WIDE) || size < bytes)
		return sg_resolve_lanes(w, i, m, bytes, host);
	SG_VECTOR for (int l = 0; l < SG_LANES; l++)
	{
		const u64 x = a[l] + offset, use = -(u64)(m >> l & 1);

		bad |= (x | (limit - x)) & use;
		low |= x & use;
		host[l] = (u64)(uintptr_t)memory + (u64)l * stride + x;
	}
	if ((s64)bad < 0 || (low & (bytes - 1)))
		return sg_resolve_lanes(w, i, m, bytes, host);
	return true;
}

/* By where the first lane's address lies; others elsewhere are looked up one by one. */
static inline bool resolve_generic(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, u64 *host)
{
	const u64 *a = sg_at(w, i->a);
	const struct sg_block *block = w->block;

	if (!(i->flags & SG_WIDE))
		return sg_resolve_lanes(w, i, m, bytes, host);
	switch (a[sg_lowest(m)] & 0xffull << 56) {
	case SG_SHARED_WINDOW:
		return resolve_window(w, i, m, bytes, SG_SHARED_WINDOW, block->shared, 0, block->shared_size, host);
	case SG_LOCAL_WINDOW:
		return resolve_window(w, i, m, bytes, SG_LOCAL_WINDOW, w->local, w->local_size, w->local_size, host);
	}
	return resolve_global(w, i, m, bytes, host);
}

static inline bool resolve(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, u64 *host)
{
	const struct sg_block *block = w->block;

	switch (SG_SPACE(i->flags)) {
	case SG_GLOBAL: return resolve_global(w, i, m, bytes, host);
	case SG_GENERIC: return resolve_generic(w, i, m, bytes, host);
	case SG_SHARED:
		if (!(i->flags & SG_WIDE))
			return resolve_shared(w, i, m, bytes, host);
		return resolve_window(w, i, m, bytes, 0, block->shared, 0, block->shared_size, host);
	case SG_LOCAL: return resolve_window(w, i, m, bytes, 0, w->local, w->local_size, w->local_size, host);
	case SG_PARAM:
		return resolve_window(w, i, m, bytes, 0, block->run->parameters, 0,
				      block->run->launch->kernel->parameters_size, host);
	case SG_FRAME:
		if ((i->x & (bytes - 1)) || (u64)w->frame->local_base + i->x + bytes > w->local_size)
			return sg_resolve_lanes(w, i, m, bytes, host);
		for (int l = 0; l < SG_LANES; l++)
			host[l] = (u64)(uintptr_t)w->local + (u64)l * w->local_size + w->frame->local_base + i->x;
		return true;
	default: return sg_resolve_lanes(w, i, m, bytes, host);
	}
}

#define AT(type, address) (*(type *)(uintptr_t)(address))

#define LOAD(name, T, R) \
	SG_HANDLER(ld_##name) \
	{ \
		R *d = sg_at(w, i->d); \
		u64 host[SG_LANES]; \
\
		if (!resolve(w, i, m, sizeof(T), host)) \
			return NULL; \
		if (m == SG_ALL) \
			for (int l = 0; l < SG_LANES; l++) \
				d[l] = (R)AT(T, host[l]); \
		else \
			SG_EACH(l, m) d[l] = (R)AT(T, host[l]); \
		return i + 1; \
	} \
	SG_HANDLER(ldparam_##name) \
	{ \
		R *d = sg_at(w, i->d); \
		T value; \
\
		if (i->x > w->block->run->launch->kernel->parameters_size) \
			return sg_fault(w, i, m, SG_ILLEGAL_ADDRESS, "the kernel has no parameter at %u", i->x); \
		memcpy(&value, w->block->run->parameters + i->x, sizeof(value)); \
		SG_LOOP(const R r = (R)value) \
	} \
	SG_HANDLER(ldv_##name) \
	{ \
		const uint32_t count = i->c; \
		u64 host[SG_LANES]; \
\
		if (!resolve(w, i, m, sizeof(T) * count, host)) \
			return NULL; \
		for (uint32_t k = 0; k < count; k++) { \
			const uint32_t to = (&i[1 + k / 4].d)[k % 4]; \
			R *d = sg_at(w, to); \
\
			if (to == SG_NOWHERE) \
				continue; \
			SG_EACH(l, m) d[l] = (R)AT(T, host[l] + k * sizeof(T)); \
		} \
		return sg_next(i); \
	}

LOAD(u8_16, u8, u16)
LOAD(u8_32, u8, u32)
LOAD(u8_64, u8, u64)
LOAD(s8_16, s8, u16)
LOAD(s8_32, s8, u32)
LOAD(s8_64, s8, u64)
LOAD(u16_16, u16, u16)
LOAD(u16_32, u16, u32)
LOAD(u16_64, u16, u64)
LOAD(s16_32, s16, u32)
LOAD(s16_64, s16, u64)
LOAD(u32_32, u32, u32)
LOAD(u32_64, u32, u64)
LOAD(s32_64, s32, u64)
LOAD(u64_64, u64, u64)

#define STORE(name, T, R) \
	SG_HANDLER(st_##name) \
	{ \
		const R *d = sg_at(w, i->d); \
		u64 host[SG_LANES]; \
\
		if (!resolve(w, i, m, sizeof(T), host)) \
			return NULL; \
		if (m == SG_ALL) \
			for (int l = 0; l < SG_LANES; l++) \
				AT(T, host[l]) = (T)d[l]; \
		else \
			SG_EACH(l, m) AT(T, host[l]) = (T)d[l]; \
		return i + 1; \
	} \
	SG_HANDLER(stv_##name) \
	{ \
		const uint32_t count = i->c; \
		u64 host[SG_LANES]; \
\
		if (!resolve(w, i, m, sizeof(T) * count, host)) \
			return NULL; \
		for (uint32_t k = 0; k < count; k++) { \
			const R *d = sg_at(w, (&i[1 + k / 4].d)[k % 4]); \
\
			SG_EACH(l, m) AT(T, host[l] + k * sizeof(T)) = (T)d[l]; \
		} \
		return sg_next(i); \
	}

STORE(8_16, u8, u16)
STORE(8_32, u8, u32)
STORE(8_64, u8, u64)
STORE(16_16, u16, u16)
STORE(16_32, u16, u32)
STORE(16_64, u16, u64)
STORE(32_32, u32, u32)
STORE(32_64, u32, u64)
STORE(64_64, u64, u64)

typedef struct {
	u64 low, high;
} wide;

SG_HANDLER(ld_128)
{
	wide *d = sg_at(w, i->d);
	u64 host[SG_LANES];

	if (!resolve(w, i, m, 16, host))
		return NULL;
	SG_EACH(l, m) d[l] = AT(wide, host[l]);
	return i + 1;
}

SG_HANDLER(st_128)
{
	const wide *d = sg_at(w, i->d);
	u64 host[SG_LANES];

	if (!resolve(w, i, m, 16, host))
		return NULL;
	SG_EACH(l, m) AT(wide, host[l]) = d[l];
	return i + 1;
}

SG_HANDLER(mov_128)
{
	wide *d = sg_at(w, i->d);
	const wide *a = sg_at(w, i->a);

	SG_EACH(l, m) d[l] = a[l];
	return i + 1;
}

SG_HANDLER(pack_64_64)
{
	wide *d = sg_at(w, i->d);
	const u64 *a = sg_at(w, i->a), *b = sg_at(w, i->b);

	SG_EACH(l, m) d[l] = (wide){ a[l], b[l] };
	return i + 1;
}

SG_HANDLER(part_128_0)
{
	u64 *d = sg_at(w, i->d);
	const wide *a = sg_at(w, i->a);

	SG_EACH(l, m) d[l] = a[l].low;
	return i + 1;
}

SG_HANDLER(part_128_1)
{
	u64 *d = sg_at(w, i->d);
	const wide *a = sg_at(w, i->a);

	SG_EACH(l, m) d[l] = a[l].high;
	return i + 1;
}

SG_HANDLER(selp_128)
{
	wide *d = sg_at(w, i->d);
	const wide *a = sg_at(w, i->a), *b = sg_at(w, i->b);
	const uint32_t p = sg_truth(w, i->c);

	SG_EACH(l, m) d[l] = p >> l & 1 ? a[l] : b[l];
	return i + 1;
}

SG_HANDLER(fence)
{
	atomic_thread_fence(memory_order_seq_cst);
	w->budget -= 4; /* whoever fences may be waiting for somebody */
	return i + 1;
}

SG_HANDLER(prefetch)
{
	return i + 1;
}

static inline bool in_own_shared(const struct sg_warp *w, u64 address)
{
	const u32 tag = (u32)address >> SG_TAG_SHIFT;

	return address >> 56 == SG_SHARED_WINDOW >> 56 && (!tag || tag == w->block->rank + 1);
}

/* Is a generic address in this window? x: its enum sg_space_code, plus 8 for the shared memory of the cluster. */
SG_HANDLER(isspacep)
{
	const u64 *a = sg_at(w, i->a);
	uint32_t bits = 0;

	SG_EACH(l, m)
	{
		const u64 window = a[l] >> 56;
		const bool in = i->x == SG_SHARED         ? in_own_shared(w, a[l])
				: i->x == (SG_SHARED | 8) ? window == SG_SHARED_WINDOW >> 56
				: i->x == SG_LOCAL        ? window == SG_LOCAL_WINDOW >> 56
				: i->x == SG_PARAM        ? window == SG_PARAM_WINDOW >> 56
							  : !window;

		bits |= (uint32_t)in << l;
	}
	sg_predicate_set(w, i->d, m, bits);
	return i + 1;
}

/* Where the lanes read from: nothing beyond the bytes to read, nothing at all when these are none. */
static bool resolve_source(struct sg_warp *w, const struct sg_op *part, uint32_t m, uint32_t size, const u32 *read,
			   u64 *from)
{
	uint32_t whole = 0;

	SG_EACH(l, m)
	{
		char *at = NULL;

		if (read[l] >= size)
			whole |= 1u << l;
		else if (read[l] && !(at = sg_resolve_line(w, part, l, 0, read[l], size)))
			return false;
		from[l] = (u64)(uintptr_t)at;
	}
	if (!whole)
		return true;

	u64 places[SG_LANES];

	if (!resolve(w, part, whole, size, places))
		return false;
	SG_EACH(l, whole)
	{
		from[l] = places[l];
	}
	return true;
}

/* cp.async: d the destination's address in shared memory, a the global one's, b the bytes to read, c all bytes. */
SG_HANDLER(copy_async)
{
	const uint32_t size = i->c;
	const u32 *read = sg_at(w, i->b);
	u64 from[SG_LANES], to[SG_LANES];
	struct sg_op part = *i;

	w->groups[0].pc = i; /* faults of a part are the record's */
	part.flags = (uint16_t)((i->flags & SG_NOT) | SG_WIDE | SG_GLOBAL << 2);
	if (!resolve_source(w, &part, m, size, read, from))
		return NULL;
	part.a = i->d;
	part.x = 0;
	part.flags = (uint16_t)((i->flags & (SG_NOT | SG_WIDE)) | SG_SHARED << 2);
	if (!resolve(w, &part, m, size, to))
		return NULL;
	SG_EACH(l, m)
	{
		const uint32_t n = read[l] < size ? read[l] : size;

		if (n)
			memcpy((void *)(uintptr_t)to[l], (const void *)(uintptr_t)from[l], n);
		memset((char *)(uintptr_t)to[l] + n, 0, size - n);
	}
	return i + 1;
}
