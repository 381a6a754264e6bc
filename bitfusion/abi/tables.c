/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables behind cuGetExportTable. Runtimes ask for them by UUID and call some of their slots; what each slot
 * must do was found by running unmodified runtimes against a recording stub. All answers are local to the
 * process. Every other UUID is refused: a table of dummies is worse than none (NVRTC 13 then believes in
 * a feature that is not there).
 */
#include "tables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A slot that no runtime we know calls. */
static CUresult unknown_slot(void)
{
	if (getenv("BITFUSION_DEBUG"))
		fprintf(stderr, "bitfusion: an unknown slot of a hidden driver table was called\n");
	return CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult succeed(void)
{
	return CUDA_SUCCESS;
}

#define SLOT(function) ((void *)(uintptr_t)(function))
#define UNKNOWN SLOT(unknown_slot)
#define UNKNOWN_4 UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
#define UNKNOWN_12 UNKNOWN_4, UNKNOWN_4, UNKNOWN_4

/* ------------------------------------------------------------------ CUDART_INTERFACE */

static CUresult load_image(CUmodule *module, const void *image)
{
	return abi_host.load_module(module, image);
}

static CUresult primary_context(CUcontext *context, CUdevice device)
{
	if (!context)
		return CUDA_ERROR_INVALID_VALUE;
	*context = abi_host.primary_context(device);
	return *context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult register_module(CUmodule *module, const void *wrapper, void *options, void *values, size_t count)
{
	return count ? CUDA_ERROR_NOT_SUPPORTED : load_image(module, wrapper);
}

static CUresult load_fatbin(const void *fatbin, CUmodule *module, void *options, void *values, uint32_t count)
{
	return count ? CUDA_ERROR_NOT_SUPPORTED : load_image(module, fatbin);
}

void *const abi_table_cudart[13] = {
	(void *)sizeof abi_table_cudart,
	SLOT(load_image),
	SLOT(primary_context),
	UNKNOWN,
	UNKNOWN,
	UNKNOWN,
	SLOT(register_module),
	SLOT(succeed), /* unregister a module */
	SLOT(load_fatbin),
	UNKNOWN,
	UNKNOWN,
	UNKNOWN,
	SLOT(succeed), /* load the compilers: there are none to load */
};

/* ------------------------------------------------------------------ TOOLS_RUNTIME_CALLBACK_HOOKS
 * Zeroed buffers mean that no tool has subscribed. */

static uint64_t runtime_hooks[1024], resource_hooks[64];

static void get_runtime_hooks(void **buffer, size_t *count)
{
	*buffer = runtime_hooks;
	*count = sizeof runtime_hooks / sizeof *runtime_hooks;
}

static void get_resource_hooks(void **buffer, size_t *count)
{
	*buffer = resource_hooks;
	*count = 14;
}

static CUresult no_subscriber(CUcontext context, uint64_t *out)
{
	if (out)
		*out = 0;
	return CUDA_SUCCESS;
}

static void *const table_hooks[7] = {
	(void *)sizeof table_hooks, SLOT(succeed), SLOT(get_runtime_hooks),  SLOT(succeed),
	SLOT(no_subscriber),        SLOT(succeed), SLOT(get_resource_hooks),
};

/* ------------------------------------------------------------------ TOOLS_TLS */

static CUresult current_context(CUcontext *context)
{
	*context = abi_host.current_context();
	return CUDA_SUCCESS;
}

static void *const table_tls[4] = {
	(void *)sizeof table_tls,
	SLOT(succeed),
	SLOT(current_context),
	SLOT(succeed),
};

/* ------------------------------------------------------------------ CONTEXT_LOCAL_STORAGE: no size word, NULL at the end */

static void *const table_storage[4] = {
	SLOT(abi_storage_put),
	SLOT(abi_storage_delete),
	SLOT(abi_storage_get),
	NULL,
};

/* ------------------------------------------------------------------ CONTEXT_CHECKS */

static CUresult check_context(CUcontext context, uint32_t *wrapped, void **unwrapped)
{
	if (wrapped)
		*wrapped = 0; /* an ordinary context, no green one */
	return CUDA_SUCCESS;
}

static void *const table_checks[17] = {
	(void *)sizeof table_checks, UNKNOWN, SLOT(check_context), SLOT(succeed), UNKNOWN_12, UNKNOWN,
};

/* ------------------------------------------------------------------ INTEGRITY_CHECK */

void *const abi_table_integrity[3] = {
	(void *)sizeof abi_table_integrity,
	SLOT(abi_integrity_check),
	SLOT(succeed),
};

/* ------------------------------------------------------------------ the context table that cuBLAS asks for at its first GEMM */

static CUresult context_device(CUcontext context, CUdevice *device)
{
	return abi_host.context_device(context ? context : abi_host.current_context(), device);
}

static CUresult context_number(CUcontext context, uint64_t *number)
{
	*number = abi_host.context_id(context ? context : abi_host.current_context());
	return CUDA_SUCCESS;
}

/* The stream's own number stands for its object: cuBLAS only hands it back to stream_number(). */
static CUresult stream_object(CUcontext context, CUstream stream, void **object)
{
	if (stream == (CUstream)(intptr_t)-1)
		return CUDA_ERROR_INVALID_HANDLE;
	*object = (void *)(uintptr_t)abi_host.stream_id(context ? context : abi_host.current_context(), stream);
	return *object ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult stream_number(CUcontext context, void *object, uint64_t *number)
{
	*number = (uintptr_t)object;
	return CUDA_SUCCESS;
}

static CUresult nothing_found(void *object, void **out)
{
	if (out)
		*out = NULL;
	return CUDA_SUCCESS;
}

static void *const table_context[64] = {
	(void *)sizeof table_context,
	UNKNOWN,
	UNKNOWN,
	SLOT(context_device),
	SLOT(context_number), /* 0-4 */
	UNKNOWN_4,
	UNKNOWN_4,
	UNKNOWN,
	UNKNOWN,
	UNKNOWN, /* 5-15 */
	SLOT(nothing_found),
	UNKNOWN_12,
	UNKNOWN_4,
	UNKNOWN_4,
	UNKNOWN,
	UNKNOWN, /* 16-38 */
	SLOT(stream_number),
	UNKNOWN_4,
	UNKNOWN_4,
	UNKNOWN,
	UNKNOWN,
	UNKNOWN, /* 39-50 */
	SLOT(stream_object),
	UNKNOWN_12, /* 51-63 */
};

/* ------------------------------------------------------------------ the table of functions that cuFFT asks for
 * It loads modules of one kernel and takes what it is shown last; 1 tells it that this went well. */

static int each_function(CUcontext context, CUmodule module, void (*show)(void *user, CUfunction function), void *user)
{
	unsigned count = 0;
	CUresult result = cuModuleGetFunctionCount(&count, module);
	CUfunction *functions = result ? NULL : calloc(count + 1, sizeof *functions);

	if (!result)
		result = functions ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (!result && count)
		result = cuModuleEnumerateFunctions(functions, count, module);
	for (unsigned i = 0; !result && i < count; i++)
		show(user, functions[i]);
	free(functions);
	return result == CUDA_SUCCESS;
}

static void *const table_functions[64] = {
	(void *)sizeof table_functions,
	UNKNOWN_4,
	UNKNOWN,
	UNKNOWN, /* 0-6 */
	SLOT(each_function),
	UNKNOWN_12,
	UNKNOWN_12,
	UNKNOWN_12,
	UNKNOWN_12,
	UNKNOWN_4,
	UNKNOWN_4, /* 7-63 */
};

/* ------------------------------------------------------------------ */

static const struct {
	uint8_t id[16];
	const void *table;
} served[] = {
	{ "\x6b\xd5\xfb\x6c\x5b\xf4\xe7\x4a\x89\x87\xd9\x39\x12\xfd\x9d\xf9", abi_table_cudart },
	{ "\xa0\x94\x79\x8c\x2e\x74\x2e\x74\x93\xf2\x08\x00\x20\x0c\x0a\x66", table_hooks },
	{ "\x42\xd8\x5a\x81\x23\xf6\xcb\x47\x82\x98\xf6\xe7\x8a\x3a\xec\xdc", table_tls },
	{ "\xc6\x93\x33\x6e\x11\x21\xdf\x11\xa8\xc3\x68\xf3\x55\xd8\x95\x93", table_storage },
	{ "\x26\x3e\x88\x60\x7c\xd2\x61\x43\x92\xf6\xbb\xd5\x00\x6d\xfa\x7e", table_checks },
	{ "\xd4\x08\x20\x55\xbd\xe6\x70\x4b\x8d\x34\xba\x12\x3c\x66\xe1\xf2", abi_table_integrity },
	{ "\x21\x31\x8c\x60\x97\x14\x32\x48\x8c\xa6\x41\xff\x73\x24\xc8\xf2", table_context },
	{ "\x6e\x16\x3f\xbe\xb9\x58\x44\x4d\x83\x5c\xe1\x82\xaf\xf1\x99\x1e", table_functions },
};

CUresult abi_get_export_table(const void **table, const CUuuid *id, const void *caller)
{
	if (!table || !id)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < sizeof served / sizeof *served; i++)
		if (!memcmp(served[i].id, id, sizeof served[i].id)) {
			*table = served[i].table;
			if (*table == abi_table_cudart)
				abi_note_runtime(caller);
			return CUDA_SUCCESS;
		}
	*table = NULL;
	return CUDA_ERROR_NOT_FOUND;
}
