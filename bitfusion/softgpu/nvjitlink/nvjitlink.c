/* SPDX-License-Identifier: Apache-2.0
 *
 * A libnvJitLink for the software GPU, loaded in front of the real one (LD_PRELOAD) by the launcher.
 *
 * numba-cuda and cuda.core always link PTX to a cubin with nvJitLink, also when the driver could take the PTX as
 * it is. The software GPU runs PTX and no machine code. So this library answers a link with a fatbin whose entries
 * hold the inputs themselves; the software GPU's loader links them when the "cubin" is loaded. Python bindings
 * resolve these names with dlsym(RTLD_DEFAULT), which finds a preloaded library first. What is linked against the real
 * library uses names that say of which version they are (below), and finds those here too (exports.map). This library must not
 * bear the real one's name: the loader would take it for the one that is needed, and ask it for all there is.
 *
 * LTO-IR, which numba-cuda prefers, is first turned into PTX by the real library (real.c).
 *
 * Errors that the real library would report when linking (an undefined symbol, say) appear when the image is loaded.
 */
#include "nvjitlink.h"
#include "container.h"
#include "real.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* nvJitLinkResult, as documented. */
enum result { SUCCESS = 0, INVALID_INPUT = 3, INTERNAL = 6, UNRECOGNIZED_INPUT = 8 };

struct link {
	char *bytes; /* the container as it grows, header first */
	size_t size, capacity;
	struct real_input *lto; /* copies of the LTO-IR inputs, linked to PTX when the link is completed */
	unsigned lto_count;
	char *ptx; /* what became of them */
	unsigned major; /* of the library that the program was linked against; 0 when it was not */
	char **options;
	unsigned option_count;
	uint16_t register_limit;
	char error[512];
};

static int append(struct link *link, const void *bytes, size_t size)
{
	if (link->size + size > link->capacity) {
		size_t capacity = 2 * (link->size + size);
		char *bigger = realloc(link->bytes, capacity);

		if (!bigger)
			return INTERNAL;
		link->bytes = bigger;
		link->capacity = capacity;
	}
	if (bytes)
		memcpy(link->bytes + link->size, bytes, size);
	else
		memset(link->bytes + link->size, 0, size);
	link->size += size;
	return SUCCESS;
}

static int refuse(struct link *link, const char *name, const char *why)
{
	snprintf(link->error, sizeof link->error, "bitfusion nvJitLink: '%s': %s", name ? name : "input", why);
	return UNRECOGNIZED_INPUT;
}

static void free_link(struct link *link)
{
	for (unsigned i = 0; i < link->lto_count; i++)
		free((void *)(uintptr_t)link->lto[i].bytes);
	for (unsigned i = 0; i < link->option_count; i++)
		free(link->options[i]);
	free(link->lto);
	free(link->options);
	free(link->ptx);
	free(link->bytes);
	free(link);
}

/* No kernel has more than 255 registers. */
static void read_option(struct link *link, const char *option)
{
	static const char name[] = "-maxrregcount=";
	long limit = strncmp(option, name, sizeof name - 1) ? 0 : strtol(option + sizeof name - 1, NULL, 10);

	if (limit > 0 && limit < 256)
		link->register_limit = (uint16_t)limit;
}

static int keep_options(struct link *link, uint32_t count, const char **options)
{
	link->options = calloc(count + 1, sizeof *link->options);
	if (!link->options)
		return INTERNAL;
	while (link->option_count < count) {
		char *copy = strdup(options[link->option_count]);

		if (!copy)
			return INTERNAL;
		link->options[link->option_count++] = copy;
		read_option(link, copy);
	}
	return SUCCESS;
}

static int create(struct link **handle, uint32_t option_count, const char **options, unsigned major)
{
	struct fatbin_header header = { FATBIN_MAGIC, 1, sizeof header, 0 };
	struct link *link;

	if (!handle || (option_count && !options))
		return INVALID_INPUT;
	link = calloc(1, sizeof *link);
	if (!link)
		return INTERNAL;
	if (append(link, &header, sizeof header) || keep_options(link, option_count, options)) {
		free_link(link);
		return INTERNAL;
	}
	link->major = major;
	*handle = link;
	return SUCCESS;
}

