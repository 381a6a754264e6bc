/* SPDX-License-Identifier: Apache-2.0
 *
 * Code in memory whose headers speak of more than is there: refused, and the program goes on. NVIDIA's driver reads on.
 */
#define _GNU_SOURCE
#include "program.h"

#include <elf.h>
#include <stdint.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

/* Followed by a page that nobody may read. */
static void *at_the_end(const void *bytes, size_t size)
{
	uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE))
		exit(1);
	return memcpy(pages + PAGE - size, bytes, size);
}

static void load(const char *what, const void *bytes, size_t size)
{
	const struct {
		unsigned magic, version;
		const void *data[2];
	} wrapper = { 0x466243b1, 1, { at_the_end(bytes, size), NULL } };
	char error[100] = "";
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { error, (void *)sizeof error };
	CUmodule module;
	CUlibrary library;
	CUresult as_it_is = cuModuleLoadDataEx(&module, wrapper.data[0], 2, options, values);
	CUresult wrapped = cuModuleLoadData(&module, &wrapper);
	CUresult as_library = cuLibraryLoadData(&library, wrapper.data[0], NULL, NULL, 0, NULL, NULL, 0);

	printf("%s: %s, %s, %s\n  '%s'\n", what, error_name(as_it_is), error_name(wrapped), error_name(as_library),
	       error);
}

int main(void)
{
	static const struct {
		uint32_t magic;
		uint16_t version, header_size;
		uint64_t size;
	} fatbin = { 0xba55ed50, 1, 16, 1 << 20 };
	Elf64_Ehdr elf = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			   .e_shoff = 1 << 20,
			   .e_shnum = 3,
			   .e_shentsize = sizeof(Elf64_Shdr) };
	struct {
		Elf64_Ehdr header;
		Elf64_Shdr section;
	} section = { elf, { .sh_type = SHT_PROGBITS, .sh_offset = 1 << 20, .sh_size = 8 } };
	CUdeviceptr memory;

	section.header.e_shoff = sizeof elf;
	section.header.e_shnum = 1;
	open_device();
	load("a fat binary", &fatbin, sizeof fatbin);
	load("half its header", &fatbin, 8);
	load("an ELF file's header", &elf, sizeof elf);
	load("half of that", &elf, 32);
	load("an ELF file's sections", &section, sizeof section);
	elf.e_shoff = -(Elf64_Off)(elf.e_shnum * sizeof(Elf64_Shdr)); /* which ends at 0 */
	load("sections before it", &elf, sizeof elf);
	CHECK(cuMemAlloc_v2(&memory, PAGE));
	CHECK(cuMemFree_v2(memory));
	return 0;
}
