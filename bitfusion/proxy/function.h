/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions, kernels and their parameters; arrays.
 */
#ifndef BITFUSION_PROXY_FUNCTION_H
#define BITFUSION_PROXY_FUNCTION_H

#include "handle.h"

enum { BF_PROVED_SHAPES = 4 };

struct bf_proof {
	_Atomic uint64_t block;                   /* the one block shape, 0: none yet, BF_ANY_BLOCK: several */
	_Atomic uint64_t shape[BF_PROVED_SHAPES]; /* of cooperative launches and clusters: digests of all that counts */
	_Atomic uint32_t next;
};

struct bf_function {
	struct bf_entry entry;
	uint32_t parameter_count;
	uint32_t parameters_size;
	const struct bf_parameter *parameters;
	_Atomic int32_t attribute[BF_FUNCTION_ATTRIBUTES];
	_Atomic uint32_t attribute_valid;
	_Atomic bool loaded; /* was used once, and the server said that this went well */
	struct bf_proof proof; /* shapes in which the driver has launched it */
	CUdevice device; /* that the attributes are of */
	uint64_t parent; /* module or library */
	uint64_t function; /* of a kernel: its CUfunction, once asked for */
	char *name;
};

/* Levels of a mipmapped array are arrays, too. */
struct bf_array {
	struct bf_entry entry;
	uint64_t parent; /* of a level: the mipmapped array that it goes with */
	CUDA_ARRAY3D_DESCRIPTOR shape;
};

/* Is there such an array, and does the box, x in bytes, lie in it? */
CUresult bf_array_check(CUarray array, const size_t offset[3], const size_t size[3]);
void bf_texture_end_context(uint32_t context);

struct bf_parameter {
	uint32_t offset, size;
};

/* Else the server's driver could not, or was not asked to, load it: nobody knows yet whether it can. */
static inline bool bf_function_is_loaded(struct bf_function *function)
{
	return atomic_load_explicit(&function->attribute_valid, memory_order_relaxed) ||
	       atomic_load_explicit(&function->loaded, memory_order_relaxed);
}

/* A function, or a kernel where a function is declared: the runtime passes either. */
static inline struct bf_function *bf_function_find(CUfunction function)
{
	uint64_t handle = (uint64_t)(uintptr_t)function;
	unsigned kind = BF_HANDLE_KIND(handle);

	if (BF_UNLIKELY(kind != BF_FUNCTION && kind != BF_KERNEL))
		return NULL;
	return bf_handle_find((enum bf_handle_kind)kind, handle);
}
/* Of a launch's or a node's `extra`; what it does not say stays. */
CUresult bf_extra_read(void **extra, const void **values, size_t *size);
CUresult bf_function_get(uint64_t parent, enum bf_handle_kind kind, const char *name, uint64_t *handle);
/* The first of all that a module or library has, at most `capacity`. */
CUresult bf_function_list(uint64_t parent, enum bf_handle_kind kind, uint64_t *handles, unsigned capacity,
			  unsigned count);
void bf_function_free_parent(uint64_t parent);

#endif
