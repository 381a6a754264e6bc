/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGetProcAddress: from a base name, a version and flags to one ABI of one function.
 */
#include "abi.h"

#include <string.h>

/* The first symbol whose name is not less than `name`. */
static unsigned first_symbol(const char *name)
{
	unsigned low = 0, high = abi_symbol_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (strcmp(abi_symbols[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The newest ABI of that flavour that existed in `version`; *known says whether the name exists at all.
 * An older ABI never stands in for one that is missing: its arguments differ. */
static const struct abi_symbol *newest(const char *name, int version, int per_thread, int *known)
{
	const struct abi_symbol *found = NULL;

	for (unsigned i = first_symbol(name); i < abi_symbol_count; i++) {
		const struct abi_symbol *symbol = &abi_symbols[i];

		if (strcmp(symbol->name, name) != 0)
			break;
		*known = 1;
		if (symbol->per_thread == per_thread && symbol->version <= version)
			found = symbol;
	}
	return found;
}

static void *find(const char *name, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
	const struct abi_symbol *symbol = NULL;
	int known = 0;

	if (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
		symbol = newest(name, version, 1, &known);
	if (!symbol)
		symbol = newest(name, version, 0, &known);
	if (symbol && symbol->function)
		*status = CU_GET_PROC_ADDRESS_SUCCESS;
	else if (known && !symbol)
		*status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
	else
		*status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	return symbol ? symbol->function : NULL;
}

CUresult abi_get_proc_address(const char *name, void **function, int version, cuuint64_t flags,
			      CUdriverProcAddressQueryResult *status, int driver_version)
{
	const cuuint64_t flavours = CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
	CUdriverProcAddressQueryResult unused;

	if (!status)
		status = &unused;
	*status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	if (!function)
		return CUDA_ERROR_INVALID_VALUE;
	*function = NULL;
	if (!name || version > driver_version || (flags & ~flavours) || flags == flavours)
		return CUDA_ERROR_INVALID_VALUE;
	*function = find(name, version, flags, status);
	return CUDA_SUCCESS;
}

/* The ABI before 12.0 has no status, so that a missing function is an error. */
CUresult abi_get_proc_address_v1(const char *name, void **function, int version, cuuint64_t flags, int driver_version)
{
	CUresult result = abi_get_proc_address(name, function, version, flags, NULL, driver_version);

	return result == CUDA_SUCCESS && !*function ? CUDA_ERROR_NOT_FOUND : result;
}
