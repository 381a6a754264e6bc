/* SPDX-License-Identifier: Apache-2.0
 *
 * CuPy asks for NVRTC's functions with dlsym on the very library that it opened by its path, and so do others, so no name of ours
 * that stands in front is ever found. Therefore dlsym itself stands in front here, and exchanges a few functions of compilers
 * (nvrtc.c, nvvm.c) and all of nvJitLink's. What is linked against a library asks nobody: exports.map is for that.
 *
 * What dlsym finds depends on who calls it, by the return address (RTLD_NEXT, RTLD_DEFAULT of a library with local scope). So
 * all other questions are handed on by a jump, which leaves the caller on the stack; C cannot promise one.
 */
#define _GNU_SOURCE
#include "dlsym.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

dlsym_function real_dlsym(void)
{
	static const char *const versions[] = { "GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17" };
	static dlsym_function real; /* two threads may both look; they find the same */
	dlsym_function found = __atomic_load_n(&real, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; !found && i < sizeof versions / sizeof *versions; i++)
		found = (dlsym_function)dlvsym(RTLD_NEXT, "dlsym", versions[i]);
	__atomic_store_n(&real, found, __ATOMIC_RELEASE);
	return found;
}

/* Called by the entry below: a function of ours, or NULL and in *next where to go on. */
__attribute__((used)) void *dlsym_steer(void *handle, const char *name, dlsym_function *next)
{
	*next = real_dlsym();
	if (handle == RTLD_NEXT || name[0] != 'n' || name[1] != 'v')
		return NULL;
	if (!strncmp(name, "nvJitLink", 9))
		return (*next)(handle, name) ? (*next)(RTLD_DEFAULT, name) : NULL; /* ours are the first */
	if (!strncmp(name, "nvrtc", 5))
		return nvrtc_steer(handle, name, *next);
	return strncmp(name, "nvvm", 4) ? NULL : nvvm_steer(handle, name, *next);
}

#if defined(__x86_64__)
__asm__(".text\n"
	".globl dlsym\n"
	".type dlsym, @function\n"
	"dlsym:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	push %rdi\n"
	"	push %rsi\n"
	"	sub $8, %rsp\n"
	"	.cfi_def_cfa_offset 32\n"
	"	mov %rsp, %rdx\n"
	"	call dlsym_steer\n"
	"	mov (%rsp), %rdx\n"
	"	add $8, %rsp\n"
	"	pop %rsi\n"
	"	pop %rdi\n"
	"	.cfi_def_cfa_offset 8\n"
	"	test %rax, %rax\n"
	"	jne 1f\n"
	"	jmp *%rdx\n"
	"1:	ret\n"
	"	.cfi_endproc\n"
	".size dlsym, . - dlsym\n");
#elif defined(__aarch64__)
__asm__(".text\n"
	".globl dlsym\n"
	".type dlsym, %function\n"
	"dlsym:\n"
	"	.cfi_startproc\n"
	"	stp x29, x30, [sp, -48]!\n"
	"	.cfi_def_cfa_offset 48\n"
	"	.cfi_offset 29, -48\n"
	"	.cfi_offset 30, -40\n"
	"	mov x29, sp\n"
	"	stp x0, x1, [sp, 16]\n"
	"	add x2, sp, 32\n"
	"	bl dlsym_steer\n"
	"	mov x17, x0\n"
	"	ldp x0, x1, [sp, 16]\n"
	"	ldr x16, [sp, 32]\n"
	"	ldp x29, x30, [sp], 48\n"
	"	.cfi_def_cfa_offset 0\n"
	"	cbnz x17, 1f\n"
	"	br x16\n"
	"1:	mov x0, x17\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size dlsym, . - dlsym\n");
#endif
