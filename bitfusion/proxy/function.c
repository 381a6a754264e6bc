/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of modules and kernels of libraries. What a launch and a query need comes with the handle: layout of
 * the parameters, attributes.
 */
#define _GNU_SOURCE
#include "proof.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = BF_MAX_PARAMETERS };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct bf_parameter *take_parameters(const struct bf_wait *wait, const struct bf_function_info *info)
{
	size_t size = (size_t)info->parameter_count * sizeof(struct bf_parameter);
	struct bf_parameter *parameters;

	if (info->parameter_count > MAX_PARAMETERS || info->parameters_size > BF_MAX_PARAMETERS ||
	    wait->body_size < sizeof *info + size)
		return NULL;
	parameters = malloc(size + 1);
	if (!parameters)
		return NULL;
	if (size)
		memcpy(parameters, wait->body + sizeof *info, size);
	for (unsigned i = 0; i < info->parameter_count; i++)
		if (parameters[i].offset > info->parameters_size ||
		    parameters[i].size > info->parameters_size - parameters[i].offset) {
			free(parameters);
			return NULL;
		}
	return parameters;
}

/* An entry that was used before keeps its old layout in memory for a launch that may be reading it. */
static void take_attributes(struct bf_function *function, const struct bf_function_info *info)
{
	for (int i = 0; i < BF_FUNCTION_ATTRIBUTES; i++)
		atomic_store_explicit(&function->attribute[i], info->attribute[i], memory_order_relaxed);
	function->device = bf_self.current ? bf_context_at(bf_self.current)->device : 0;
	atomic_store(&function->attribute_valid, info->attribute_valid);
}

static CUresult fill_entry(struct bf_function *function, const struct bf_wait *wait,
			   const struct bf_function_info *info, uint64_t parent, const char *name)
{
	struct bf_parameter *parameters = take_parameters(wait, info);

	if (!parameters)
		return CUDA_ERROR_UNKNOWN;
	function->parameter_count = info->parameter_count;
	function->parameters_size = info->parameters_size;
	function->parameters = parameters;
	take_attributes(function, info);
	atomic_store(&function->loaded, false);
	bf_proof_clear(&function->proof);
	function->parent = parent;
	if (BF_HANDLE_KIND(parent) == BF_MODULE && bf_handle_find(BF_MODULE, parent))
		function->entry.context = ((const struct bf_entry *)bf_handle_find(BF_MODULE, parent))->context;
	function->function = 0;
	function->name = strdup(name);
	return CUDA_SUCCESS;
}

/* Those that were found by their place have no attributes, until they are asked for by name. */
static void describe(struct bf_function *function, const struct bf_function_info *info)
{
	if (!atomic_load(&function->attribute_valid) && info->attribute_valid)
		take_attributes(function, info);
}

/* What was asked for by its place comes with its name. */
static const char *name_of(const struct bf_wait *wait, const struct bf_function_info *info)
{
	size_t before = sizeof *info + (size_t)info->parameter_count * sizeof(struct bf_parameter);

	if (info->parameter_count > MAX_PARAMETERS || !info->name_size || wait->body_size < before + info->name_size ||
	    wait->body[before + info->name_size - 1])
		return NULL;
	return (const char *)wait->body + before;
}

/* The driver may have given this function before: then the reply names the handle of that time. */
static CUresult accept_info(const struct bf_wait *wait, uint64_t proposed, uint64_t parent, const char *name,
			    uint64_t *handle)
{
	enum bf_handle_kind kind = (enum bf_handle_kind)BF_HANDLE_KIND(proposed);
	struct bf_function_info info;
	CUresult status;

	if (wait->body_size < sizeof info)
		return CUDA_ERROR_UNKNOWN;
	memcpy(&info, wait->body, sizeof info);
	if (info.handle != proposed) {
		*handle = info.handle;
		if (!bf_handle_find(kind, info.handle)) {
			bf_debug("the server has '%s' by a handle that is gone", name ? name : "a function");
			return CUDA_ERROR_UNKNOWN;
		}
		describe(bf_handle_find(kind, info.handle), &info);
		return CUDA_ERROR_ALREADY_MAPPED;
	}
	if (!name)
		name = name_of(wait, &info);
	if (!name)
		return CUDA_ERROR_UNKNOWN;
	status = fill_entry(bf_handle_entry(kind, BF_HANDLE_INDEX(proposed)), wait, &info, parent, name);
	if (status)
		return status;
	bf_handle_start(kind, proposed);
	*handle = proposed;
	return CUDA_SUCCESS;
}

static CUresult ask(struct bf_wait *wait, uint64_t parent, uint64_t proposed, const char *name, uint32_t place)
{
	size_t name_size = BF_HANDLE_KIND(parent) == BF_KERNEL || !name ? 0 : strlen(name) + 1;
	size_t size = sizeof(struct bf_command) + sizeof(struct bf_get_function) + BF_PAD8(name_size);
	struct bf_get_function body = { parent, proposed, (uint32_t)name_size, place };
	uint8_t *command;

	if (size > BF_MAX_COMMAND)
		return CUDA_ERROR_INVALID_VALUE;
	command = bf_queue_begin(BF_OP_GET_FUNCTION, size, BF_WANTS_REPLY, bf_self.current);
	if (!command)
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	((struct bf_command *)command)->request = bf_wait_add(wait, BF_OP_GET_FUNCTION);
	command += sizeof(struct bf_command);
	memcpy(command, &body, sizeof body);
	memset(command + sizeof body, 0, BF_PAD8(name_size));
	if (name_size)
		memcpy(command + sizeof body, name, name_size);
	bf_queue_end(BF_NOW);
	return bf_wait_for_result(wait);
}

static CUresult get(uint64_t parent, enum bf_handle_kind kind, const char *name, uint32_t place, uint64_t *handle)
{
	uint64_t proposed = bf_handle_new(kind, NULL);
	struct bf_wait wait = { 0 };
	uint64_t found = 0;
	CUresult status;

	if (!proposed)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&lock); /* two threads may ask for the same one */
	status = ask(&wait, parent, proposed, name, place);
	if (!status)
		status = accept_info(&wait, proposed, parent, name, &found);
	pthread_mutex_unlock(&lock);
	bf_wait_drop(&wait);
	if (status)
		bf_handle_free(proposed);
	if (status && status != CUDA_ERROR_ALREADY_MAPPED)
		return status;
	*handle = found;
	return CUDA_SUCCESS;
}

CUresult bf_function_get(uint64_t parent, enum bf_handle_kind kind, const char *name, uint64_t *handle)
{
	return get(parent, kind, name, 0, handle);
}

CUresult bf_function_list(uint64_t parent, enum bf_handle_kind kind, uint64_t *handles, unsigned capacity,
			  unsigned count)
{
	CUresult status = CUDA_SUCCESS;

	for (unsigned i = 0; !status && i < capacity && i < count; i++)
		status = get(parent, kind, NULL, i + 1, &handles[i]);
	return status;
}

void bf_function_free_parent(uint64_t parent)
{
	static const enum bf_handle_kind kinds[] = { BF_FUNCTION, BF_KERNEL };

	for (int k = 0; k < 2; k++)
		for (uint32_t i = 1; i < bf_handle_count(kinds[k]); i++) {
			struct bf_function *function = bf_handle_entry(kinds[k], i);

			if (function && bf_is_alive(&function->entry) && function->parent == parent)
				bf_handle_free(BF_HANDLE(kinds[k], i));
		}
}
