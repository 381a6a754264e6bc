/* SPDX-License-Identifier: Apache-2.0
 *
 * NVRTC makes a cubin when it is asked for a real architecture, and the PTX that it came from as well. A program that fetches the
 * cubin for a software GPU is given the PTX. The architecture of the software GPU is among those that NVRTC says it knows; when it
 * is asked for, the newest one that it does know is taken. Nothing else of NVRTC is touched.
 *
 * Functions that stand in front are told apart by NVRTC's major version, so that a process may have one of each.
 */
#include "arch.h"
#include "dlsym.h"
#include "loaded.h"

#include "../compute.h"

#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { OUT_OF_MEMORY = 1, INTERNAL_ERROR = 11, MOST_ARCHS = 64 };
enum { OUR_ARCH = 10 * COMPUTE_MAJOR + COMPUTE_MINOR };

typedef struct program *program_handle;

struct nvrtc {
	int (*compile)(program_handle, int, const char *const *);
	int (*get_cubin_size)(program_handle, size_t *);
	int (*get_cubin)(program_handle, char *);
	int (*get_ptx_size)(program_handle, size_t *);
	int (*get_ptx)(program_handle, char *);
	int (*get_arch_count)(int *);
	int (*get_archs)(int *);
};

/* Those that NVRTC knows; 0 when it does not say. */
static int read_archs(const struct nvrtc *real, int archs[MOST_ARCHS])
{
	int count;

	if (!real->get_arch_count || !real->get_archs || real->get_arch_count(&count) || count < 1 ||
	    count >= MOST_ARCHS)
		return 0;
	return real->get_archs(archs) ? 0 : count;
}

static int has_ours(const int *archs, int count)
{
	while (count--)
		if (archs[count] == OUR_ARCH)
			return 1;
	return 0;
}

static int get_arch_count(const struct nvrtc *real, int *count)
{
	int archs[MOST_ARCHS], known = read_archs(real, archs);

	if (!count || !known)
		return real->get_arch_count(count);
	*count = known + !has_ours(archs, known);
	return 0;
}

static int get_archs(const struct nvrtc *real, int *list)
{
	int archs[MOST_ARCHS], known = read_archs(real, archs);

	if (!list || !known)
		return real->get_archs(list);
	if (!has_ours(archs, known))
		archs[known++] = OUR_ARCH; /* they are in ascending order */
	memcpy(list, archs, (size_t)known * sizeof *archs);
	return 0;
}

static int compile(const struct nvrtc *real, program_handle program, int option_count, const char *const *options)
{
	int archs[MOST_ARCHS], known = read_archs(real, archs), exchanged, status;
	const char **copy;

	if (!known || option_count <= 0 || !options)
		return real->compile(program, option_count, options);
	copy = arch_options(option_count, options, archs[known - 1], &exchanged);
	if (!copy)
		return OUT_OF_MEMORY;
	status = real->compile(program, option_count, copy);
	arch_options_free(copy);
	return status;
}

/* Programs compiled for link-time optimisation have no PTX; then the real answer is the only one. */
static int has_ptx(const struct nvrtc *real, program_handle program, size_t *size)
{
	return real->get_ptx && real->get_ptx_size && !real->get_ptx_size(program, size) && *size > 1;
}

static int get_cubin_size(const struct nvrtc *real, program_handle program, size_t *size)
{
	if (size && has_ptx(real, program, size))
		return 0;
	return real->get_cubin_size(program, size);
}

static int get_cubin(const struct nvrtc *real, program_handle program, char *cubin)
{
	size_t size;

	return has_ptx(real, program, &size) ? real->get_ptx(program, cubin) : real->get_cubin(program, cubin);
}

static const struct {
	const char *name;
	size_t offset;
} functions[] = {
	{ "nvrtcCompileProgram", offsetof(struct nvrtc, compile) },
	{ "nvrtcGetCUBINSize", offsetof(struct nvrtc, get_cubin_size) },
	{ "nvrtcGetCUBIN", offsetof(struct nvrtc, get_cubin) },
	{ "nvrtcGetNumSupportedArchs", offsetof(struct nvrtc, get_arch_count) },
	{ "nvrtcGetSupportedArchs", offsetof(struct nvrtc, get_archs) },
	{ "nvrtcGetPTXSize", offsetof(struct nvrtc, get_ptx_size) },
	{ "nvrtcGetPTX", offsetof(struct nvrtc, get_ptx) },
};

