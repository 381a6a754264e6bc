/* SPDX-License-Identifier: Apache-2.0
 *
 * Code images: modules and libraries, and what the linker (link.c) shares with them.
 */
#include "load.h"

#include <stdlib.h>
#include <string.h>

static void free_image(struct bf_image *image)
{
	if (!image)
		return;
	for (int i = 0; i < LOGS; i++)
		free(image->log[i]);
	bf_wrapper_free(&image->wrapper);
	free(image->data);
	free(image);
}

void bf_image_keep(struct bf_session *session, struct bf_image *image)
{
	pthread_mutex_lock(&session->image_lock);
	image->next = session->images;
	session->images = image;
	pthread_mutex_unlock(&session->image_lock);
}

struct bf_image *bf_image_find(struct bf_session *session, uint64_t handle, bool take)
{
	pthread_mutex_lock(&session->image_lock);
	struct bf_image **link = &session->images;
	while (*link && (*link)->handle != handle)
		link = &(*link)->next;
	struct bf_image *image = *link;
	if (image && take)
		*link = image->next;
	pthread_mutex_unlock(&session->image_lock);
	return image;
}

void bf_image_drop(struct bf_session *session, uint64_t handle)
{
	free_image(bf_image_find(session, handle, true));
}

/* ------------------------------------------------------------------ options */

/* Logs get buffers of ours; other options that are pointers make no sense in this process and are left out. */
static CUresult add_option(struct bf_image *image, CUjit_option option, uint64_t value)
{
	unsigned at = image->option_count;
	int log = -1;
	switch (option) {
	case CU_JIT_INFO_LOG_BUFFER: log = 0; break;
	case CU_JIT_ERROR_LOG_BUFFER: log = 1; break;
	case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
	case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: value = value < MAX_LOG ? value : MAX_LOG; break;
	case CU_JIT_GLOBAL_SYMBOL_NAMES:
	case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
	case CU_JIT_GLOBAL_SYMBOL_COUNT:
	case CU_JIT_REFERENCED_KERNEL_NAMES:
	case CU_JIT_REFERENCED_KERNEL_COUNT:
	case CU_JIT_REFERENCED_VARIABLE_NAMES:
	case CU_JIT_REFERENCED_VARIABLE_COUNT: return CUDA_SUCCESS;
	default: break;
	}
	if (log >= 0) {
		image->capacity[log] = (uint32_t)(value < MAX_LOG ? value : MAX_LOG);
		free(image->log[log]);
		image->log[log] = calloc(1, (size_t)MAX_LOG + 1);
		if (!image->log[log])
			return CUDA_ERROR_OUT_OF_MEMORY;
		value = (uint64_t)(uintptr_t)image->log[log];
	}
	image->option[at] = option;
	image->value[at] = (void *)(uintptr_t)value;
	image->option_count = at + 1;
	return CUDA_SUCCESS;
}

static const uint8_t *take_bytes(const uint8_t **at, const uint8_t *end, uint64_t size)
{
	const uint8_t *bytes = *at;
	if ((uint64_t)(end - bytes) < size)
		return NULL;
	*at += size;
	return bytes;
}

