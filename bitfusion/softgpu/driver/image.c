/* SPDX-License-Identifier: Apache-2.0
 *
 * Code as programs pass it: where it begins, how long it is, and what the PTX front end makes of it.
 */
#define _GNU_SOURCE
#include "code_size.h"
#include "fatbin.h"
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FATBIN_HEADER = sizeof(struct fatbin_header) };
/* Text of less is compiled when it is loaded: it takes no longer than a program would notice, and its errors come
 * from the load, as those of CUDA do. */
enum { LAZY_BYTES = 32 << 10 };
static uint64_t read_number(const unsigned char *bytes, unsigned size)
{
	uint64_t value = 0;
	memcpy(&value, bytes, size);
	return value;
}

uint64_t image_size(const void *code, const void **start, int *text)
{
	bool is_text;
	*text = 0;
	if (code_begins(code, WRAPPER_MAGIC)) {
		code = (const void *)(uintptr_t)read_number((const unsigned char *)code + 8, 8);
		if (!code)
			return 0;
	}
	*start = code;
	const uint64_t size = code_size(code, &is_text);
	*text = is_text;
	return size;
}

/* ------------------------------------------------------------------ code that is still to be linked */

enum { INPUT_ANY = 10, MAX_INPUTS = 4096 };

/* What nvcc -rdc makes: the wrapper has the fat binaries of all objects and libraries beside what its linker made of
 * their machine code. NULL where the code is something else. */
static const void *const *inputs_of(const void *code)
{
	const unsigned char *bytes = code;
	/* byte by byte: what is no wrapper may be short */
	if (bytes[0] != (WRAPPER_MAGIC & 0xff) || read_number(bytes, 4) != WRAPPER_MAGIC ||
	    read_number(bytes + 4, 4) != WRAPPER_LINKED)
		return NULL;
	return (const void *const *)(uintptr_t)read_number(bytes + 16, 8);
}

/* All inputs in one fatbin, as our libnvJitLink gives them: malloc'ed. */
static CUresult gather(const void *const *inputs, void **joined, size_t *total)
{
	const void *start;
	int text;
	size_t room = sizeof(struct fatbin_header);
	for (unsigned i = 0; inputs[i] && i < MAX_INPUTS; i++) {
		const uint64_t size = image_size(inputs[i], &start, &text);
		if (!code_is_there(start, size, text))
			return CUDA_ERROR_INVALID_IMAGE;
		room += sizeof(struct fatbin_entry) + size + 8;
	}
	char *made = room < CODE_MAX ? calloc(1, room) : NULL, *at = made + sizeof(struct fatbin_header);
	if (!made)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned i = 0; inputs[i] && i < MAX_INPUTS; i++) {
		const uint64_t size = image_size(inputs[i], &start, &text), padded = (size + 7) & ~(uint64_t)7;
		const struct fatbin_entry entry = { .kind = FATBIN_LINK_INPUT,
						    .version = 0x0101,
						    .header_size = sizeof entry,
						    .stored = padded,
						    .arch = INPUT_ANY,
						    .size = size };
		memcpy(at, &entry, sizeof entry);
		memcpy(at + sizeof entry, start, size);
		at += sizeof entry + padded;
	}
	const uint64_t payload = (uint64_t)(at - made) - sizeof(struct fatbin_header);
	const struct fatbin_header header = { FATBIN_MAGIC, 1, FATBIN_HEADER, payload };
	memcpy(made, &header, sizeof header);
	*total = sizeof header + payload;
	*joined = made;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ JIT options */

void jit_options_read(struct jit_options *options, unsigned count, const CUjit_option *names, void **values)
{
	memset(options, 0, sizeof *options);
	for (unsigned i = 0; names && values && i < count; i++) {
		switch ((int)names[i]) {
		case CU_JIT_INFO_LOG_BUFFER: options->info = values[i]; break;
		case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
			options->info_size = (unsigned)(uintptr_t)values[i];
			options->info_slot = &values[i];
			break;
		case CU_JIT_ERROR_LOG_BUFFER: options->error = values[i]; break;
		case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
			options->error_size = (unsigned)(uintptr_t)values[i];
			options->error_slot = &values[i];
			break;
		case CU_JIT_WALL_TIME: options->wall_time_slot = (float *)(void *)&values[i]; break;
		}
	}
}

static void report(char *buffer, size_t size, void **slot, const char *text)
{
	size_t written = 0;
	if (buffer && size) {
		snprintf(buffer, size, "%s", text);
		written = *text ? strlen(buffer) + 1 : 0;
	}
	if (slot)
		*slot = (void *)(uintptr_t)written;
}

void jit_options_report(const struct jit_options *options, CUresult result, const char *text)
{
	if (!options)
		return;
	report(options->info, options->info_size, options->info_slot, result == CUDA_SUCCESS ? text : "");
	report(options->error, options->error_size, options->error_slot, result == CUDA_SUCCESS ? "" : text);
	if (options->wall_time_slot)
		*options->wall_time_slot = 0;
}

/* ------------------------------------------------------------------ our own image in a fatbin's clothes */

/* What cuLinkComplete gives out: every loader, also of a proxy, knows how long a fatbin is. */
struct own_fatbin {
	struct fatbin_header header;
	struct fatbin_entry entry;
};

