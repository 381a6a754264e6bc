/* SPDX-License-Identifier: Apache-2.0
 *
 * NVRTC makes a cubin when it is asked for a real architecture, and the PTX that it came from as well. A program that fetches the
 * cubin for a software GPU is given the PTX. The architecture of the software GPU is among those that NVRTC says it knows; when it
 * is asked for, the newest one that it does know is taken. Nothing else of NVRTC is touched.
 */
#include "arch.h"
#include "dlsym.h"

#include "../compute.h"

#include <stddef.h>
#include <string.h>

enum { OUT_OF_MEMORY = 1, MOST_ARCHS = 64 };
enum { OUR_ARCH = 10 * COMPUTE_MAJOR + COMPUTE_MINOR };

typedef struct program *program_handle;

/* All of one library: the first that anyone asked. */
static struct {
	int (*compile)(program_handle, int, const char *const *);
	int (*get_cubin_size)(program_handle, size_t *);
	int (*get_cubin)(program_handle, char *);
	int (*get_ptx_size)(program_handle, size_t *);
	int (*get_ptx)(program_handle, char *);
	int (*get_arch_count)(int *);
	int (*get_archs)(int *);
} real;

/* Those that NVRTC knows; 0 when it does not say. */
static int read_archs(int archs[MOST_ARCHS])
{
	int count;

	if (!real.get_arch_count || !real.get_archs || real.get_arch_count(&count) || count < 1 || count >= MOST_ARCHS)
		return 0;
	return real.get_archs(archs) ? 0 : count;
}

static int has_ours(const int *archs, int count)
{
	while (count--)
		if (archs[count] == OUR_ARCH)
			return 1;
	return 0;
}

static int get_arch_count(int *count)
{
	int archs[MOST_ARCHS], known = read_archs(archs);

	if (!count || !known)
		return real.get_arch_count(count);
	*count = known + !has_ours(archs, known);
	return 0;
}

static int get_archs(int *list)
{
	int archs[MOST_ARCHS], known = read_archs(archs);

	if (!list || !known)
		return real.get_archs(list);
	if (!has_ours(archs, known))
		archs[known++] = OUR_ARCH; /* they are in ascending order */
	memcpy(list, archs, (size_t)known * sizeof *archs);
	return 0;
}

static int compile(program_handle program, int option_count, const char *const *options)
{
	int archs[MOST_ARCHS], known = read_archs(archs), exchanged, status;
	const char **copy;

	if (!known || option_count <= 0 || !options)
		return real.compile(program, option_count, options);
	copy = arch_options(option_count, options, archs[known - 1], &exchanged);
	if (!copy)
		return OUT_OF_MEMORY;
	status = real.compile(program, option_count, copy);
	arch_options_free(copy);
	return status;
}

/* Programs compiled for link-time optimisation have no PTX; then the real answer is the only one. */
static int has_ptx(program_handle program, size_t *size)
{
	return real.get_ptx && real.get_ptx_size && !real.get_ptx_size(program, size) && *size > 1;
}

static int get_cubin_size(program_handle program, size_t *size)
{
	if (size && has_ptx(program, size))
		return 0;
	return real.get_cubin_size(program, size);
}

static int get_cubin(program_handle program, char *cubin)
{
	size_t size;

	return has_ptx(program, &size) ? real.get_ptx(program, cubin) : real.get_cubin(program, cubin);
}

void *nvrtc_steer(void *handle, const char *name, dlsym_function find)
{
	static const struct {
		const char *name;
		void *ours;
		void **real;
	} functions[] = {
		{ "nvrtcCompileProgram", (void *)compile, (void **)&real.compile },
		{ "nvrtcGetCUBINSize", (void *)get_cubin_size, (void **)&real.get_cubin_size },
		{ "nvrtcGetCUBIN", (void *)get_cubin, (void **)&real.get_cubin },
		{ "nvrtcGetNumSupportedArchs", (void *)get_arch_count, (void **)&real.get_arch_count },
		{ "nvrtcGetSupportedArchs", (void *)get_archs, (void **)&real.get_archs },
		{ "nvrtcGetPTXSize", NULL, (void **)&real.get_ptx_size },
		{ "nvrtcGetPTX", NULL, (void **)&real.get_ptx },
	};
	enum { COUNT = sizeof functions / sizeof *functions };
	void *found, *ours = NULL;

	for (int i = 0; i < COUNT && !ours; i++)
		if (!strcmp(name, functions[i].name))
			ours = functions[i].ours;
	if (!ours || !find(handle, name))
		return NULL;
	for (int i = 0; i < COUNT; i++) {
		found = find(handle, functions[i].name);
		if (!__atomic_load_n(functions[i].real, __ATOMIC_ACQUIRE))
			__atomic_store_n(functions[i].real, found, __ATOMIC_RELEASE);
	}
	return ours;
}
