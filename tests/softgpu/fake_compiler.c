/* SPDX-License-Identifier: Apache-2.0
 *
 * Stands for NVRTC and libNVVM: knows sm_90 and sm_121, and remembers the options it was given.
 */
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { INVALID_OPTION = 5, NVVM_INVALID_OPTION = 7 };

static char given[256];
static const char ptx[] = ".version 9.0", cubin[] = "\177ELF of a real GPU";
static int makes_ptx = 1;

static int remember(int count, const char *const *options)
{
	given[0] = 0;
	for (int i = 0; i < count; i++) {
		strcat(given, options[i]);
		strcat(given, " ");
	}
	return strstr(given, "_130") != NULL;
}

EXPORT const char *options_given(void)
{
	return given;
}

EXPORT void make_ptx(int yes)
{
	makes_ptx = yes;
}

EXPORT int nvrtcCompileProgram(void *program, int count, const char *const *options)
{
	return remember(count, options) ? INVALID_OPTION : 0;
}

EXPORT int nvrtcGetNumSupportedArchs(int *count)
{
	*count = 2;
	return 0;
}

EXPORT int nvrtcGetSupportedArchs(int *archs)
{
	archs[0] = 90;
	archs[1] = 121;
	return 0;
}

EXPORT int nvrtcGetPTXSize(void *program, size_t *size)
{
	*size = makes_ptx ? sizeof ptx : 1;
	return 0;
}

EXPORT int nvrtcGetPTX(void *program, char *text)
{
	memcpy(text, ptx, sizeof ptx);
	return 0;
}

EXPORT int nvrtcGetCUBINSize(void *program, size_t *size)
{
	*size = sizeof cubin;
	return 0;
}

EXPORT int nvrtcGetCUBIN(void *program, char *bytes)
{
	memcpy(bytes, cubin, sizeof cubin);
	return 0;
}

/* An older one, which knows nothing after sm_90. */
EXPORT int nvvmCompileProgram(void *program, int count, const char **options)
{
	remember(count, options);
	return strstr(given, "_12") ? NVVM_INVALID_OPTION : 0;
}