void *image_wrap(const void *bytes, size_t size, size_t *total)
{
	uint64_t padded = (size + 7) & ~(uint64_t)7;
	struct own_fatbin *wrapped = calloc(1, sizeof *wrapped + padded);
	if (!wrapped)
		return NULL;
	wrapped->header = (struct fatbin_header){ FATBIN_MAGIC, 1, FATBIN_HEADER, sizeof wrapped->entry + padded };
	wrapped->entry = (struct fatbin_entry){ .kind = OWN_KIND,
						.version = 0x0101,
						.header_size = sizeof wrapped->entry,
						.stored = padded,
						.size = size };
	memcpy(wrapped + 1, bytes, size);
	*total = sizeof *wrapped + padded;
	return wrapped;
}

static const void *unwrap(const void *bytes, uint64_t size, size_t *inner)
{
	struct own_fatbin own;
	if (size < sizeof own)
		return NULL;
	memcpy(&own, bytes, sizeof own);
	if (own.header.magic != FATBIN_MAGIC || own.entry.kind != OWN_KIND || own.entry.size > size - sizeof own)
		return NULL;
	*inner = own.entry.size;
	return (const char *)bytes + sizeof own;
}

/* ------------------------------------------------------------------ loading */

static CUresult parse(struct image **result, const void *bytes, size_t size, char *text, size_t text_size)
{
	struct image *image = calloc(1, sizeof *image);
	if (!image)
		return CUDA_ERROR_OUT_OF_MEMORY;
	image->references = 1;
	image->whole = sg_image_parse(bytes, size, text, text_size);
	if (!image->whole) {
		free(image);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	*result = image;
	return CUDA_SUCCESS;
}

static CUresult compile(struct image **result, const void *bytes, size_t size, char *text, size_t text_size)
{
	struct helper_item item = { .bytes = bytes, .size = size };
	void *compiled = NULL;
	size_t made;
	TRY(helper_compile(&item, 1, 0, &compiled, &made, text, text_size));
	CUresult status = parse(result, compiled, made, text, text_size);
	free(compiled);
	return status;
}

/* Whether the program's environment wants code to be compiled when it is loaded, or when it is used. */
static int wants(const char *mode)
{
	const char *wanted = getenv("CUDA_MODULE_LOADING");
	return wanted && !strcmp(wanted, mode);
}

int image_is_eager(void)
{
	return wants("EAGER");
}

static int is_worth_it(uint64_t size)
{
	return !wants("EAGER") && (size >= LAZY_BYTES || wants("LAZY"));
}

/* The PTX text in the code, malloc'ed, where it is worth to have: of plain text, if it is long. */
static char *find_text(const void *start, uint64_t size, int is_text, size_t *text_size)
{
	if (!is_text)
		return fatbin_text(start, size, text_size);
	char *copy = is_worth_it(size) ? malloc(size + 1) : NULL;
	if (!copy)
		return NULL;
	memcpy(copy, start, size);
	copy[size] = 0;
	*text_size = size;
	return copy;
}

static CUresult load(struct image **result, const void *code, char *text, size_t text_size)
{
	const void *start, *const *inputs = inputs_of(code);
	int is_text;
	size_t inner;
	if (inputs && inputs[0]) {
		void *all = NULL;
		CUresult status = gather(inputs, &all, &inner);
		if (!status)
			status = compile(result, all, inner, text, text_size);
		else if (status == CUDA_ERROR_INVALID_IMAGE)
			snprintf(text, text_size, CODE_IS_BEYOND);
		free(all);
		return status;
	}
	uint64_t size = image_size(code, &start, &is_text);
	if (!size || !code_is_there(start, size, is_text)) {
		snprintf(text, text_size, "%s", size ? CODE_IS_BEYOND : CODE_IS_UNKNOWN);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	const void *own = unwrap(start, size, &inner);
	if (own)
		return parse(result, own, inner, text, text_size);
	char *ptx = find_text(start, size, is_text, &inner);
	if (ptx && is_worth_it(inner) && (*result = image_split(ptx, inner)))
		return CUDA_SUCCESS;
	CUresult status =
		ptx ? compile(result, ptx, inner, text, text_size) : compile(result, start, size, text, text_size);
	free(ptx);
	return status;
}

/* A program that gave no buffer for errors would not learn why; one that tries again would be told again. */
static void tell(const struct jit_options *options, CUresult result, const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char last[512];
	char line[sizeof last];
	snprintf(line, sizeof line, "cannot load code: %s", text);
	/* without a front end the installation is broken, and few programs print a log */
	if (!driver.debug && options && options->error && result != CUDA_ERROR_JIT_COMPILER_NOT_FOUND)
		return;
	pthread_mutex_lock(&lock);
	const int is_new = strcmp(line, last) != 0;
	memcpy(last, line, sizeof last);
	pthread_mutex_unlock(&lock);
	if (is_new || driver.debug)
		driver_say(line);
}

static CUresult report_load(const struct jit_options *options, CUresult result, const char *text)
{
	if (result != CUDA_SUCCESS)
		tell(options, result, text);
	jit_options_report(options, result, text);
	return result;
}

CUresult image_check_file(const void *code, size_t size, const struct jit_options *options)
{
	return code_is_whole(code, size) ? CUDA_SUCCESS : report_load(options, CUDA_ERROR_INVALID_IMAGE, CODE_IS_CUT);
}

CUresult image_load(struct image **image, const void *code, const struct jit_options *options)
{
	char text[8192] = "";
	CUresult result = load(image, code, text, sizeof text);
	return report_load(options, result, text);
}

void image_release(struct image *image)
{
	if (!image || --image->references)
		return;
	sg_image_free(image->whole);
	image_free_parts(image);
	free(image);
}
