/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensor copies: a box of a tensor in global memory, and its rows one behind the other in shared memory. What lies
 * outside of the tensor is filled when it is loaded, and not written when it is stored.
 */
#include "bulk.h"
#include "run.h"

struct copy {
	struct sg_warp *w;
	const struct sg_op *i;
	uint32_t lane;
	const struct sg_tensor *tensor;
	struct sg_tensor_map own; /* a kernel may change the one in memory */
	const struct sg_tensor_map *map;
	sg_reduction reduction;
	char *to; /* the copy in shared memory, its first block's */
	uint64_t place; /* its offset in the block's shared memory: swizzling goes by it */
	uint32_t element, row; /* bytes */
	uint32_t pitch;
	uint64_t rows; /* done so far */
};

static bool fail(const struct copy *c, int error, const char *why)
{
	sg_fault(c->w, c->i, 1u << c->lane, error, "%s", why);
	return false;
}

/* Where the 16 bytes at this offset of the shared memory are. */
static uint64_t swizzled(unsigned swizzle, uint64_t at)
{
	switch (swizzle) {
	case SG_SWIZZLE_32: return at ^ (at >> 3 & 0x10);
	case SG_SWIZZLE_64: return at ^ (at >> 3 & 0x30);
	case SG_SWIZZLE_128: return at ^ (at >> 3 & 0x70);
	case SG_SWIZZLE_128_ATOM_32: return at ^ (at >> 2 & 0x60);
	case SG_SWIZZLE_128_ATOM_64: return at ^ (at >> 1 & 0x40);
	}
	return at;
}

static char *shared_at(const struct copy *c, uint64_t offset)
{
	return c->to - c->place + swizzled(c->map->swizzle, c->place + offset);
}

static void fill(const struct copy *c, char *to)
{
	static const uint64_t nan[SG_ELEMENTS] = {
		[SG_ELEMENT_F16] = SG_OUTSIDE,        [SG_ELEMENT_BF16] = SG_OUTSIDE,
		[SG_ELEMENT_F32] = 0x7fffffff,        [SG_ELEMENT_F32_FTZ] = 0x7fffffff,
		[SG_ELEMENT_TF32] = 0x7fffffff,       [SG_ELEMENT_TF32_FTZ] = 0x7fffffff,
		[SG_ELEMENT_F64] = 0x7fffffffffffffff
	};
	const uint64_t value = c->map->fill ? nan[c->map->type] : 0;

	memcpy(to, &value, c->element);
}

/* Some types are converted on their way into shared memory. */
static void load(const struct copy *c, char *to, const char *from)
{
	const unsigned type = c->map->type;
	u32 bits;

	if (type < SG_ELEMENT_F32_FTZ) {
		memcpy(to, from, c->element);
		return;
	}
	memcpy(&bits, from, 4);
	if (type != SG_ELEMENT_TF32)
		bits = sg_bits32(sg_ftz(sg_from32(bits)));
	if (type != SG_ELEMENT_F32_FTZ)
		bits = sg_f32_to_tf32_rna(sg_from32(bits));
	memcpy(to, &bits, 4);
}

static void move_element(const struct copy *c, char *shared, char *global)
{
	switch (c->tensor->way) {
	case SG_TENSOR_LOAD:
		if (global)
			load(c, shared, global);
		else
			fill(c, shared);
		break;
	case SG_TENSOR_STORE:
		if (global)
			memcpy(global, shared, c->element);
		break;
	default:
		if (global)
			c->reduction(global, shared, 1);
	}
}

/* One row: consecutive elements of dimension 0 at these coordinates. */
static bool move_row(struct copy *c, const int64_t *at)
{
	const struct sg_tensor_map *map = c->map;
	const int64_t width = (int64_t)map->dims[0] + 1, count = c->row / c->element;
	int64_t first = at[0] < 0 ? -at[0] : 0, end = width - at[0] < count ? width - at[0] : count;
	uint64_t address = map->address;
	char *global = NULL;

	for (unsigned d = 1; d < map->rank; d++) {
		if (at[d] < 0 || at[d] > (int64_t)map->dims[d])
			end = 0;
		address += (uint64_t)at[d] * map->strides[d - 1];
	}
	if (first < end) {
		address += (uint64_t)(at[0] + first) * c->element;
		global = sg_host(c->w, c->lane, address, (uint64_t)(end - first) * c->element);
		if (!global || sg_shared_owner(c->w->block, global)) {
			sg_fault(c->w, c->i, 1u << c->lane, SG_ILLEGAL_ADDRESS,
				 "no global memory at address 0x%llx of the tensor", (unsigned long long)address);
			return false;
		}
	}
	for (int64_t k = 0; k < count; k++) {
		const uint64_t offset = c->rows * c->pitch + (uint64_t)k * c->element;
		const bool inside = k >= first && k < end;

		move_element(c, shared_at(c, offset), inside ? global + (k - first) * c->element : NULL);
	}
	c->rows++;
	return true;
}

static bool move_tile(struct copy *c, int64_t *at, unsigned dimension)
{
	const struct sg_tensor_map *map = c->map;
	const int64_t start = at[dimension];

	if (!dimension)
		return move_row(c, at);
	for (int64_t k = 0; k < map->box[dimension]; k += map->steps[dimension]) {
		at[dimension] = start + k;
		if (!move_tile(c, at, dimension - 1))
			return false;
	}
	at[dimension] = start;
	return true;
}

