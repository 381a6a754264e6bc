/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions and kernels by name, answered with everything that the client needs to launch them: the layout
 * of their parameters and their attributes.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = 4096, MAX_NAME = 256 << 10, MAX_LIST = 1 << 20 };

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
	int device = 0;
	if (kernel && bf_context_device(session, &device) != CUDA_SUCCESS)
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
	uint64_t within; /* the driver's handle of the parent */
	uint64_t library; /* of a kernel: what brought it */
	uint64_t value;
};

/* With it the context gets its own copy of the library's variables. */
static CUresult kernel_function(struct bf_session *session, struct wanted *wanted, CUkernel kernel)
{
	struct bf_code_memory before;
	if (!session->driver->cuKernelGetFunction)
		return CUDA_ERROR_NOT_SUPPORTED;
	bf_code_measure(session, &before);
	CUresult status = session->driver->cuKernelGetFunction((CUfunction *)&wanted->value, kernel);
	if (status != CUDA_SUCCESS || !wanted->library)
		return status;
	return bf_code_charge(session, &before, wanted->library, BF_OUTLIVES);
}

static CUresult enumerate(struct bf_driver *driver, bool library, uint64_t parent, uint64_t *list, unsigned count)
{
	if (library)
		return driver->cuLibraryEnumerateKernels
			       ? driver->cuLibraryEnumerateKernels((CUkernel *)list, count,
								   (CUlibrary)(uintptr_t)parent)
			       : CUDA_ERROR_NOT_SUPPORTED;
	return driver->cuModuleEnumerateFunctions
		       ? driver->cuModuleEnumerateFunctions((CUfunction *)list, count, (CUmodule)(uintptr_t)parent)
		       : CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult count_of(struct bf_driver *driver, bool library, uint64_t parent, unsigned *count)
{
	if (library)
		return driver->cuLibraryGetKernelCount
			       ? driver->cuLibraryGetKernelCount(count, (CUlibrary)(uintptr_t)parent)
			       : CUDA_ERROR_NOT_SUPPORTED;
	return driver->cuModuleGetFunctionCount ? driver->cuModuleGetFunctionCount(count, (CUmodule)(uintptr_t)parent)
						: CUDA_ERROR_NOT_SUPPORTED;
}

/* Drivers list from the start, so all before it are listed too. */
static CUresult look_up_place(struct bf_session *session, struct wanted *wanted)
{
	struct bf_driver *driver = session->driver;
	bool library = wanted->parent == BF_LIBRARY;
	uint64_t parent = wanted->within;
	unsigned count = 0, place = wanted->get.place;
	CUresult status = count_of(driver, library, parent, &count);
	if (status != CUDA_SUCCESS)
		return status;
	if (place > count || place > MAX_LIST)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t *list = calloc(place, sizeof(*list));
	if (!list)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = enumerate(driver, library, parent, list, place);
	wanted->value = list[place - 1];
	free(list);
	if (status != CUDA_SUCCESS)
		return status;
	if (library ? !driver->cuKernelGetName : !driver->cuFuncGetName)
		return CUDA_ERROR_NOT_SUPPORTED;
	return library ? driver->cuKernelGetName(&wanted->name, (CUkernel)(uintptr_t)wanted->value)
		       : driver->cuFuncGetName(&wanted->name, (CUfunction)(uintptr_t)wanted->value);
}

static CUresult look_up(struct bf_session *session, struct wanted *wanted)
{
	struct bf_driver *driver = session->driver;
	uint64_t parent = wanted->within;
	if (wanted->get.place)
		return look_up_place(session, wanted);
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
		return text == 0 && !wanted->get.place;
	if (wanted->parent != BF_MODULE && wanted->parent != BF_LIBRARY)
		return false;
	return wanted->get.place ? text == 0 : text && !wanted->name[text - 1];
}

/* On the issue thread, for commands behind this one may give the parent back. */
static CUresult find_parent(struct bf_session *session, struct wanted *wanted)
{
	struct bf_handles *handles = &session->handles;
	if (!bf_handle_resolve(handles, wanted->parent, wanted->get.parent, &wanted->within) || !wanted->within)
		return CUDA_ERROR_INVALID_HANDLE;
	if (wanted->parent == BF_KERNEL)
		wanted->library = bf_handle_unpack(
			bf_handle_entry(handles, BF_KERNEL, BF_HANDLE_INDEX(wanted->get.parent))->owner);
	return CUDA_SUCCESS;
}

static void describe(struct bf_session *session, const struct wanted *wanted, struct answer *answer)
{
	bool kernel = wanted->kind == BF_KERNEL;
	describe_parameters(session, kernel, wanted->value, answer);
	if (!wanted->get.place)
		describe_attributes(session, kernel, wanted->value, &answer->info);
}

static void respond(struct bf_session *session, const struct bf_command *command, const struct wanted *wanted,
		    struct answer *answer)
{
	size_t name = wanted->get.place && wanted->name ? strlen(wanted->name) + 1 : 0;
	size_t bytes = sizeof(answer->info) + answer->info.parameter_count * sizeof(*answer->parameter);
	uint8_t *body = name <= MAX_NAME ? calloc(1, bytes + bf_pad(name)) : NULL;
	if (!body || !answer->info.handle) {
		bf_done(session, command, CUDA_ERROR_OUT_OF_MEMORY, NULL, 0);
		free(body);
		return;
	}
	answer->info.name_size = (uint32_t)bf_pad(name);
	memcpy(body, answer, bytes);
	if (name)
		memcpy(body + bytes, wanted->name, name);
	bf_done(session, command, CUDA_SUCCESS, body, bytes + bf_pad(name));
	free(body);
}

static void get_function(struct bf_session *session, const struct bf_command *command, struct wanted *wanted)
{
	struct answer *answer = calloc(1, sizeof(*answer));
	CUresult status = answer ? look_up(session, wanted) : CUDA_ERROR_OUT_OF_MEMORY;
	if (status != CUDA_SUCCESS) {
		free(answer);
		bf_done(session, command, status, NULL, 0);
		return;
	}
	answer->info.handle = bf_handle_find(&session->handles, wanted->kind, wanted->value, wanted->get.proposed,
					     bf_handle_pack(wanted->get.parent));
	if (wanted->parent == BF_KERNEL) /* which may outlive the context that this is for */
		bf_handle_own(&session->handles, answer->info.handle,
			      bf_handle_pack(BF_HANDLE(BF_CONTEXT, command->context)));
	describe(session, wanted, answer);
	respond(session, command, wanted, answer);
	free(answer);
}

struct look_up_job {
	struct bf_job job;
	struct bf_command command;
	struct wanted wanted;
	struct bf_use use;
	char name[];
};

static void run_look_up(struct bf_session *session, struct bf_job *job)
{
	struct look_up_job *work = (struct look_up_job *)job;
	CUresult status = bf_context_ensure(session, work->command.context);
	if (status == CUDA_SUCCESS)
		get_function(session, &work->command, &work->wanted);
	else
		bf_done(session, &work->command, status, NULL, 0);
	bf_use_end(session, &work->use);
	free(work);
}

static struct look_up_job *make_job(const struct bf_command *command, const struct wanted *wanted)
{
	size_t text = wanted->get.text_size;
	struct look_up_job *work = calloc(1, sizeof(*work) + text);
	if (!work)
		return NULL;
	work->job.run = run_look_up;
	work->command = *command;
	work->wanted = *wanted;
	work->wanted.name = memcpy(work->name, wanted->name, text);
	return work;
}

/* Drivers compile and load code when it is first asked for. Only the thread that asks has to wait for that. */
void bf_op_get_function(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct wanted wanted = { .value = 0 };
	if (!read_wanted(&wanted, body, size)) {
		bf_violation(session, "bad look-up of a function");
		return;
	}
	CUresult status = find_parent(session, &wanted);
	if (status != CUDA_SUCCESS) {
		bf_done(session, command, status, NULL, 0);
		return;
	}
	struct look_up_job *work = command->flags & BF_WANTS_REPLY ? make_job(command, &wanted) : NULL;
	if (work)
		bf_use_begin(session, &work->use, command->context, wanted.get.parent);
	if (work && bf_submit(session, &work->job))
		return;
	if (work)
		bf_use_end(session, &work->use);
	free(work);
	get_function(session, command, &wanted);
}
