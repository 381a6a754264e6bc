/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the real library and asks it for PTX: the one that the program was linked against; else one in the Python packages that this
 * process has libraries of, in the toolkit, then wherever the loader finds one.
 */
#define _GNU_SOURCE
#include "real.h"

#include "arch.h"
#include "dlsym.h"
#include "loaded.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct real *real_handle;
enum { NOT_FOUND = 6, MOST_OPTIONS = 64 };

static const char *const places[] = { "nvidia/cu13/lib/libnvJitLink.so.13", "nvidia/nvjitlink/lib/libnvJitLink.so.12" };

static void *open_library(const char *path)
{
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

struct search {
	char path[4096];
	void *library;
};

/* A library of a Python package tells where the packages are. */
static int look_beside(struct dl_phdr_info *info, size_t size, void *argument)
{
	static const char *const folders[] = { "/site-packages/", "/dist-packages/" };
	struct search *search = argument;

	for (int f = 0; f < 2; f++) {
		const char *at = info->dlpi_name ? strstr(info->dlpi_name, folders[f]) : NULL;
		int length = at ? (int)(at - info->dlpi_name + strlen(folders[f])) : 0;

		if (at && (size_t)length + 64 < sizeof search->path) {
			snprintf(search->path, sizeof search->path, "%.*s", length, info->dlpi_name);
			return 1;
		}
	}
	return 0;
}

static void *find_library(void)
{
	static const char *const variables[] = { "CUDA_HOME", "CUDA_PATH" };
	static const char *const names[] = { "/usr/local/cuda/lib64/libnvJitLink.so.13", "libnvJitLink.so.13",
					     "libnvJitLink.so.12" };
	struct search search = { .library = NULL };
	char path[sizeof search.path + 64];

	dl_iterate_phdr(look_beside, &search);
	for (unsigned i = 0; search.path[0] && !search.library && i < sizeof places / sizeof *places; i++) {
		snprintf(path, sizeof path, "%s%s", search.path, places[i]);
		search.library = open_library(path);
	}
	for (unsigned i = 0; !search.library && i < sizeof variables / sizeof *variables; i++) {
		const char *folder = getenv(variables[i]);

		if (folder && (size_t)snprintf(path, sizeof path, "%s/lib64/libnvJitLink.so.13", folder) < sizeof path)
			search.library = open_library(path);
	}
	for (unsigned i = 0; !search.library && i < sizeof names / sizeof *names; i++)
		search.library = open_library(names[i]);
	return search.library;
}

static void *loaded(unsigned major)
{
	return major == 12 ? loaded_library("libnvJitLink", "__nvJitLinkCreate_12_0", "libnvJitLink.so.12")
			   : loaded_library("libnvJitLink", "__nvJitLinkCreate_13_0", "libnvJitLink.so.13");
}

static void *library_once(unsigned major)
{
	static void *libraries[3]; /* two threads may both look; they find the same */
	void **library = libraries + (major ? major - 11 : 0), *found = __atomic_load_n(library, __ATOMIC_ACQUIRE);

	if (!found) {
		found = major ? loaded(major) : NULL;
		found = found ? found : find_library();
		__atomic_store_n(library, found, __ATOMIC_RELEASE);
	}
	return found;
}

/* The libraries of CUDA 12.0 to 12.2 have no names without a version, but those of 12.0 are in all of CUDA 12. */
static void *function_of(void *library, const char *name)
{
	static const char *const forms[] = { "nvJitLink%s", "__nvJitLink%s_13_0", "__nvJitLink%s_12_0" };
	void *found = NULL;
	char full[64];

	for (unsigned i = 0; !found && i < sizeof forms / sizeof *forms; i++) {
		snprintf(full, sizeof full, forms[i], name);
		found = real_dlsym()(library, full);
	}
	return found;
}

#define CALL(name, ...) ((int (*)(__VA_ARGS__))(uintptr_t)function_of(library, #name))

int real_version(unsigned *major, unsigned *minor)
{
	void *library = loaded_library("libnvJitLink", "nvJitLinkVersion", NULL);

	return library ? CALL(Version, unsigned *, unsigned *)(major, minor) : NOT_FOUND;
}

static void explain(void *library, real_handle handle, char *error, size_t size)
{
	size_t needed = 0;
	char *log;

	snprintf(error, size, "bitfusion nvJitLink: NVIDIA's library could not link LTO-IR to PTX");
	if (!handle || CALL(GetErrorLogSize, real_handle, size_t *)(handle, &needed) || needed < 2)
		return;
	log = calloc(1, needed + 1);
	if (log && !CALL(GetErrorLog, real_handle, char *)(handle, log))
		snprintf(error, size, "bitfusion nvJitLink: NVIDIA's library could not link LTO-IR to PTX: %s", log);
	free(log);
}

static int take_ptx(void *library, real_handle handle, char **ptx)
{
	size_t size;
	int status = CALL(GetLinkedPtxSize, real_handle, size_t *)(handle, &size);

	if (status)
		return status;
	*ptx = calloc(1, size + 1);
	return *ptx ? CALL(GetLinkedPtx, real_handle, char *)(handle, *ptx) : NOT_FOUND;
}

static int has_option(char *const *options, unsigned count, const char *option)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(options[i], option))
			return 1;
	return 0;
}

/* It does not say what it knows, but its version does. What LTO-IR was made for must not be newer. */
static int newest_arch(void *library)
{
	unsigned major = 0, minor = 0;

	if (!function_of(library, "Version") || CALL(Version, unsigned *, unsigned *)(&major, &minor) ||
	    (major == 12 && minor < 8))
		return 90;
	return major == 12 && minor == 8 ? 120 : 121;
}

int real_link_to_ptx(unsigned major, const struct real_input *inputs, unsigned input_count, char *const *options,
		     unsigned option_count, char **ptx, char *error, size_t error_size)
{
	const char *given[MOST_OPTIONS + 2], **known;
	void *library = library_once(major);
	real_handle handle = NULL;
	unsigned count = 0;
	int status, exchanged;

	*ptx = NULL;
	if (!library || option_count > MOST_OPTIONS) {
		snprintf(error, error_size,
			 "bitfusion nvJitLink: LTO-IR cannot run on a software GPU, and NVIDIA's nvJitLink, "
			 "which could make PTX of it, is not installed");
		return NOT_FOUND;
	}
	while (count < option_count) {
		given[count] = options[count];
		count++;
	}
	if (!has_option(options, option_count, "-lto"))
		given[count++] = "-lto";
	if (!has_option(options, option_count, "-ptx"))
		given[count++] = "-ptx";
	known = arch_options((int)count, given, newest_arch(library), &exchanged);
	if (!known)
		return NOT_FOUND;
	status = CALL(Create, real_handle *, uint32_t, const char **)(&handle, count, known);
	for (unsigned i = 0; !status && i < input_count; i++)
		status = CALL(AddData, real_handle, int, const void *, size_t,
			      const char *)(handle, inputs[i].type, inputs[i].bytes, inputs[i].size, "lto");
	if (!status)
		status = CALL(Complete, real_handle)(handle);
	if (!status)
		status = take_ptx(library, handle, ptx);
	if (status)
		explain(library, handle, error, error_size);
	if (handle)
		CALL(Destroy, real_handle *)(&handle);
	arch_options_free(known);
	return status;
}
