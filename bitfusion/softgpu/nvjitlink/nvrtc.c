/* SPDX-License-Identifier: Apache-2.0
 *
 * NVRTC makes a cubin when it is asked for a real architecture, and the PTX that it came from as well. A program that fetches the
 * cubin for a software GPU is given the PTX; nothing else of NVRTC is touched. Python bindings find these two names with
 * dlsym(RTLD_DEFAULT), as with nvJitLink; libraries linked against NVRTC use versioned names and still get their cubin.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { NVRTC_INTERNAL_ERROR = 11 };

typedef struct program *program_handle;
typedef int (*size_function)(program_handle, size_t *);
typedef int (*get_function)(program_handle, char *);

static int find_nvrtc(struct dl_phdr_info *info, size_t size, void *found)
{
	if (!info->dlpi_name || !strstr(info->dlpi_name, "/libnvrtc.so"))
		return 0;
	*(void **)found = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
	return *(void **)found != NULL;
}

/* The program was made by the real library, so it is there. */
static void *real_function(const char *name)
{
	void *library = NULL;

	dl_iterate_phdr(find_nvrtc, &library);
	return library ? dlsym(library, name) : NULL;
}

/* Programs compiled for link-time optimisation have no PTX; then the real answer is the only one. */
static int has_ptx(program_handle program, size_t *size)
{
	size_function get_size = (size_function)(uintptr_t)real_function("nvrtcGetPTXSize");

	return get_size && !get_size(program, size) && *size > 1;
}

EXPORT int nvrtcGetCUBINSize(program_handle program, size_t *size)
{
	size_function real = (size_function)(uintptr_t)real_function("nvrtcGetCUBINSize");

	if (size && has_ptx(program, size))
		return 0;
	return real ? real(program, size) : NVRTC_INTERNAL_ERROR;
}

EXPORT int nvrtcGetCUBIN(program_handle program, char *cubin)
{
	size_t size;
	int ptx = has_ptx(program, &size);
	get_function real = (get_function)(uintptr_t)real_function(ptx ? "nvrtcGetPTX" : "nvrtcGetCUBIN");

	return real ? real(program, cubin) : NVRTC_INTERNAL_ERROR;
}
