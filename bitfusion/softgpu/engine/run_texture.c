/* SPDX-License-Identifier: Apache-2.0
 *
 * Textures: a is the number of one, x the form (see lower_texture.py). Further operands are words: four results, four
 * coordinates (a layer before them), a level or two gradients from 8 on, offsets from 14 on.
 */
#include "run.h"
#include "sample.h"

static inline u32 *word_of(const struct sg_warp *w, const struct sg_op *i, unsigned n)
{
	const uint32_t operand = (&i[1 + n / 4].d)[n % 4];

	return operand == SG_NOWHERE ? NULL : sg_at(w, operand);
}

/* Lane l's words n and up. */
static void words_at(const struct sg_warp *w, const struct sg_op *i, unsigned n, unsigned count, uint32_t l, void *to)
{
	for (unsigned k = 0; k < count; k++) {
		const u32 *from = word_of(w, i, n + k);
		const u32 value = from ? from[l] : 0;

		memcpy((char *)to + 4 * k, &value, 4);
	}
}

static void results(const struct sg_warp *w, const struct sg_op *i, uint32_t l, const uint32_t words[4])
{
	for (unsigned k = 0; k < 4; k++) {
		u32 *to = word_of(w, i, k);

		if (to)
			to[l] = words[k];
	}
}

/* The texture or surface that a lane names, and its memory; found anew where it is another than the last lane's. */
static const char *open_texture(struct sg_warp *w, const struct sg_op *i, uint32_t l, unsigned kind, uint64_t *last,
				struct sg_texture *t)
{
	const u64 number = ((const u64 *)sg_at(w, i->a))[l];
	const char *memory;

	if ((!number || number != *last) && !sg_texture_find(number, kind, t)) {
		sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS, "no %s object 0x%llx",
			 kind == SG_TEXTURE ? "texture" : "surface", (unsigned long long)number);
		return NULL;
	}
	*last = number;
	memory = sg_host(w, l, t->address, t->size);
	if (!memory)
		sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS, "the memory of %s object 0x%llx is gone",
			 kind == SG_TEXTURE ? "texture" : "surface", (unsigned long long)number);
	return memory;
}

/* Has another texture say how this one is read: what PTX counts as a sampler's. */
static bool take_sampler(struct sg_warp *w, const struct sg_op *i, uint32_t l, struct sg_texture *t)
{
	const u64 number = ((const u64 *)sg_at(w, i->b))[l];
	struct sg_texture sampler;

	if (number == ((const u64 *)sg_at(w, i->a))[l])
		return true;
	if (!sg_texture_find(number, SG_TEXTURE, &sampler)) {
		sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS, "no sampler 0x%llx", (unsigned long long)number);
		return false;
	}
	memcpy(t->address_mode, sampler.address_mode, sizeof(t->address_mode));
	memcpy(t->border, sampler.border, sizeof(t->border));
	t->filter = sampler.filter;
	t->mip_filter = sampler.mip_filter;
	t->bias = sampler.bias;
	t->min_level = sampler.min_level;
	t->max_level = sampler.max_level;
	return true;
}

static void read_sample(const struct sg_warp *w, const struct sg_op *i, uint32_t l, struct sg_sample *s)
{
	const unsigned layered = i->x >> 2 & 1;

	*s = (struct sg_sample){ .geometry = i->x & 3, .real = i->x >> 3 & 1, .detail = i->x >> 4 & 3 };
	if (layered)
		words_at(w, i, 4, 1, l, &s->layer);
	words_at(w, i, 4 + layered, 3, l, s->at);
	memcpy(s->whole, s->at, sizeof(s->whole));
	words_at(w, i, 8, 1, l, &s->level);
	words_at(w, i, 8, 3, l, s->dx);
	words_at(w, i, 11, 3, l, s->dy);
	words_at(w, i, 14, 3, l, s->offset);
}

/* d: the component of a gather plus 1 is in bits 6 to 8 of x */
SG_HANDLER(texture)
{
	const unsigned gather = i->x >> 6 & 7;
	struct sg_texture t;
	struct sg_sample s;
	uint64_t last = 0;

	SG_EACH(l, m)
	{
		const char *memory = open_texture(w, i, l, SG_TEXTURE, &last, &t);
		uint32_t out[4];

		if (!memory || !take_sampler(w, i, l, &t))
			return NULL;
		if (i->b != i->a)
			last = 0; /* another lane may have another sampler */
		read_sample(w, i, l, &s);
		if (gather)
			sg_texture_gather(&t, memory, &s, gather - 1, out);
		else
			sg_texture_sample(&t, memory, &s, out);
		results(w, i, l, out);
	}
	return sg_next(i);
}

/* The values of OpenCL, as the ISA has them. */
static u32 data_type(const struct sg_texture *t, unsigned kind)
{
	const bool fraction = kind == SG_TEXTURE && !t->as_integer;

	switch (t->format) {
	case SG_TEXEL_U8: return fraction ? 0x10d2 : 0x10da;
	case SG_TEXEL_U16: return fraction ? 0x10d3 : 0x10db;
	case SG_TEXEL_U32: return 0x10dc;
	case SG_TEXEL_S8: return fraction ? 0x10d0 : 0x10d7;
	case SG_TEXEL_S16: return fraction ? 0x10d1 : 0x10d8;
	case SG_TEXEL_S32: return 0x10d9;
	case SG_TEXEL_F16: return 0x10dd;
	}
	return 0x10de;
}

