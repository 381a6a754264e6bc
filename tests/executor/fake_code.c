/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake driver's modules, kernels and launches.
 */
#define _GNU_SOURCE
#include "fake_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kernel {
	const char *name;
	enum what what;
	unsigned parameters;
};
static const struct kernel kernels[] = {
	{ "store", STORE, 2 }, { "spin", SPIN, 1 }, { "fault", FAULT, 0 },
	{ "print", PRINT, 0 }, { "nap", NAP, 1 },   { "held", NAP, 1 },
};

struct wrapper {
	uint32_t magic, version;
	const char *data;
	const char *const *inputs;
};

/* The code of a wrapper, and what it was linked from, in the log. */
static const char *unwrap(const void *image, char log[64])
{
	struct wrapper wrapper;
	strcpy(log, "what the compiler said");
	if (memcmp(image, "\xb1\x43\x62\x46", 4) != 0)
		return image;
	memcpy(&wrapper, image, sizeof(wrapper));
	if (wrapper.version != 2)
		return wrapper.data;
	int size = sprintf(log, "%.8s of", wrapper.data);
	for (unsigned i = 0; wrapper.inputs[i]; i++)
		size += size < 50 ? sprintf(log + size, " %.8s", wrapper.inputs[i]) : 0;
	return wrapper.data;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
	ENTER();
	NEED_CONTEXT();
	char log[64];
	const char *code = unwrap(image, log);
	for (unsigned i = 0; i < count; i++) {
		if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
			strcpy(values[i], log);
	}
	if (memcmp(code, "code", 4))
		return CUDA_ERROR_INVALID_IMAGE;
	struct object *made = calloc(1, sizeof(*made));
	made->magic = MAGIC_MODULE;
	*module = (CUmodule)made;
	return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module)
{
	ENTER();
	struct object *object = CHECK(module, MAGIC_MODULE, "module to unload");
	pthread_mutex_lock(&lock);
	wait_idle();
	pthread_mutex_unlock(&lock);
	object->magic = 0;
	return CUDA_SUCCESS;
}

static void hold(const char *name)
{
	pthread_mutex_lock(&lock);
	while (!strcmp(name, "held") && !stored)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *size, CUmodule module, const char *name)
{
	ENTER();
	CHECK(module, MAGIC_MODULE, "module of a variable");
	hold(name);
	CHECK(module, MAGIC_MODULE, "module unloaded under a variable");
	*address = 0x1000;
	*size = strlen(name);
	return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	ENTER();
	CHECK(module, MAGIC_MODULE, "module of a function");
	hold(name);
	CHECK(module, MAGIC_MODULE, "module unloaded under a function");
	for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++) {
		if (strcmp(kernels[i].name, name))
			continue;
		*function = (CUfunction)&kernels[i];
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t i, size_t *offset, size_t *size)
{
	const struct kernel *kernel = (const struct kernel *)function;
	if (i >= kernel->parameters)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = 8 * i;
	*size = i ? 4 : 8;
	return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	*value = 100 + (int)attribute;
	return attribute < 10 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
			unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra)
{
	ENTER();
	NEED_CONTEXT();
	const struct kernel *kernel = (const struct kernel *)function;
	if (kernel < kernels || kernel >= kernels + sizeof(kernels) / sizeof(*kernels))
		misuse("function to launch");
	uint64_t value[2] = { 0, 0 };
	if (extra)
		memcpy(value, extra[1], *(size_t *)extra[3] < sizeof(value) ? *(size_t *)extra[3] : sizeof(value));
	if ((kernel->what == STORE || kernel->what == SPIN) && !valid(value[0], 1))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream, (struct work){ .what = kernel->what,
					  .to = (void *)(uintptr_t)value[0],
					  .number = (unsigned)(kernel->what == NAP ? value[0] : value[1]) });
}