static CUresult read_options(struct bf_image *image, const struct bf_load *load, const uint8_t **at, const uint8_t *end)
{
	const uint32_t *option = (const uint32_t *)take_bytes(at, end, bf_pad(4 * (size_t)load->option_count));
	const uint64_t *value = (const uint64_t *)take_bytes(at, end, 8 * (size_t)load->option_count);
	if (!option || !value)
		return BF_VIOLATION;
	CUresult status = CUDA_SUCCESS;
	for (unsigned i = 0; i < load->option_count && status == CUDA_SUCCESS; i++)
		status = add_option(image, (CUjit_option)option[i], value[i]);
	if (status != CUDA_SUCCESS)
		return status;
	unsigned count = load->library_option_count;
	option = (const uint32_t *)take_bytes(at, end, bf_pad(4 * (size_t)count));
	value = (const uint64_t *)take_bytes(at, end, 8 * (size_t)count);
	if (!option || !value)
		return BF_VIOLATION;
	for (unsigned i = 0; i < count; i++) {
		/* the other one is a table of the program's own addresses */
		if (option[i] != CU_LIBRARY_BINARY_IS_PRESERVED)
			continue;
		image->library_option[image->library_option_count] = (CUlibraryOption)option[i];
		image->library_value[image->library_option_count++] = (void *)(uintptr_t)value[i];
		image->preserved = value[i] != 0;
	}
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ the driver's part */

static size_t put_log(uint8_t *body, const struct bf_image *image, int which)
{
	uint64_t size = 0;
	if (image->log[which]) {
		size = strnlen(image->log[which], MAX_LOG);
		size += size > 0;
		size = size < image->capacity[which] ? size : image->capacity[which];
	}
	memcpy(body, &size, 8);
	memset(body + 8, 0, bf_pad(size));
	if (size) {
		memcpy(body + 8, image->log[which], size);
		body[8 + size - 1] = 0;
	}
	return 8 + bf_pad(size);
}

void bf_load_answer(struct bf_session *session, const struct bf_load_job *work, const struct bf_image *image,
		    CUresult status, const uint64_t *number)
{
	uint8_t *body = malloc(2 * ((size_t)MAX_LOG + 32) + 8);
	size_t size = 0;
	if (body) {
		size = put_log(body, image, 0);
		size += put_log(body + size, image, 1);
		if (number) {
			memcpy(body + size, number, 8);
			size += 8;
		}
	}
	bf_settle(session);
	bf_done(session, &work->command, status, body, size);
	free(body);
}

static CUresult load_code(struct bf_session *session, struct bf_load_job *work, uint64_t *value)
{
	struct bf_image *image = work->image;
	struct bf_driver *driver = session->driver;
	if (work->load.kind == BF_LOAD_MODULE) {
		if (!driver->cuModuleLoadDataEx)
			return CUDA_ERROR_NOT_SUPPORTED;
		return driver->cuModuleLoadDataEx((CUmodule *)value, bf_wrapper_code(&image->wrapper),
						  image->option_count, image->option, image->value);
	}
	if (!driver->cuLibraryLoadData)
		return CUDA_ERROR_NOT_SUPPORTED;
	return driver->cuLibraryLoadData((CUlibrary *)value, bf_wrapper_code(&image->wrapper), image->option,
					 image->value, image->option_count, image->library_option, image->library_value,
					 image->library_option_count);
}

static void unload(struct bf_session *session, unsigned kind, uint64_t value)
{
	if (kind == BF_MODULE && session->driver->cuModuleUnload)
		session->driver->cuModuleUnload((CUmodule)(uintptr_t)value);
	else if (kind == BF_LIBRARY && session->driver->cuLibraryUnload)
		session->driver->cuLibraryUnload((CUlibrary)(uintptr_t)value);
}

/* Loads, and counts what the code takes; nothing stays loaded that does not fit into the slice. */
static CUresult load_counted(struct bf_session *session, struct bf_load_job *work, unsigned kind, uint64_t *value)
{
	struct bf_code_memory before;
	bf_code_measure(session, &before);
	CUresult status = load_code(session, work, value);
	if (status != CUDA_SUCCESS)
		return status;
	status = bf_code_charge(session, &before, work->load.handle,
				kind == BF_MODULE ? bf_context_index() : BF_OUTLIVES);
	if (status != CUDA_SUCCESS)
		unload(session, kind, *value);
	return status;
}

static void load(struct bf_session *session, struct bf_load_job *work)
{
	struct bf_image *image = work->image;
	uint64_t value = 0;
	unsigned kind = work->load.kind == BF_LOAD_MODULE ? BF_MODULE : BF_LIBRARY;
	uint32_t owner = kind == BF_MODULE ? bf_handle_pack(BF_HANDLE(BF_CONTEXT, work->command.context)) : 0;
	bf_reap_wait(session, BF_ANY_CONTEXT, 0); /* the number's last owner, and all that would blur the measure */
	struct bf_tries tries = { .settled = atomic_load(&session->freed.settled) };
	CUresult status = load_counted(session, work, kind, &value);
	if (status == CUDA_ERROR_OUT_OF_MEMORY && bf_memory_coming(session) && bf_memory_wait(session, &tries))
		status = load_counted(session, work, kind, &value);
	if (status == CUDA_SUCCESS && !bf_handle_bind(&session->handles, kind, work->load.handle, value, owner))
		status = CUDA_ERROR_OUT_OF_MEMORY;
	bool keep = status == CUDA_SUCCESS && (image->preserved || !session->driver->cuFuncGetParamInfo);
	if (keep) {
		image->handle = work->load.handle;
		bf_image_keep(session, image);
		work->image = NULL;
	}
	bf_load_answer(session, work, image, status, NULL);
}

/* Of a link that exists already. */
static bool is_link(const struct bf_load *load)
{
	return load->kind == BF_LOAD_LINK || load->kind == BF_LOAD_LINK_COMPLETE;
}

static void run_load(struct bf_session *session, struct bf_job *job)
{
	struct bf_load_job *work = (struct bf_load_job *)job;
	CUresult status = work->status;
	/* a library belongs to no context */
	if (status == CUDA_SUCCESS && (work->command.context || work->load.kind != BF_LOAD_LIBRARY))
		status = bf_context_ensure(session, work->command.context);
	if (status != CUDA_SUCCESS)
		bf_done(session, &work->command, status, NULL, 0);
	else if (work->load.kind == BF_LOAD_MODULE || work->load.kind == BF_LOAD_LIBRARY)
		load(session, work);
	else if (work->load.kind == BF_LOAD_LINK_CREATE)
		bf_link_create(session, work);
	else if (work->load.kind == BF_LOAD_LINK)
		bf_link_add(session, work);
	else
		bf_link_complete(session, work);
	if (is_link(&work->load))
		bf_use_end(session, &work->use);
	free_image(work->image);
	free(work->text);
	free(work);
}

/* ------------------------------------------------------------------ reading the command */

static bool well_formed(const struct bf_load *load)
{
	unsigned kind = load->kind == BF_LOAD_MODULE    ? BF_MODULE
			: load->kind == BF_LOAD_LIBRARY ? BF_LIBRARY
							: BF_LINKSTATE;
	bool has_image = load->kind != BF_LOAD_LINK_CREATE && load->kind != BF_LOAD_LINK_COMPLETE;
	unsigned inputs = kind == BF_LINKSTATE ? 0 : BF_MAX_LOAD_INPUTS;
	return load->kind <= BF_LOAD_LINK_COMPLETE && bf_handle_is(load->handle, kind) &&
	       load->option_count <= MAX_OPTIONS && load->library_option_count <= MAX_OPTIONS &&
	       load->input_count <= inputs && load->bulk_size <= BF_MAX_IMAGE && (load->bulk_size > 0) == has_image;
}

static CUresult read_load(struct bf_session *session, struct bf_load_job *work, const uint8_t *body, size_t size)
{
	const uint8_t *at = body + sizeof(work->load), *end = body + size;
	CUresult status = read_options(work->image, &work->load, &at, end);
	if (status != CUDA_SUCCESS)
		return status;
	const uint8_t *text = take_bytes(&at, end, bf_pad(work->load.text_size));
	if (!text)
		return BF_VIOLATION;
	work->text = work->load.text_size ? strndup((const char *)text, work->load.text_size) : NULL;
	return CUDA_SUCCESS;
}

/* The image arrives in any case, so that the stream stays whole. A NUL more, for text. */
static bool read_image(struct bf_session *session, struct bf_load_job *work)
{
	uint64_t size = work->load.bulk_size;
	if (!size)
		return true;
	work->image->data = bf_host_memory_full(session, size) ? NULL : malloc(size + 8);
	if (!work->image->data) {
		work->status = CUDA_ERROR_OUT_OF_MEMORY;
		return bf_input_skip(session, size);
	}
	memset(work->image->data + size, 0, 8);
	return bf_input_take(session, work->image->data, size);
}

void bf_op_load(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct bf_load_job *work = calloc(1, sizeof(*work));
	struct bf_image *image = calloc(1, sizeof(*image));
	if (!work || !image) {
		free(work);
		free(image);
		bf_violation(session, "no memory left to load code");
		return;
	}
	work->image = image;
	work->command = *command;
	memcpy(&work->load, body, sizeof(work->load));
	work->job.run = run_load;
	bool formed = well_formed(&work->load);
	if (formed)
		work->status = read_load(session, work, body, size);
	if (!formed || work->status == BF_VIOLATION) {
		bf_violation(session, "bad load of code");
	} else if (!read_image(session, work)) {
		session->ended = BF_ENDED_CLIENT_GONE;
		session->stopped = true;
	} else if (image->data &&
		   !bf_wrapper_fill(&image->wrapper, image->data, work->load.bulk_size, work->load.input_count)) {
		bf_violation(session, "bad sizes of code to be linked");
	} else {
		if (is_link(&work->load))
			bf_use_begin(session, &work->use, BF_ANY_CONTEXT, work->load.handle);
		/* compiling takes its time, and only the thread that asked for it has to wait */
		if (!(work->command.flags & BF_WANTS_REPLY) || !bf_submit(session, &work->job))
			run_load(session, &work->job);
		return;
	}
	free_image(image);
	free(work->text);
	free(work);
}
