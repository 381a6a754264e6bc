/* SPDX-License-Identifier: Apache-2.0
 *
 * libNVVM, the compiler under numba-cuda: asked for the software GPU's architecture, it is asked for one that it knows.
 */
#include "arch.h"
#include "dlsym.h"

#include <stddef.h>
#include <string.h>

enum { OUT_OF_MEMORY = 1, INVALID_OPTION = 7 };

typedef struct program *program_handle;
typedef int (*compile_function)(program_handle, int, const char **);

static compile_function real_compile, real_verify;

/* It does not say what it knows, other than by refusing. */
static int with_known_arch(compile_function function, program_handle program, int option_count, const char **options)
{
	static const int newest[] = { 121, 120, 90, 75 };
	int status = INVALID_OPTION, exchanged = 1;

	if (option_count <= 0 || !options)
		return function(program, option_count, options);
	for (unsigned i = 0; i < sizeof newest / sizeof *newest && exchanged && status == INVALID_OPTION; i++) {
		const char **copy = arch_options(option_count, options, newest[i], &exchanged);

		if (!copy)
			return OUT_OF_MEMORY;
		status = function(program, option_count, copy);
		arch_options_free(copy);
	}
	return status;
}

static int compile(program_handle program, int option_count, const char **options)
{
	return with_known_arch(real_compile, program, option_count, options);
}

static int verify(program_handle program, int option_count, const char **options)
{
	return with_known_arch(real_verify, program, option_count, options);
}

void *nvvm_steer(void *handle, const char *name, dlsym_function find)
{
	int is_compile = !strcmp(name, "nvvmCompileProgram");
	compile_function *real = is_compile ? &real_compile : &real_verify, found;

	if (!is_compile && strcmp(name, "nvvmVerifyProgram") != 0)
		return NULL;
	found = (compile_function)find(handle, name);
	if (!found)
		return NULL;
	__atomic_store_n(real, found, __ATOMIC_RELEASE);
	return is_compile ? (void *)compile : (void *)verify;
}