/* CUDA 11's, 12's and 13's: of each the first that anyone asked. */
enum { OLDER, OF_12, OF_13, LIBRARIES };
static struct nvrtc libraries[LIBRARIES];

static void learn(struct nvrtc *real, void *handle, dlsym_function find)
{
	for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
		void **place = (void **)((char *)real + functions[i].offset);

		if (!__atomic_load_n(place, __ATOMIC_ACQUIRE))
			__atomic_store_n(place, find(handle, functions[i].name), __ATOMIC_RELEASE);
	}
}

/* Who was given our function by dlsym has had it learned; who is linked against the library has loaded it. */
static const struct nvrtc *real_of(int which)
{
	static const char *const versions[LIBRARIES] = { [OF_12] = "libnvrtc.so.12", [OF_13] = "libnvrtc.so.13" };
	struct nvrtc *real = libraries + which;
	void *library = NULL;

	if (__atomic_load_n(&real->get_ptx, __ATOMIC_ACQUIRE)) /* the last that is learned */
		return real;
	if (versions[which])
		library = loaded_library("libnvrtc", "nvrtcCompileProgram", versions[which]);
	if (library)
		learn(real, library, real_dlsym());
	return __atomic_load_n(&real->compile, __ATOMIC_ACQUIRE) ? real : NULL;
}

/* One function for each library, with its version for what is linked against it, and all of them in a row for dlsym. */
#define STEERED_FOR(which, name, function, parameters, ...) \
	EXPORT int steered_##name##_##which parameters \
	{ \
		const struct nvrtc *real = real_of(which); \
\
		return real ? function(real, __VA_ARGS__) : INTERNAL_ERROR; \
	}
#define STEERED(name, function, parameters, ...) \
	STEERED_FOR(OLDER, name, function, parameters, __VA_ARGS__) \
	STEERED_FOR(OF_12, name, function, parameters, __VA_ARGS__) \
	STEERED_FOR(OF_13, name, function, parameters, __VA_ARGS__) \
	__asm__(".symver steered_" #name "_OF_12, " #name "@libnvrtc.so.12\n" \
		".symver steered_" #name "_OF_13, " #name "@libnvrtc.so.13\n"); \
	static void *const name##_of[LIBRARIES] = { (void *)steered_##name##_OLDER, (void *)steered_##name##_OF_12, \
						    (void *)steered_##name##_OF_13 };

STEERED(nvrtcCompileProgram, compile, (program_handle program, int count, const char *const *options), program, count,
	options)
STEERED(nvrtcGetCUBINSize, get_cubin_size, (program_handle program, size_t *size), program, size)
STEERED(nvrtcGetCUBIN, get_cubin, (program_handle program, char *cubin), program, cubin)
STEERED(nvrtcGetNumSupportedArchs, get_arch_count, (int *count), count)
STEERED(nvrtcGetSupportedArchs, get_archs, (int *list), list)

static int library_of(void *handle, dlsym_function find)
{
	int (*version)(int *, int *) = (int (*)(int *, int *))find(handle, "nvrtcVersion");
	int major = 0, minor;

	if (!version || version(&major, &minor))
		return OLDER;
	return major == 12 ? OF_12 : major == 13 ? OF_13 : OLDER;
}

void *nvrtc_steer(void *handle, const char *name, dlsym_function find)
{
	/* In the order of the table above. */
	static void *const *const ours[] = { nvrtcCompileProgram_of, nvrtcGetCUBINSize_of, nvrtcGetCUBIN_of,
					     nvrtcGetNumSupportedArchs_of, nvrtcGetSupportedArchs_of };
	int which;

	for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++) {
		if (strcmp(name, functions[i].name) != 0 || !find(handle, name))
			continue;
		which = library_of(handle, find);
		learn(libraries + which, handle, find);
		return ours[i][which];
	}
	return NULL;
}
