/* SPDX-License-Identifier: Apache-2.0
 *
 * Fetching from a texture: coordinates to texels by the addressing modes, weights of 8 fractional bits where it
 * filters, levels of a mipmap, faces of a cube. Sums are taken in double precision.
 */
#include "run.h"
#include "sample.h"

/* Along one axis: the texels that count and their weights; -1 is outside. */
struct taps {
	int64_t at[2];
	double weight[2];
	int count;
};

static int64_t fold(int64_t i, int64_t size, unsigned mode)
{
	switch (mode) {
	case SG_ADDRESS_WRAP: i %= size; return i < 0 ? i + size : i;
	case SG_ADDRESS_MIRROR:
		i %= 2 * size;
		i = i < 0 ? i + 2 * size : i;
		return i < size ? i : 2 * size - 1 - i;
	case SG_ADDRESS_BORDER: return i < 0 || i >= size ? -1 : i;
	}
	return i < 0 ? 0 : i >= size ? size - 1 : i;
}

/* Only normalised coordinates wrap. */
static unsigned mode_of(const struct sg_texture *t, const struct sg_sample *s, unsigned axis)
{
	if (t->linear_memory)
		return SG_ADDRESS_BORDER;
	if (s->geometry == SG_CUBE || (!t->normalised && t->address_mode[axis] != SG_ADDRESS_BORDER))
		return SG_ADDRESS_CLAMP;
	return t->address_mode[axis];
}

static double bounded(double x)
{
	return x > -0x1p52 && x < 0x1p52 ? x : x >= 0x1p52 ? 0x1p52 : x <= -0x1p52 ? -0x1p52 : 0;
}

static struct taps taps_at(double x, int32_t offset, int64_t size, unsigned mode, bool filter)
{
	struct taps taps = { .weight = { 1 }, .count = 1 };
	double low;

	x = bounded(filter ? x - 0.5 : x);
	low = floor(x);
	taps.at[0] = fold((int64_t)low + offset, size, mode);
	if (filter) {
		taps.at[1] = fold((int64_t)low + 1 + offset, size, mode);
		taps.weight[1] = floor((x - low) * 256 + 0.5) / 256;
		taps.weight[0] = 1 - taps.weight[1];
		taps.count = 2;
	}
	return taps;
}

static bool is_real(const struct sg_texture *t)
{
	return t->format == SG_TEXEL_F16 || t->format == SG_TEXEL_F32 ||
	       (!t->as_integer && sg_texel_bytes(t->format) < 4);
}

static float from_srgb(float c)
{
	return c <= 0.04045f ? c / 12.92f : powf((c + 0.055f) / 1.055f, 2.4f);
}

static u32 component(const struct sg_texture *t, const char *p, unsigned channel)
{
	u32 word = 0;
	float f;

	memcpy(&word, p, sg_texel_bytes(t->format));
	switch (t->format) {
	case SG_TEXEL_S8: word = (u32)(s8)word; break;
	case SG_TEXEL_S16: word = (u32)(int16_t)word; break;
	case SG_TEXEL_F16: return sg_bits32(sg_f16_to_f32((uint16_t)word));
	}
	if (!is_real(t))
		return word;
	switch (t->format) {
	case SG_TEXEL_U8: f = (float)word / 255; break;
	case SG_TEXEL_U16: f = (float)word / 65535; break;
	case SG_TEXEL_S8: f = fmaxf((float)(s32)word / 127, -1); break;
	case SG_TEXEL_S16: f = fmaxf((float)(s32)word / 32767, -1); break;
	default: return word;
	}
	return sg_bits32(t->srgb && t->format == SG_TEXEL_U8 && channel < 3 ? from_srgb(f) : f);
}

void sg_texel_read(const struct sg_texture *t, const char *texel, uint32_t out[4])
{
	for (unsigned k = 0; k < 4; k++)
		out[k] = k < t->channels ? component(t, texel + k * sg_texel_bytes(t->format), k) : 0;
}

static void border(const struct sg_texture *t, uint32_t out[4])
{
	for (unsigned k = 0; k < 4; k++) {
		const float value = t->linear_memory || k >= t->channels ? 0 : t->border[k];

		out[k] = is_real(t) ? sg_bits32(value) : (u32)(int64_t)bounded(value);
	}
}

/* A slice is a layer or a place in depth. */
static void texel_at(const struct sg_texture *t, const char *memory, const struct sg_level *level, int64_t x, int64_t y,
		     int64_t slice, uint32_t out[4])
{
	const u64 bytes = (u64)sg_texel_bytes(t->format) * t->channels;

	if (x < 0 || y < 0 || slice < 0)
		border(t, out);
	else
		sg_texel_read(
			t, memory + level->offset + (u64)slice * level->slice + (u64)y * level->pitch + (u64)x * bytes,
			out);
}

static void place(const struct sg_texture *t, const struct sg_level *level, const struct sg_sample *s, bool filter,
		  struct taps taps[3])
{
	const u32 size[3] = { level->width, level->height, level->depth };

	for (unsigned axis = 0; axis < 3; axis++) {
		const unsigned mode = mode_of(t, s, axis);
		const double scale = t->normalised || s->geometry == SG_CUBE ? size[axis] : 1;

		if (axis > s->geometry % SG_CUBE + (s->geometry == SG_CUBE))
			taps[axis] = (struct taps){ .weight = { 1 }, .count = 1 };
		else if (s->real)
			taps[axis] = taps_at((double)s->at[axis] * scale, s->offset[axis], size[axis], mode, filter);
		else
			taps[axis] = (struct taps){ .at = { fold((int64_t)s->whole[axis] + s->offset[axis], size[axis],
								 mode) },
						    .weight = { 1 },
						    .count = 1 };
	}
}