EXPORT int nvJitLinkCreate(struct link **handle, uint32_t option_count, const char **options)
{
	return create(handle, option_count, options, 0);
}

static int create_12(struct link **handle, uint32_t option_count, const char **options)
{
	return create(handle, option_count, options, 12);
}

static int create_13(struct link **handle, uint32_t option_count, const char **options)
{
	return create(handle, option_count, options, 13);
}

EXPORT int nvJitLinkDestroy(struct link **handle)
{
	if (!handle || !*handle)
		return INVALID_INPUT;
	free_link(*handle);
	*handle = NULL;
	return SUCCESS;
}

static int add_entry(struct link *link, int type, const void *data, size_t size)
{
	struct fatbin_entry header = {
		.kind = FATBIN_LINK_INPUT,
		.version = 0x0101,
		.header_size = sizeof header,
		.minor = link->register_limit,
		.arch = type,
		.size = size,
	};
	size_t padding = -size & 7;

	header.stored = size + padding;
	if (append(link, &header, sizeof header) || append(link, data, size) || append(link, NULL, padding))
		return INTERNAL;
	((struct fatbin_header *)link->bytes)->size = link->size - sizeof(struct fatbin_header);
	return SUCCESS;
}

static int keep_lto(struct link *link, const void *data, size_t size)
{
	struct real_input *more = realloc(link->lto, (link->lto_count + 1) * sizeof *more);
	void *copy;

	if (!more)
		return INTERNAL;
	link->lto = more;
	copy = malloc(size ? size : 1);
	if (!copy)
		return INTERNAL;
	memcpy(copy, data, size);
	more[link->lto_count++] = (struct real_input){ copy, size, INPUT_LTOIR };
	return SUCCESS;
}

EXPORT int nvJitLinkAddData(struct link *link, int type, const void *data, size_t size, const char *name)
{
	if (!link || (!data && size))
		return INVALID_INPUT;
	if (type == INPUT_CUBIN || type == INPUT_OBJECT)
		return refuse(link, name, "machine code cannot run on a software GPU; give PTX");
	if (type == INPUT_LTOIR)
		return keep_lto(link, data, size);
	if (type != INPUT_PTX && type != INPUT_FATBIN && type != INPUT_LIBRARY && type != INPUT_ANY)
		return refuse(link, name, "an input of a kind that is not known");
	return add_entry(link, type, data, size);
}

char *read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	char *bytes = NULL;
	long length = -1;

	if (!file)
		return NULL;
	if (!fseek(file, 0, SEEK_END))
		length = ftell(file);
	if (length >= 0 && !fseek(file, 0, SEEK_SET))
		bytes = malloc(length + 1);
	if (bytes && fread(bytes, 1, length, file) != (size_t)length) {
		free(bytes);
		bytes = NULL;
	}
	if (bytes)
		bytes[length] = 0;
	fclose(file);
	*size = bytes ? length : 0;
	return bytes;
}

EXPORT int nvJitLinkAddFile(struct link *link, int type, const char *path)
{
	size_t size;
	char *bytes;
	int result;

	if (!link || !path)
		return INVALID_INPUT;
	bytes = read_file(path, &size);
	if (!bytes)
		return refuse(link, path, strerror(errno));
	result = nvJitLinkAddData(link, type, bytes, size, path);
	free(bytes);
	return result;
}

EXPORT int nvJitLinkComplete(struct link *link)
{
	int status;

	if (!link)
		return INVALID_INPUT;
	if (!link->lto_count || link->ptx)
		return SUCCESS;
	status = real_link_to_ptx(link->major, link->lto, link->lto_count, link->options, link->option_count,
				  &link->ptx, link->error, sizeof link->error);
	return status ? status : add_entry(link, INPUT_PTX, link->ptx, strlen(link->ptx) + 1);
}

EXPORT int nvJitLinkGetLinkedCubinSize(struct link *link, size_t *size)
{
	if (!link || !size)
		return INVALID_INPUT;
	*size = link->size;
	return SUCCESS;
}

