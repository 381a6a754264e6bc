/* SPDX-License-Identifier: Apache-2.0
 *
 * Variables of code, by name. One of the device's is memory like any other. A managed one is memory of both sides, whose
 * address the server's driver has chosen: the program gets pages at the same one.
 */
#define _GNU_SOURCE
#include "shared.h"

/* The map must know it, and it may be asked for many times. */
static CUresult add_global(uint64_t parent, CUdeviceptr address, size_t size)
{
	struct bf_range range = { .base = address,
				  .size = size ? size : 1,
				  .kind = BF_RANGE_GLOBAL,
				  .context = bf_self.current,
				  .device = bf_context_at(bf_self.current)->device,
				  .parent = parent };

	bf_map_add(&range); /* fails when it is there already, which is as good */
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ managed ones */

/* A module ends with its context, a library does not. */
static CUresult add_managed(uint64_t parent, CUdeviceptr address, size_t size)
{
	uint32_t before = bf_self.current, context = bf_context_any();
	struct bf_range range = { .base = address,
				  .size = size,
				  .kind = BF_RANGE_MANAGED,
				  .context = BF_HANDLE_KIND(parent) == BF_MODULE ? context : 0,
				  .device = bf_context_at(context)->device,
				  .parent = parent,
				  .reserved = true,
				  .usable = true };
	CUresult status = bf_map_add(&range);

	if (status)
		return status;
	bf_self.current = context;
	status = bf_shared_touch(address);
	bf_self.current = before;
	if (status)
		bf_map_remove(address, 1u << BF_RANGE_MANAGED, NULL);
	return status;
}

/* Programs that were compiled by nvcc do not look at the status, they only use the memory: so all are told. */
static CUresult share(uint64_t parent, const char *name, CUdeviceptr address, size_t size)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* two threads may ask for the same one */
	CUresult status = CUDA_SUCCESS;
	struct bf_range range;
	bool known;

	pthread_mutex_lock(&lock);
	known = bf_map_find(address, &range) && range.base == address && range.parent == parent;
	if (!known && size)
		status = add_managed(parent, address, size);
	pthread_mutex_unlock(&lock);
	if (status == CUDA_ERROR_ALREADY_MAPPED)
		bf_tell("the managed variable %s cannot be used: the program has other memory at its address, %#llx",
			name, (unsigned long long)address);
	else if (status)
		bf_tell("the managed variable %s cannot be used: error %d", name, status);
	return status;
}

void bf_variables_drop(uint64_t parent)
{
	if (bf_shared_in_use())
		bf_shared_drop_variables(parent);
	bf_map_remove_parent(parent);
}

/* ------------------------------------------------------------------ by name */

struct answer {
	CUdeviceptr address;
	size_t size;
};

static CUresult give(const struct answer *answer, CUdeviceptr *dptr, size_t *bytes)
{
	if (dptr)
		*dptr = answer->address;
	if (bytes)
		*bytes = answer->size;
	return CUDA_SUCCESS;
}

static CUresult check(enum bf_handle_kind kind, uint64_t parent, bool named)
{
	CUresult status = bf_check();

	if (!status && !bf_handle_find(kind, parent))
		status = CUDA_ERROR_INVALID_HANDLE;
	return !status && !named ? CUDA_ERROR_INVALID_VALUE : status;
}

/* Asked once for each: only the server's driver knows. */
static CUresult found(uint64_t parent, const char *name, const struct answer *answer)
{
	uint64_t managed = 0;
	struct bf_range range;

	if (bf_map_find(answer->address, &range) && range.base == answer->address && range.parent == parent)
		return CUDA_SUCCESS;
	BF_CALL(cuPointerGetAttribute, BF_ARG(&managed), CU_POINTER_ATTRIBUTE_IS_MANAGED, answer->address);
	if (managed)
		return share(parent, name, answer->address, answer->size);
	return add_global(parent, answer->address, answer->size);
}

static CUresult get_global(unsigned call, uint64_t parent, const char *name, CUdeviceptr *dptr, size_t *bytes)
{
	struct answer answer = { 0 };
	CUresult status = bf_call(
		call, (const uint64_t[]){ BF_ARG(&answer.address), BF_ARG(&answer.size), parent, BF_ARG(name) });

	if (!status)
		status = found(parent, name, &answer);
	return status ? status : give(&answer, dptr, bytes);
}

BF_EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (!status)
		status = check(BF_MODULE, BF_ARG(hmod), name && (dptr || bytes));
	return status ? status : get_global(BF_cuModuleGetGlobal_v2, BF_ARG(hmod), name, dptr, bytes);
}

BF_EXPORT CUresult cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	CUresult status = check(BF_LIBRARY, BF_ARG(library), true);

	if (!status)
		status = bf_context_check();
	if (!status)
		status = check(BF_LIBRARY, BF_ARG(library), name && (dptr || bytes));
	return status ? status : get_global(BF_cuLibraryGetGlobal, BF_ARG(library), name, dptr, bytes);
}

BF_EXPORT CUresult cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	CUresult status = check(BF_LIBRARY, BF_ARG(library), name && (dptr || bytes));
	struct answer answer = { 0 };

	if (status)
		return status;
	status = BF_CALL(cuLibraryGetManaged, BF_ARG(&answer.address), BF_ARG(&answer.size), BF_ARG(library),
			 BF_ARG(name));
	if (!status)
		status = share(BF_ARG(library), name, answer.address, answer.size);
	return status ? status : give(&answer, dptr, bytes);
}
