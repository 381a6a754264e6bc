/* SPDX-License-Identifier: Apache-2.0
 *
 * Variables of code, by name. One of the device's is memory like any other. A managed one is memory of both sides, whose
 * address the server's driver has chosen: the program gets pages at the same one.
 */
#define _GNU_SOURCE
#include "shared.h"

#include <sys/mman.h>

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

struct answer {
	CUdeviceptr address;
	size_t size;
};

/* Ranges of a variable, but for where they lie. A module ends with its context, a library does not. */
static struct bf_range managed_range(uint64_t parent, const struct answer *answer)
{
	return (struct bf_range){ .size = answer->size,
				  .context = BF_HANDLE_KIND(parent) == BF_MODULE ? bf_self.current : 0,
				  .device = bf_context_at(bf_self.current)->device,
				  .parent = parent,
				  .usable = true };
}

static CUresult add_range(const struct bf_range *range)
{
	CUresult status = bf_map_add(range);

	if (status)
		return status;
	status = bf_shared_touch(range->base);
	if (status)
		bf_map_remove(range->base, 1u << range->kind, NULL);
	return status;
}

static CUresult add_managed(uint64_t parent, const struct answer *answer)
{
	struct bf_range range = managed_range(parent, answer);

	range.base = answer->address;
	range.kind = BF_RANGE_MANAGED;
	range.reserved = true;
	return add_range(&range);
}

/* As memory that the program has registered: its address here means nothing to a kernel. */
static CUresult add_elsewhere(uint64_t parent, struct answer *answer)
{
	void *memory = mmap(NULL, answer->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct bf_range range = managed_range(parent, answer);
	CUresult status;

	if (memory == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	range.base = BF_ARG(memory);
	range.kind = BF_RANGE_REGISTERED;
	range.place = answer->address;
	status = add_range(&range);
	if (status)
		munmap(memory, answer->size);
	else
		answer->address = range.base;
	return status;
}

/* Programs that were compiled by nvcc do not look at the status, they use the memory: so there is some, and a line that
 * says what else may go wrong. */
static CUresult share_new(uint64_t parent, const char *name, struct answer *answer, bool elsewhere)
{
	uint32_t before = bf_self.current;
	uint64_t place = answer->address;
	CUresult status;

	bf_self.current = bf_context_any();
	status = add_managed(parent, answer);
	if (status == CUDA_ERROR_ALREADY_MAPPED) {
		bf_tell("the program has other memory where the managed variable %s is on the server, at %#llx: %s",
			name, (unsigned long long)place,
			elsewhere ? "kernels cannot follow pointers to it" : "refused");
		status = elsewhere ? add_elsewhere(parent, answer) : status;
	}
	if (status && status != CUDA_ERROR_ALREADY_MAPPED)
		bf_tell("the managed variable %s cannot be used: error %d", name, status);
	bf_self.current = before;
	return status;
}

static CUresult share(uint64_t parent, const char *name, struct answer *answer, bool elsewhere)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* two threads may ask for the same one */
	CUresult status = CUDA_SUCCESS;
	uint64_t known;

	pthread_mutex_lock(&lock);
	known = bf_shared_variable(parent, answer->address);
	if (known)
		answer->address = known;
	else if (answer->size)
		status = share_new(parent, name, answer, elsewhere);
	pthread_mutex_unlock(&lock);
	return status;
}

void bf_variables_drop(uint64_t parent)
{
	if (bf_shared_in_use())
		bf_shared_drop_variables(parent);
	bf_map_remove_parent(parent);
}

/* ------------------------------------------------------------------ by name */

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
static CUresult found(uint64_t parent, const char *name, struct answer *answer)
{
	uint64_t managed = 0;
	struct bf_range range;

	if (bf_map_find(answer->address, &range) && range.base == answer->address && range.parent == parent)
		return CUDA_SUCCESS;
	BF_CALL(cuPointerGetAttribute, BF_ARG(&managed), CU_POINTER_ATTRIBUTE_IS_MANAGED, answer->address);
	if (managed)
		return share(parent, name, answer, false);
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
		status = share(BF_ARG(library), name, &answer, true);
	return status ? status : give(&answer, dptr, bytes);
}