EXPORT int nvJitLinkGetLinkedCubin(struct link *link, void *cubin)
{
	if (!link || !cubin)
		return INVALID_INPUT;
	memcpy(cubin, link->bytes, link->size);
	return SUCCESS;
}

/* One PTX text exists only when the inputs were LTO-IR, as with the real library. */
EXPORT int nvJitLinkGetLinkedPtxSize(struct link *link, size_t *size)
{
	if (!link || !size || !link->ptx)
		return INVALID_INPUT;
	*size = strlen(link->ptx) + 1;
	return SUCCESS;
}

EXPORT int nvJitLinkGetLinkedPtx(struct link *link, char *ptx)
{
	if (!link || !ptx || !link->ptx)
		return INVALID_INPUT;
	memcpy(ptx, link->ptx, strlen(link->ptx) + 1);
	return SUCCESS;
}

EXPORT int nvJitLinkGetLinkedLTOIRSize(struct link *link, size_t *size)
{
	return INVALID_INPUT;
}

EXPORT int nvJitLinkGetLinkedLTOIR(struct link *link, void *ltoir)
{
	return INVALID_INPUT;
}

EXPORT int nvJitLinkGetErrorLogSize(struct link *link, size_t *size)
{
	if (!link || !size)
		return INVALID_INPUT;
	*size = strlen(link->error) + 1;
	return SUCCESS;
}

EXPORT int nvJitLinkGetErrorLog(struct link *link, char *log)
{
	if (!link || !log)
		return INVALID_INPUT;
	memcpy(log, link->error, strlen(link->error) + 1);
	return SUCCESS;
}

EXPORT int nvJitLinkGetInfoLogSize(struct link *link, size_t *size)
{
	if (!link || !size)
		return INVALID_INPUT;
	*size = 1;
	return SUCCESS;
}

EXPORT int nvJitLinkGetInfoLog(struct link *link, char *log)
{
	if (!link || !log)
		return INVALID_INPUT;
	*log = 0;
	return SUCCESS;
}

EXPORT int nvJitLinkVersion(unsigned *major, unsigned *minor)
{
	if (!major || !minor)
		return INVALID_INPUT;
	if (real_version(major, minor)) {
		*major = 13;
		*minor = 0;
	}
	return SUCCESS;
}

/* nvJitLink.h makes of each function one that bears the version of the header; those of versions to come do no harm. */
#define NAME(function, target, version) \
	extern __typeof__(nvJitLink##function) __nvJitLink##function##_##version \
		__attribute__((alias(#target), visibility("default")));
#define NAMES_12(function, target) \
	NAME(function, target, 12_0) \
	NAME(function, target, 12_1) \
	NAME(function, target, 12_2) \
	NAME(function, target, 12_3) \
	NAME(function, target, 12_4) \
	NAME(function, target, 12_5) \
	NAME(function, target, 12_6) \
	NAME(function, target, 12_7) \
	NAME(function, target, 12_8) \
	NAME(function, target, 12_9)
#define NAMES_13(function, target) \
	NAME(function, target, 13_0) \
	NAME(function, target, 13_1) \
	NAME(function, target, 13_2) \
	NAME(function, target, 13_3) \
	NAME(function, target, 13_4) \
	NAME(function, target, 13_5) \
	NAME(function, target, 13_6) \
	NAME(function, target, 13_7) \
	NAME(function, target, 13_8) \
	NAME(function, target, 13_9) \
	NAME(function, target, 13_10) \
	NAME(function, target, 13_11) \
	NAME(function, target, 13_12)
#define NAMES(function) \
	NAMES_12(function, nvJitLink##function) \
	NAMES_13(function, nvJitLink##function)

NAMES_12(Create, create_12)
NAMES_13(Create, create_13)
NAMES(Destroy)
NAMES(AddData)
NAMES(AddFile)
NAMES(Complete)
NAMES(GetLinkedCubinSize)
NAMES(GetLinkedCubin)
NAMES(GetLinkedPtxSize)
NAMES(GetLinkedPtx)
NAMES(GetLinkedLTOIRSize)
NAMES(GetLinkedLTOIR)
NAMES(GetErrorLogSize)
NAMES(GetErrorLog)
NAMES(GetInfoLogSize)
NAMES(GetInfoLog)
