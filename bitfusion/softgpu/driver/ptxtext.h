/* SPDX-License-Identifier: Apache-2.0
 *
 * PTX text without its meaning: where each function and variable begins and ends, and what a kernel needs of them.
 * Knows neither the driver nor the engine, so that it can be fuzzed alone.
 */
#ifndef SOFTGPU_PTXTEXT_H
#define SOFTGPU_PTXTEXT_H

#include <stddef.h>
#include <stdint.h>

enum ptx_kind { PTX_VARIABLE, PTX_FUNCTION, PTX_ALIAS, PTX_KERNEL };
enum { PTX_NONE = UINT32_MAX };

/* One directive of the module. Several may have one name: a prototype and its function. */
struct ptx_item {
	const char *begin, *name;
	uint32_t size, name_size;
	uint32_t line; /* 0: not counted yet */
	uint32_t twin; /* the next item of this name, or PTX_NONE */
	uint8_t kind, body, managed, is_extern, shared;
};

struct ptx_text {
	char *bytes; /* malloc'ed, with a NUL behind them */
	size_t size;
	size_t header; /* .version, .target, .address_size: what comes before the first item */
	struct ptx_item *items;
	uint32_t count, room;
	uint32_t *kernels, kernel_count; /* items: those with a body */
	char **names; /* of the kernels */
	char *name_bytes;
	uint32_t *table, mask; /* by name: the first of its items + 1 */
	uint64_t variable_bytes; /* of text */
	int indirect; /* has calls through registers */
	int managed; /* has managed variables */
};

/* Splits the text, which it owns from then on. NULL, the text not taken, where anything is not as expected: then the
 * front end must read all of it, and say what is wrong. */
struct ptx_text *ptx_scan(char *bytes, size_t size);
void ptx_free(struct ptx_text *text);

/* ptxnames.c, for ptx_scan alone: 0 where memory is out, or where the front end has something to complain of. */
int ptx_index_names(struct ptx_text *text);
int ptx_check_twins(const struct ptx_text *text);
int ptx_list_kernels(struct ptx_text *text);

/* The first item of this name, or PTX_NONE. */
uint32_t ptx_first(const struct ptx_text *text, const char *name, size_t size);
/* The kernel of this name as an index of kernels, or PTX_NONE. */
uint32_t ptx_find_kernel(const struct ptx_text *text, const char *name);
/* The variable in global or constant memory that this module defines, or PTX_NONE. */
uint32_t ptx_find_variable(const struct ptx_text *text, const char *name);

/* A module of its own of these items and of whatever they need, malloc'ed; NULL when out of memory. */
char *ptx_slice(struct ptx_text *text, const uint32_t *roots, uint32_t count, size_t *size);

struct ptx_parameter {
	uint32_t offset, size;
};
/* How the parameters of an item lie: their count, or -1 where only the front end can tell. parameters is malloc'ed. */
int ptx_parameters(const struct ptx_item *item, struct ptx_parameter **parameters);

#endif
