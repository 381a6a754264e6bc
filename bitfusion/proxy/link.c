/* SPDX-License-Identifier: Apache-2.0
 *
 * The JIT linker: inputs travel as they are added, the linked image comes back and lives with the link state.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

/* Options of the creation hold buffers that later calls write their logs to. */
struct link {
	struct link *next;
	uint64_t handle;
	unsigned option_count;
	CUjit_option *names;
	void **values;
	void **given; /* the values as they were then: the sizes of logs are replaced by how much was written */
	uint8_t *image;
};

static const struct bf_options no_options;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct link *links;

static CUresult find(CUlinkState state, struct link **found)
{
	CUresult status = bf_check();
	struct link *link;

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	pthread_mutex_lock(&lock);
	for (link = links; link && link->handle != BF_ARG(state); link = link->next)
		;
	pthread_mutex_unlock(&lock);
	*found = link;
	return link ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static void drop(struct link *link)
{
	free(link->names);
	free(link->given);
	free(link->image);
	free(link);
}

static struct link *make(unsigned count, const CUjit_option *names, void **values)
{
	struct link *link = calloc(1, sizeof *link);

	if (!link)
		return NULL;
	link->names = calloc(count + 1, sizeof *names);
	link->given = calloc(count + 1, sizeof *values);
	if (!link->names || !link->given) {
		drop(link);
		return NULL;
	}
	link->values = values; /* the program's own: sizes of logs are written there */
	link->option_count = count;
	if (count)
		memcpy(link->names, names, count * sizeof *names);
	if (count && values)
		memcpy(link->given, values, count * sizeof *values);
	return link;
}

/* Into the buffers of the creation, with all the room that they had then. */
static const uint8_t *take_logs(const struct link *link, const struct bf_wait *wait)
{
	struct bf_options created = { link->option_count, link->names, link->values };

	for (unsigned i = 0; link->values && i < link->option_count; i++)
		if (link->names[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ||
		    link->names[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
			link->values[i] = link->given[i];
	return bf_load_logs(wait, &created);
}

BF_EXPORT CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option *options, void **optionValues,
				   CUlinkState *stateOut)
{
	struct bf_load load = { .kind = BF_LOAD_LINK_CREATE };
	struct bf_options jit = { numOptions, options, optionValues };
	struct bf_image nothing = { 0 };
	struct bf_wait wait = { 0 };
	CUresult status = bf_check();
	struct link *link;

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	if (!stateOut || (numOptions && !options))
		return CUDA_ERROR_INVALID_VALUE;
	link = make(numOptions, options, optionValues);
	load.handle = bf_handle_new(BF_LINKSTATE, NULL);
	if (!link || !load.handle)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = bf_load(&load, NULL, &jit, &no_options, &nothing, &wait);
	bf_wait_drop(&wait);
	if (status) {
		bf_handle_free(load.handle);
		drop(link);
		return status;
	}
	bf_handle_start(BF_LINKSTATE, load.handle);
	link->handle = load.handle;
	pthread_mutex_lock(&lock);
	link->next = links;
	links = link;
	pthread_mutex_unlock(&lock);
	*stateOut = (CUlinkState)(uintptr_t)load.handle;
	return CUDA_SUCCESS;
}

static CUresult add(struct link *link, CUjitInputType type, const struct bf_image *image, const char *name,
		    const struct bf_options *options)
{
	struct bf_load load = { .kind = BF_LOAD_LINK, .handle = link->handle, .input_type = type };
	struct bf_wait wait = { 0 };
	CUresult status = bf_load(&load, name ? name : "input", options, &no_options, image, &wait);

	take_logs(link, &wait);
	bf_wait_drop(&wait);
	return status;
}

BF_EXPORT CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
				    unsigned int numOptions, CUjit_option *options, void **optionValues)
{
	struct bf_options jit = { numOptions, options, optionValues };
	struct bf_image image = { .data = data, .size = size };
	struct link *link;
	CUresult status = find(state, &link);

	if (status)
		return status;
	if (!data || !size || size > BF_MAX_IMAGE)
		return CUDA_ERROR_INVALID_VALUE;
	return add(link, type, &image, name, &jit);
}

BF_EXPORT CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
				    CUjit_option *options, void **optionValues)
{
	struct bf_options jit = { numOptions, options, optionValues };
	struct bf_image image;
	struct link *link;
	CUresult status = find(state, &link);

	if (!status)
		status = bf_image_of_file(path, &image);
	if (status)
		return status;
	status = add(link, type, &image, path, &jit);
	bf_image_close(&image);
	return status;
}

BF_EXPORT CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
	struct bf_load load = { .kind = BF_LOAD_LINK_COMPLETE };
	struct bf_wait wait = { .data_grows = true };
	struct bf_image nothing = { 0 };
	const uint8_t *rest;
	uint64_t size = 0;
	struct link *link;
	CUresult status = find(state, &link);

	if (status)
		return status;
	if (!cubinOut || !sizeOut)
		return CUDA_ERROR_INVALID_VALUE;
	load.handle = link->handle;
	status = bf_load(&load, NULL, &no_options, &no_options, &nothing, &wait);
	rest = take_logs(link, &wait);
	if (rest && wait.body + wait.body_size - rest >= 8)
		memcpy(&size, rest, 8);
	if (!status && (!wait.data || size > wait.data_size || size > wait.data_came))
		status = CUDA_ERROR_UNKNOWN;
	bf_wait_drop(&wait);
	free(link->image);
	link->image = wait.data;
	if (status)
		return status;
	*cubinOut = link->image;
	*sizeOut = size;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuLinkDestroy(CUlinkState state)
{
	struct link *link, **at;
	CUresult status = find(state, &link);

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	for (at = &links; *at && *at != link; at = &(*at)->next)
		;
	if (*at)
		*at = link->next;
	pthread_mutex_unlock(&lock);
	drop(link);
	return BF_CALL(cuLinkDestroy, BF_ARG(state));
}