/* Pixels of a bounding box, one after the other, from where the coordinates say; the offsets are added to each. */
static bool move_pixels(struct copy *c, int64_t *at)
{
	const struct sg_tensor_map *map = c->map;
	const unsigned spatial = map->rank - 2u;

	for (uint32_t n = 0; n < map->pixels; n++) {
		int64_t read[SG_TENSOR_RANK];
		unsigned d = 0;

		memcpy(read, at, sizeof(read));
		for (unsigned k = 0; k < spatial; k++)
			read[1 + k] += c->tensor->offset[k];
		if (!move_row(c, read))
			return false;
		for (; d < spatial; d++) {
			at[1 + d] += map->steps[1 + d];
			if (at[1 + d] <= (int64_t)map->dims[1 + d] + map->upper[d])
				break;
			at[1 + d] = map->lower[d];
		}
		at[map->rank - 1] += d == spatial;
	}
	return true;
}

/* Four rows of a matrix, each by its number. */
static bool move_rows(struct copy *c)
{
	for (int k = 0; k < 4; k++) {
		int64_t at[SG_TENSOR_RANK] = { c->tensor->at[0], c->tensor->at[1 + k] };

		if (!move_row(c, at))
			return false;
	}
	return true;
}

static uint64_t row_count(const struct copy *c)
{
	uint64_t rows = 1;

	if (c->tensor->mode == SG_TENSOR_ROWS)
		return 4;
	if (c->tensor->mode == SG_TENSOR_IM2COL)
		return c->map->pixels;
	for (unsigned d = 1; d < c->map->rank; d++)
		rows *= (c->map->box[d] + c->map->steps[d] - 1u) / c->map->steps[d];
	return rows;
}

/* It lies in memory that a kernel may write to. */
static bool is_sound(const struct sg_tensor_map *map)
{
	bool sound = map->magic == SG_TENSOR_MAP_MAGIC && map->swizzle < SG_SWIZZLES && map->channels <= 256 &&
		     map->pixels <= 1024 && map->address % 16 == 0;

	for (unsigned d = 0; d < SG_TENSOR_RANK; d++)
		sound = sound && map->steps[d] && map->box[d] <= 256 && (!d || map->strides[d - 1] % 16 == 0);
	return sound;
}

static bool good_map(struct copy *c)
{
	const struct sg_tensor *tensor = c->tensor;
	const struct sg_tensor_map *map = &c->own;
	const char *host = sg_host(c->w, c->lane, tensor->map, 128);

	if (!host)
		return fail(c, SG_ILLEGAL_ADDRESS, "no tensor map at its address");
	memcpy(&c->own, host, sizeof(c->own));
	c->map = map;
	if (!is_sound(map))
		return fail(c, SG_LAUNCH_FAILED, "this is not a tensor map of the software GPU");
	if (map->rank != tensor->rank || !map->rank || map->rank > SG_TENSOR_RANK || map->type >= SG_ELEMENTS)
		return fail(c, SG_LAUNCH_FAILED, "the tensor map has another number of dimensions");
	if (map->im2col != (tensor->mode == SG_TENSOR_IM2COL) || (map->im2col && map->rank < 3))
		return fail(c, SG_LAUNCH_FAILED, "the tensor map is of the other mode (tile or im2col)");
	if (tensor->way != SG_TENSOR_REDUCE)
		return true;
	c->reduction = sg_reduction_of(tensor->verb, map->type);
	return c->reduction || fail(c, SG_ILLEGAL_INSTRUCTION, "the tensor's type has no such reduction");
}

bool sg_tensor_copy(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const struct sg_tensor *tensor)
{
	struct copy c = { .w = w, .i = i, .lane = lane, .tensor = tensor };
	struct sg_targets targets = { .count = 1 };
	int64_t at[SG_TENSOR_RANK];
	struct sg_block *owner;
	uint64_t bytes;

	if (!good_map(&c))
		return false;
	c.element = sg_element_bytes(c.map->type);
	c.row = c.element * (tensor->mode == SG_TENSOR_IM2COL ? c.map->channels : c.map->box[0]);
	c.pitch = c.row > sg_swizzle_span(c.map->swizzle) ? c.row : sg_swizzle_span(c.map->swizzle);
	bytes = row_count(&c) * c.pitch;
	if (c.map->swizzle)
		bytes = (bytes + 127) / 128 * 128; /* whole rows: their parts change places */
	c.to = sg_host(w, lane, tensor->shared, bytes);
	owner = c.to ? sg_shared_owner(w->block, c.to) : NULL;
	if (!owner)
		return fail(&c, SG_ILLEGAL_ADDRESS, "the box does not fit in shared memory at its address");
	if (tensor->shared % 128)
		return fail(&c, SG_MISALIGNED_ADDRESS, "a tensor copy's shared address is not aligned to 128");
	targets.to[0] = c.to;
	if (tensor->barrier && !sg_bulk_targets(w, i, lane, c.to, *tensor->barrier, tensor->mask, &targets))
		return false;
	c.place = (uint64_t)(c.to - owner->shared);
	for (uint32_t k = 0; k < targets.count; k++) {
		c.to = targets.to[k];
		c.rows = 0;
		memcpy(at, tensor->at, sizeof(at));
		if (!(tensor->mode == SG_TENSOR_TILE   ? move_tile(&c, at, c.map->rank - 1u)
		      : tensor->mode == SG_TENSOR_ROWS ? move_rows(&c)
						       : move_pixels(&c, at)))
			return false;
		if (tensor->barrier && !sg_mbarrier_bytes(w, i, lane, targets.word[k], -(int64_t)(c.rows * c.row)))
			return false;
	}
	return true;
}
