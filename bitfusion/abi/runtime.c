/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's runtime gets one status of a launch that other callers do not get: a shape that suits no GPU is
 * cudaErrorInvalidConfiguration to it, a number that no CUresult has, where the driver API documents
 * CUDA_ERROR_INVALID_VALUE. The runtime passes on what it gets and checks nothing itself. It is known by the hidden
 * table that nobody else asks for: the library, or the program with the runtime inside, which did so.
 */
#define _GNU_SOURCE
#include "abi.h"

#include <dlfcn.h>
#include <stdatomic.h>

#define INVALID_CONFIGURATION ((CUresult)9)
#define MAX_RUNTIMES 16 /* a program may hold several versions; one too many gets the documented status */

static _Atomic(void *) runtimes[MAX_RUNTIMES]; /* where their files are mapped */

static void *file_of(const void *code)
{
	Dl_info info;

	return code && dladdr(code, &info) ? info.dli_fbase : NULL;
}

void abi_note_runtime(const void *caller)
{
	void *file = file_of(caller);

	for (int i = 0; i < MAX_RUNTIMES && file; i++) {
		void *known = NULL;

		if (atomic_compare_exchange_strong(&runtimes[i], &known, file) || known == file)
			return;
	}
}

CUresult abi_impossible_shape(const void *caller)
{
	void *file = file_of(caller);

	for (int i = 0; i < MAX_RUNTIMES && file; i++)
		if (atomic_load(&runtimes[i]) == file)
			return INVALID_CONFIGURATION;
	return CUDA_ERROR_INVALID_VALUE;
}
