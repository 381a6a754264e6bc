/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions and kernels by name, answered with everything that the client needs to launch them: the layout
 * of their parameters and their attributes.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = 4096 };

struct answer {
	struct bf_function_info info;
	struct {
		uint32_t offset, size;
	} parameter[MAX_PARAMETERS];
};

static CUresult parameter(struct bf_session *session, bool kernel, uint64_t function, size_t i, size_t *offset,
			  size_t *size)
{
	struct bf_driver *driver = session->driver;
	if (kernel)
		return driver->cuKernelGetParamInfo
			       ? driver->cuKernelGetParamInfo((CUkernel)(uintptr_t)function, i, offset, size)
			       : CUDA_ERROR_NOT_SUPPORTED;
	return driver->cuFuncGetParamInfo ? driver->cuFuncGetParamInfo((CUfunction)(uintptr_t)function, i, offset, size)
					  : CUDA_ERROR_NOT_SUPPORTED;
}

static void describe_parameters(struct bf_session *session, bool kernel, uint64_t function, struct answer *answer)
{
	for (size_t i = 0; i < MAX_PARAMETERS; i++) {
		size_t offset = 0, size = 0;
		if (parameter(session, kernel, function, i, &offset, &size) != CUDA_SUCCESS)
			break;
		answer->parameter[i].offset = (uint32_t)offset;
		answer->parameter[i].size = (uint32_t)size;
		answer->info.parameter_count++;
		if (offset + size > answer->info.parameters_size)
			answer->info.parameters_size = (uint32_t)(offset + size);
	}
}

static void describe_attributes(struct bf_session *session, bool kernel, uint64_t function,
				struct bf_function_info *info)
{
	struct bf_driver *driver = session->driver;
	int device = kernel ? bf_context_device(session) : 0;
	if (device < 0)
		return; /* a kernel's attributes are those on one device */
	for (int i = 0; i < BF_FUNCTION_ATTRIBUTES; i++) {
		CUresult status = CUDA_ERROR_NOT_SUPPORTED;
		if (kernel && driver->cuKernelGetAttribute)
			status = driver->cuKernelGetAttribute(&info->attribute[i], (CUfunction_attribute)i,
							      (CUkernel)(uintptr_t)function, session->ordinal[device]);
		else if (!kernel && driver->cuFuncGetAttribute)
			status = driver->cuFuncGetAttribute(&info->attribute[i], (CUfunction_attribute)i,
							    (CUfunction)(uintptr_t)function);
		if (status == CUDA_SUCCESS)
			info->attribute_valid |= 1u << i;
	}
}

struct wanted {
	struct bf_get_function get;
	const char *name;
	unsigned parent, kind;
	uint64_t value;
};

/* With it the context gets its own copy of the library's variables. */
static CUresult kernel_function(struct bf_session *session, struct wanted *wanted, CUkernel kernel)
{
	const struct bf_entry *entry =
		bf_handle_entry(&session->handles, BF_KERNEL, BF_HANDLE_INDEX(wanted->get.parent));
	uint32_t library = entry ? entry->owner & 0xffffff : 0;
	struct bf_code_memory before;
	if (!session->driver->cuKernelGetFunction)
		return CUDA_ERROR_NOT_SUPPORTED;
	bf_code_measure(session, &before);
	CUresult status = session->driver->cuKernelGetFunction((CUfunction *)&wanted->value, kernel);
	if (status != CUDA_SUCCESS || !library)
		return status;
	return bf_code_charge(session, &before, BF_HANDLE(BF_LIBRARY, library), BF_OUTLIVES);
}

static CUresult look_up(struct bf_session *session, struct wanted *wanted)
{
	struct bf_driver *driver = session->driver;
	uint64_t parent = 0;
	if (!bf_handle_resolve(&session->handles, wanted->parent, wanted->get.parent, &parent) || !parent)
		return CUDA_ERROR_INVALID_HANDLE;
	switch (wanted->parent) {
	case BF_MODULE:
		return driver->cuModuleGetFunction((CUfunction *)&wanted->value, (CUmodule)(uintptr_t)parent,
						   wanted->name);
	case BF_LIBRARY:
		if (!driver->cuLibraryGetKernel)
			return CUDA_ERROR_NOT_SUPPORTED;
		return driver->cuLibraryGetKernel((CUkernel *)&wanted->value, (CUlibrary)(uintptr_t)parent,
						  wanted->name);
	default: return kernel_function(session, wanted, (CUkernel)(uintptr_t)parent);
	}
}

static bool read_wanted(struct wanted *wanted, const uint8_t *body, size_t size)
{
	memcpy(&wanted->get, body, sizeof(wanted->get));
	uint32_t text = wanted->get.text_size;
	wanted->parent = BF_HANDLE_KIND(wanted->get.parent);
	wanted->kind = wanted->parent == BF_LIBRARY ? BF_KERNEL : BF_FUNCTION;
	wanted->name = (const char *)body + sizeof(wanted->get);
	if (size < sizeof(wanted->get) + (size_t)text || !bf_handle_is(wanted->get.parent, wanted->parent) ||
	    !bf_handle_is(wanted->get.proposed, wanted->kind))
		return false;
	if (wanted->parent == BF_KERNEL)
		return text == 0;
	return (wanted->parent == BF_MODULE || wanted->parent == BF_LIBRARY) && text && !wanted->name[text - 1];
}

void bf_op_get_function(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct wanted wanted = { .value = 0 };
	if (!read_wanted(&wanted, body, size)) {
		bf_violation(session, "bad look-up of a function");
		return;
	}
	struct answer *answer = calloc(1, sizeof(*answer));
	CUresult status = answer ? look_up(session, &wanted) : CUDA_ERROR_OUT_OF_MEMORY;
	if (status != CUDA_SUCCESS) {
		free(answer);
		bf_done(session, command, status, NULL, 0);
		return;
	}
	/* a kernel's function dies with the context it is for, all others with what they were found in */
	uint32_t owner = wanted.parent == BF_KERNEL ? bf_handle_pack(BF_HANDLE(BF_CONTEXT, command->context))
						    : bf_handle_pack(wanted.get.parent);
	bool kernel = wanted.kind == BF_KERNEL;
	answer->info.handle = bf_handle_find(&session->handles, wanted.kind, wanted.value, wanted.get.proposed, owner);
	describe_parameters(session, kernel, wanted.value, answer);
	describe_attributes(session, kernel, wanted.value, &answer->info);
	size_t bytes = sizeof(answer->info) + answer->info.parameter_count * sizeof(*answer->parameter);
	bf_done(session, command, answer->info.handle ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY, answer, bytes);
	free(answer);
}