/* Of one level, as floats or, unfiltered, as they are. */
static void level_at(const struct sg_texture *t, const char *memory, const struct sg_level *level,
		     const struct sg_sample *s, uint32_t out[4])
{
	const bool filter = t->filter && s->real && is_real(t) && !t->linear_memory;
	double sum[4] = { 0 };
	struct taps taps[3];

	place(t, level, s, filter, taps);
	if (!filter) {
		const int64_t slice = s->geometry == SG_3D ? taps[2].at[0] : s->layer;

		texel_at(t, memory, level, taps[0].at[0], taps[1].at[0], slice, out);
		return;
	}
	for (int k = 0; k < taps[0].count * taps[1].count * taps[2].count; k++) {
		const int x = k % 2, y = k / 2 % taps[1].count, z = k / 2 / taps[1].count;
		const double weight = taps[0].weight[x] * taps[1].weight[y] * taps[2].weight[z];
		uint32_t texel[4];

		if (weight == 0) /* nothing is read there, which may be no number */
			continue;
		texel_at(t, memory, level, taps[0].at[x], taps[1].at[y],
			 s->geometry == SG_3D ? taps[2].at[z] : s->layer, texel);
		for (int n = 0; n < 4; n++)
			sum[n] += weight * sg_from32(texel[n]);
	}
	for (int n = 0; n < 4; n++)
		out[n] = sg_bits32((float)sum[n]);
}

static double length(const float d[3], const struct sg_level *level, unsigned axes, bool scaled)
{
	const double x = (double)d[0] * (scaled ? level->width : 1);
	const double y = axes > 1 ? (double)d[1] * (scaled ? level->height : 1) : 0;
	const double z = axes > 2 ? (double)d[2] * (scaled ? level->depth : 1) : 0;

	return sqrt(x * x + y * y + z * z);
}

/* Which level, in fractions. */
static double detail(const struct sg_texture *t, const struct sg_sample *s)
{
	double level = s->detail == SG_DETAIL_LEVEL ? s->level : 0;

	if (s->detail == SG_DETAIL_GRADIENT) {
		const unsigned axes = s->geometry == SG_1D ? 1 : s->geometry == SG_2D ? 2 : 3;
		const double x = length(s->dx, t->level, axes, t->normalised);
		const double y = length(s->dy, t->level, axes, t->normalised);

		level = log2(fmax(x, y));
	}
	level = fmin(fmax(level + t->bias, t->min_level), t->max_level);
	return fmin(fmax(level, 0), t->levels - 1);
}

/* A direction becomes a face and a place on it; the layer, six times itself and the face. */
static struct sg_sample on_face(const struct sg_sample *s)
{
	const float x = s->at[0], y = s->at[1], z = s->at[2];
	const float ax = fabsf(x), ay = fabsf(y), az = fabsf(z);
	struct sg_sample flat = *s;
	float major, u, v;
	u32 face;

	if (ax >= ay && ax >= az) {
		face = x < 0, major = ax, u = x < 0 ? z : -z, v = -y;
	} else if (ay >= az) {
		face = 2 + (y < 0), major = ay, u = x, v = y < 0 ? -z : z;
	} else {
		face = 4 + (z < 0), major = az, u = z < 0 ? -x : x, v = -y;
	}
	flat.at[0] = (u / major + 1) / 2;
	flat.at[1] = (v / major + 1) / 2;
	flat.layer = 6 * s->layer + face;
	return flat;
}

/* The sample with a layer that is there. */
static struct sg_sample prepared(const struct sg_texture *t, const struct sg_sample *sample)
{
	const bool cube = sample->geometry == SG_CUBE;
	const u32 most = cube ? t->layers / 6 : t->layers;
	struct sg_sample s = *sample;

	s.layer = !most ? 0 : s.layer < most ? s.layer : most - 1;
	s = cube ? on_face(&s) : s;
	s.layer = s.layer < t->layers ? s.layer : t->layers - 1; /* of a texture that is no cube */
	return s;
}

void sg_texture_sample(const struct sg_texture *t, const char *memory, const struct sg_sample *sample, uint32_t out[4])
{
	const struct sg_sample s = prepared(t, sample);
	const double level = detail(t, &s);
	const double low = t->mip_filter ? floor(level) : floor(level + 0.5);
	const double weight = floor((level - low) * 256 + 0.5) / 256;
	uint32_t next[4];

	level_at(t, memory, &t->level[(u32)low], &s, out);
	if (!t->mip_filter || weight <= 0 || !is_real(t))
		return;
	level_at(t, memory, &t->level[(u32)low + 1], &s, next);
	for (int n = 0; n < 4; n++)
		out[n] = sg_bits32((float)((1 - weight) * sg_from32(out[n]) + weight * sg_from32(next[n])));
}

void sg_texture_gather(const struct sg_texture *t, const char *memory, const struct sg_sample *sample, unsigned channel,
		       uint32_t out[4])
{
	static const uint8_t order[4][2] = { { 0, 1 }, { 1, 1 }, { 1, 0 }, { 0, 0 } };
	const struct sg_sample s = prepared(t, sample);
	struct taps taps[3];
	uint32_t texel[4];

	place(t, t->level, &s, true, taps);
	for (int k = 0; k < 4; k++) {
		texel_at(t, memory, t->level, taps[0].at[order[k][0]], taps[1].at[order[k][1]], s.layer, texel);
		out[k] = texel[channel & 3];
	}
}
