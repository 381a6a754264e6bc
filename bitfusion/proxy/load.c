/* SPDX-License-Identifier: Apache-2.0
 *
 * The one command that all loads of code share: options, then the image as bulk, then logs back.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <string.h>

enum { MAX_OPTIONS = 64 };

/* Options whose value is a pointer to something of the program's, which the server cannot follow. */
static bool is_pointer(CUjit_option option)
{
	return option == CU_JIT_GLOBAL_SYMBOL_NAMES || option == CU_JIT_GLOBAL_SYMBOL_ADDRESSES ||
	       option == CU_JIT_REFERENCED_KERNEL_NAMES || option == CU_JIT_REFERENCED_VARIABLE_NAMES;
}

static bool is_log(CUjit_option option)
{
	return option == CU_JIT_INFO_LOG_BUFFER || option == CU_JIT_ERROR_LOG_BUFFER;
}

static uint64_t value_of(const struct bf_options *options, unsigned i)
{
	return options->values ? (uint64_t)(uintptr_t)options->values[i] : 0;
}

/* A log's capacity is the value of the option after it in CUDA's numbering. */
static uint64_t capacity_of(const struct bf_options *options, CUjit_option log)
{
	for (unsigned i = 0; i < options->count; i++)
		if ((int)options->names[i] == (int)log + 1)
			return (uint32_t)value_of(options, i);
	return 0;
}

static CUresult check_options(const struct bf_options *options, bool jit)
{
	if (options->count > MAX_OPTIONS || (options->count && !options->names))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; jit && i < options->count; i++)
		if (is_pointer(options->names[i]))
			return CUDA_ERROR_NOT_SUPPORTED;
	return CUDA_SUCCESS;
}

static size_t options_size(const struct bf_options *options)
{
	return BF_PAD8(options->count * 4) + options->count * 8;
}

static uint8_t *put_options(uint8_t *at, const struct bf_options *options, bool jit)
{
	memset(at, 0, options_size(options));
	for (unsigned i = 0; i < options->count; i++) {
		uint64_t value = value_of(options, i);
		uint32_t name = options->names[i];

		if (jit && is_log(options->names[i]))
			value = value ? capacity_of(options, options->names[i]) : 0;
		memcpy(at + i * 4, &name, 4);
		memcpy(at + BF_PAD8(options->count * 4) + i * 8, &value, 8);
	}
	return at + options_size(options);
}

static void set_value(const struct bf_options *options, CUjit_option name, uint64_t value)
{
	for (unsigned i = 0; options->values && i < options->count; i++)
		if (options->names[i] == name)
			options->values[i] = (void *)(uintptr_t)value;
}

static char *buffer_of(const struct bf_options *options, CUjit_option log)
{
	char *buffer = NULL;

	for (unsigned i = 0; i < options->count; i++)
		if (options->names[i] == log)
			buffer = (char *)(uintptr_t)value_of(options, i);
	return buffer;
}

/* The size is with the NUL, or 0. */
static void fill_log(const struct bf_options *options, CUjit_option log, const void *text, uint64_t size)
{
	uint64_t capacity = capacity_of(options, log);
	char *buffer = buffer_of(options, log);

	if (!buffer || !capacity)
		return;
	if (size > capacity)
		size = capacity;
	memcpy(buffer, text, size);
	buffer[size ? size - 1 : 0] = 0;
	set_value(options, (CUjit_option)(log + 1), size);
}

/* Code that does not travel, as nobody could say how much of it there is: a driver would give the same reasons. */
static void tell_problem(const struct bf_options *options, const char *problem)
{
	fill_log(options, CU_JIT_INFO_LOG_BUFFER, "", 0);
	fill_log(options, CU_JIT_ERROR_LOG_BUFFER, problem, strlen(problem) + 1);
	if (!buffer_of(options, CU_JIT_ERROR_LOG_BUFFER) && bf_first_time(problem))
		bf_tell("cannot load code: %s", problem);
	else
		bf_debug("cannot load code: %s", problem);
}

/* Info log, error log, as the reply's body begins; returns what follows them. */
const uint8_t *bf_load_logs(const struct bf_wait *wait, const struct bf_options *options)
{
	static const CUjit_option logs[] = { CU_JIT_INFO_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER };
	const uint8_t *at = wait->body, *end = at + wait->body_size;

	for (int i = 0; i < 2; i++) {
		uint64_t size;

		if (!at || end - at < 8)
			return NULL;
		memcpy(&size, at, 8);
		at += 8;
		if (size > BF_MAX_COMMAND || BF_PAD8(size) > (uint64_t)(end - at))
			return NULL;
		fill_log(options, logs[i], at, size);
		if (size && wait->status)
			bf_debug("the compiler says: %.*s", (int)strnlen((const char *)at, size), at);
		at += BF_PAD8(size);
	}
	return at;
}

CUresult bf_load(const struct bf_load *load, const char *text, const struct bf_options *options,
		 const struct bf_options *library_options, const struct bf_image *image, struct bf_wait *wait)
{
	size_t text_size = text ? strlen(text) + 1 : 0;
	size_t size = sizeof(struct bf_command) + sizeof *load + options_size(options) + options_size(library_options) +
		      BF_PAD8(text_size);
	CUresult status = check_options(options, true);
	uint8_t *command, *at;

	if (!status)
		status = check_options(library_options, false);
	if (!status && size > BF_MAX_COMMAND)
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		return status;
	command = bf_queue_begin(BF_OP_LOAD, size, BF_WANTS_REPLY | BF_HAS_BULK, bf_self.current);
	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	((struct bf_command *)command)->request = bf_wait_add(wait, BF_OP_LOAD);
	at = command + sizeof(struct bf_command);
	memcpy(at, load, sizeof *load);
	((struct bf_load *)at)->bulk_size = image->size;
	((struct bf_load *)at)->option_count = options->count;
	((struct bf_load *)at)->library_option_count = library_options->count;
	((struct bf_load *)at)->text_size = (uint32_t)text_size;
	((struct bf_load *)at)->input_count = image->input_count;
	at = put_options(at + sizeof *load, options, true);
	at = put_options(at, library_options, false);
	memset(at, 0, BF_PAD8(text_size));
	if (text_size)
		memcpy(at, text, text_size);
	bf_queue_end_with_bulk(image->data, image->size, BF_NOW);
	status = bf_wait_for_result(wait);
	bf_load_logs(wait, options);
	return status;
}

CUresult bf_load_code(enum bf_handle_kind kind, const void *code, const char *path, const struct bf_options *options,
		      const struct bf_options *library_options, uint64_t *handle)
{
	struct bf_load load = { .kind = kind == BF_MODULE ? BF_LOAD_MODULE : BF_LOAD_LIBRARY };
	struct bf_image image;
	struct bf_wait wait = { 0 };
	CUresult status = check_options(options, true);

	if (status)
		return status;
	status = path ? bf_image_of_code_file(path, &image) : bf_image_of(code, &image);
	if (status == CUDA_ERROR_INVALID_IMAGE)
		tell_problem(options, image.problem);
	if (status)
		return status;
	load.handle = bf_handle_new(kind, NULL);
	status = load.handle ? bf_load(&load, NULL, options, library_options, &image, &wait) : CUDA_ERROR_OUT_OF_MEMORY;
	bf_wait_drop(&wait);
	bf_image_close(&image);
	if (status) {
		bf_handle_free(load.handle);
		return status;
	}
	bf_handle_start(kind, load.handle);
	*handle = load.handle;
	return CUDA_SUCCESS;
}