/* x: enum order of _QUERIES in lower_texture.py, and from bit 8 on the kind */
static u32 answer(const struct sg_texture *t, unsigned question, unsigned kind, uint32_t level)
{
	const struct sg_level *at = &t->level[level < t->levels ? level : t->levels - 1];

	switch (question) {
	case 0: return at->width;
	case 1: return at->height;
	case 2: return at->depth;
	case 3: return data_type(t, kind);
	case 4: return t->channels == 1 ? 0x10b0 : t->channels == 2 ? 0x10b2 : 0x10b5;
	case 5: return t->normalised;
	case 6: return t->layers;
	case 7: return t->levels;
	case 8: return 1; /* samples */
	case 9: return t->filter;
	case 10:
	case 11:
	case 12: return t->address_mode[question - 10];
	}
	return 0; /* no sampler forces its coordinates; no surface is linear memory */
}

SG_HANDLER(texture_query)
{
	const unsigned kind = i->x >> 8 & 3;
	struct sg_texture t;
	uint64_t last = 0;

	SG_EACH(l, m)
	{
		uint32_t level, out[4] = { 0 };

		if (!open_texture(w, i, l, kind, &last, &t))
			return NULL;
		words_at(w, i, 8, 1, l, &level);
		out[0] = answer(&t, i->x & 255, kind, level);
		results(w, i, l, out);
	}
	return sg_next(i);
}

/* Whether b is the number of a texture or surface, as c says: into the predicate d. */
SG_HANDLER(texture_is)
{
	const u64 *a = sg_at(w, i->a);
	struct sg_texture t;
	uint32_t bits = 0;

	SG_EACH(l, m) bits |= (uint32_t)sg_texture_find(a[l], i->c, &t) << l;
	sg_predicate_set(w, i->d, m, bits);
	return i + 1;
}

/* ------------------------------------------------------------------ surfaces
 *
 * x: geometry, layered, then from bit 3 on what happens outside (trap, clamp, zero), from bit 5 on log2 of an
 * element's bytes, from bit 7 on log2 of their number, bit 9: formatted, bit 10: … from floats, from bit 11 on the
 * verb and type of a reduction.
 */
enum { OUTSIDE_TRAP, OUTSIDE_CLAMP, OUTSIDE_ZERO };

/* The place of an access; NULL after a fault, or with *nothing where it reads zeros and writes nothing. */
static char *surface_at(struct sg_warp *w, const struct sg_op *i, uint32_t l, const struct sg_texture *t, char *memory,
			bool *nothing)
{
	const unsigned geometry = i->x & 3, layered = i->x >> 2 & 1, outside = i->x >> 3 & 3;
	const bool formatted = i->x >> 9 & 1;
	const s64 texel = (s64)sg_texel_bytes(t->format) * t->channels, unit = formatted ? texel : 1;
	const s64 bytes = formatted ? texel : (s64)1 << ((i->x >> 5 & 3) + (i->x >> 7 & 3));
	const struct sg_level *level = t->level;
	s32 at[4];
	s64 x, y, z, limit[3] = { (s64)level->width * texel, level->height, level->depth };

	words_at(w, i, 4, 4, l, at);
	x = at[layered] * unit;
	y = geometry >= SG_2D ? at[layered + 1] : 0;
	z = geometry == SG_3D ? at[2] : layered ? at[0] : 0;
	if (layered)
		limit[2] = t->layers;
	*nothing = false;
	if (x < 0 || x + bytes > limit[0] || y < 0 || y >= limit[1] || z < 0 || z >= limit[2]) {
		if (outside == OUTSIDE_TRAP || bytes > limit[0]) {
			sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS,
				 "outside of the surface: byte %lld of %lld, row %lld of %lld, slice %lld of %lld",
				 (long long)x, (long long)limit[0], (long long)y, (long long)limit[1], (long long)z,
				 (long long)limit[2]);
			return NULL;
		}
		*nothing = outside == OUTSIDE_ZERO;
		if (*nothing)
			return memory;
		x = x < 0 ? 0 : x + bytes > limit[0] ? limit[0] - bytes : x;
		y = y < 0 ? 0 : y >= limit[1] ? limit[1] - 1 : y;
		z = z < 0 ? 0 : z >= limit[2] ? limit[2] - 1 : z;
	}
	if (x % (formatted ? 1 : bytes)) {
		sg_fault(w, i, 1u << l, SG_MISALIGNED_ADDRESS, "byte %lld of a surface's row is not aligned to %lld",
			 (long long)x, (long long)bytes);
		return NULL;
	}
	return memory + level->offset + z * (s64)level->slice + y * (s64)level->pitch + x;
}

