/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of a scanned text: which items have one, whether that may be, and which of them are kernels.
 */
#include "ptxtext.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash(const char *name, size_t size)
{
	uint32_t state = 2166136261u;
	for (size_t i = 0; i < size; i++)
		state = (state ^ (unsigned char)name[i]) * 16777619u;
	return state ^ state >> 15;
}

uint32_t ptx_first(const struct ptx_text *text, const char *name, size_t size)
{
	for (uint32_t at = hash(name, size) & text->mask; text->table[at]; at = (at + 1) & text->mask) {
		const struct ptx_item *item = &text->items[text->table[at] - 1];
		if (item->name_size == size && !memcmp(item->name, name, size))
			return text->table[at] - 1;
	}
	return PTX_NONE;
}

/* Items of one name are linked in their order. */
int ptx_index_names(struct ptx_text *text)
{
	uint32_t slots = 64;
	while (slots < 2 * text->count)
		slots *= 2;
	text->mask = slots - 1;
	text->table = calloc(slots, sizeof *text->table);
	if (!text->table)
		return 0;
	for (uint32_t i = text->count; i--;) {
		const struct ptx_item *item = &text->items[i];
		uint32_t at = hash(item->name, item->name_size) & text->mask;
		for (; text->table[at]; at = (at + 1) & text->mask) {
			const struct ptx_item *other = &text->items[text->table[at] - 1];
			if (other->name_size == item->name_size && !memcmp(other->name, item->name, item->name_size))
				break;
		}
		text->items[i].twin = text->table[at] ? text->table[at] - 1 : PTX_NONE;
		text->table[at] = i + 1;
	}
	return 1;
}

/* Two functions of one name, or a name for two things, are for the front end to complain of. */
int ptx_check_twins(const struct ptx_text *text)
{
	for (uint32_t i = 0; i < text->count; i++) {
		const struct ptx_item *item = &text->items[i];
		unsigned bodies = item->body, length = 0;
		for (uint32_t k = item->twin; k != PTX_NONE; k = text->items[k].twin) {
			const struct ptx_item *twin = &text->items[k];
			bodies += twin->body;
			if ((item->kind == PTX_VARIABLE) != (twin->kind == PTX_VARIABLE) || bodies > 1 || ++length > 16)
				return 0;
			if (item->kind == PTX_VARIABLE && !item->is_extern && !twin->is_extern)
				return 0;
		}
	}
	return 1;
}

int ptx_list_kernels(struct ptx_text *text)
{
	size_t bytes = 0;
	for (uint32_t i = 0; i < text->count; i++)
		if (text->items[i].kind == PTX_KERNEL && text->items[i].body) {
			text->kernel_count++;
			bytes += text->items[i].name_size + 1;
		}
	text->kernels = calloc((size_t)text->kernel_count + 1, sizeof *text->kernels);
	text->names = calloc((size_t)text->kernel_count + 1, sizeof *text->names);
	char *at = text->name_bytes = malloc(bytes + 1);
	if (!text->kernels || !text->names || !at)
		return 0;
	uint32_t k = 0;
	for (uint32_t i = 0; i < text->count; i++) {
		const struct ptx_item *item = &text->items[i];
		if (item->kind != PTX_KERNEL || !item->body)
			continue;
		text->kernels[k] = i;
		text->names[k++] = at;
		memcpy(at, item->name, item->name_size);
		at += item->name_size;
		*at++ = 0;
	}
	return 1;
}