SG_HANDLER(surface_load)
{
	const u32 size = 1u << (i->x >> 5 & 3), count = 1u << (i->x >> 7 & 3);
	struct sg_texture t;
	uint64_t last = 0;

	SG_EACH(l, m)
	{
		char *memory = (char *)(uintptr_t)open_texture(w, i, l, SG_SURFACE, &last, &t);
		uint32_t out[4] = { 0 };
		bool nothing;

		if (memory)
			memory = surface_at(w, i, l, &t, memory, &nothing);
		if (!memory)
			return NULL;
		for (u32 k = 0; !nothing && k < count && k < 4; k++)
			memcpy(&out[k], memory + k * size, size < 4 ? size : 4);
		results(w, i, l, out);
	}
	return sg_next(i);
}

static u32 clamped(s64 value, s64 low, s64 high)
{
	return (u32)(value < low ? low : value > high ? high : value);
}

/* A word as the surface has it. */
static u32 converted(unsigned format, bool from_float, u32 word)
{
	const bool is_signed = format == SG_TEXEL_S8 || format == SG_TEXEL_S16 || format == SG_TEXEL_S32;
	const unsigned bits = 8 * sg_texel_bytes(format);
	s64 value;

	if (format == SG_TEXEL_F32)
		return word;
	if (format == SG_TEXEL_F16)
		return sg_f32_to_f16(sg_from32(word));
	value = is_signed ? (s64)(s32)word : (s64)word;
	if (from_float) {
		const double x = rint(sg_from32(word));

		value = x != x ? 0 : x > 0x1p40 ? (s64)1 << 40 : x < -0x1p40 ? -((s64)1 << 40) : (s64)x;
	}
	return is_signed ? clamped(value, -((s64)1 << (bits - 1)), ((s64)1 << (bits - 1)) - 1)
			 : clamped(value, 0, ((s64)1 << bits) - 1);
}

SG_HANDLER(surface_store)
{
	const u32 size = 1u << (i->x >> 5 & 3), count = 1u << (i->x >> 7 & 3);
	const bool formatted = i->x >> 9 & 1;
	struct sg_texture t;
	uint64_t last = 0;

	SG_EACH(l, m)
	{
		char *memory = (char *)(uintptr_t)open_texture(w, i, l, SG_SURFACE, &last, &t);
		uint32_t words[4];
		bool nothing;

		if (memory)
			memory = surface_at(w, i, l, &t, memory, &nothing);
		if (!memory)
			return NULL;
		words_at(w, i, 8, 4, l, words);
		for (u32 k = 0; !nothing && !formatted && k < count && k < 4; k++)
			memcpy(memory + k * size, &words[k], size < 4 ? size : 4);
		for (u32 k = 0; !nothing && formatted && k < t.channels; k++) {
			const u32 bytes = sg_texel_bytes(t.format),
				  word = converted(t.format, i->x >> 10 & 1, words[k]);

			memcpy(memory + k * bytes, &word, bytes);
		}
	}
	return sg_next(i);
}

/* Verbs: enum order of _REDUCTIONS in lower_texture.py; then whether signed, in bit 14. */
static inline u64 reduced(unsigned verb, bool is_signed, unsigned bytes, u64 old, u64 value)
{
	const bool less = !is_signed ? value < old : bytes == 4 ? (s32)value < (s32)old : (s64)value < (s64)old;

	switch (verb) {
	case 0: return old + value;
	case 1: return less ? value : old;
	case 2: return less || value == old ? old : value;
	case 3: return old & value;
	}
	return old | value;
}

SG_HANDLER(surface_reduce)
{
	const unsigned verb = i->x >> 11 & 7, bytes = (i->x >> 7 & 3) ? 8 : 4;
	const bool formatted = i->x >> 9 & 1;
	struct sg_texture t;
	uint64_t last = 0;

	SG_EACH(l, m)
	{
		char *at = (char *)(uintptr_t)open_texture(w, i, l, SG_SURFACE, &last, &t);
		u64 value;
		bool nothing, is_signed = i->x >> 14 & 1;

		if (at && formatted) {
			if ((t.format != SG_TEXEL_S32 && t.format != SG_TEXEL_U32) || 4 * t.channels != (int)bytes)
				return sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS,
						"a reduction of another format than the surface's");
			is_signed = t.format == SG_TEXEL_S32;
		}
		if (at)
			at = surface_at(w, i, l, &t, at, &nothing);
		if (!at)
			return NULL;
		words_at(w, i, 8, 2, l, &value);
		if (nothing)
			continue;
		if (bytes == 8) {
			u64 old = __atomic_load_n((u64 *)(void *)at, __ATOMIC_RELAXED);

			while (!__atomic_compare_exchange_n((u64 *)(void *)at, &old,
							    reduced(verb, is_signed, 8, old, value), false,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
				;
		} else {
			u32 old = __atomic_load_n((u32 *)(void *)at, __ATOMIC_RELAXED);

			while (!__atomic_compare_exchange_n((u32 *)(void *)at, &old,
							    (u32)reduced(verb, is_signed, 4, old, (u32)value), false,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
				;
		}
	}
	return sg_next(i);
}
