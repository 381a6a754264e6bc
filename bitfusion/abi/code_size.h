/* SPDX-License-Identifier: Apache-2.0
 *
 * How long code is that programs pass without saying so, from its own headers, and whether a file has all of it.
 */
#ifndef BITFUSION_ABI_CODE_SIZE_H
#define BITFUSION_ABI_CODE_SIZE_H

#include "container.h"
#include "readable.h"

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define CODE_MAX ((uint64_t)2 << 30)

/* Why there is nothing to load, as every loader says it. */
#define CODE_IS_UNKNOWN "the code is neither PTX nor a fatbin nor an ELF file"
#define CODE_IS_BEYOND "the code is cut off: its headers speak of more than the memory that is there"
#define CODE_IS_CUT "the file is cut off, or is no code"

static inline bool code_begins(const void *code, uint32_t magic)
{
	/* the first byte decides how much more there certainly is */
	return *(const uint8_t *)code == (magic & 0xff) && !memcmp(code, &magic, sizeof magic);
}

static inline bool code_is_elf(const void *code)
{
	return *(const char *)code == ELFMAG0 && !memcmp(code, ELFMAG, SELFMAG);
}

static inline uint64_t code_later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t code_elf_tables(const Elf64_Ehdr *header)
{
	return code_later(header->e_shoff + (uint64_t)header->e_shnum * header->e_shentsize,
			  header->e_phoff + (uint64_t)header->e_phnum * header->e_phentsize);
}

static inline uint64_t code_elf_size(const uint8_t *bytes)
{
	Elf64_Ehdr header;
	uint64_t end;

	if (!readable(bytes, sizeof header))
		return sizeof header;
	memcpy(&header, bytes, sizeof header);
	end = code_elf_tables(&header);
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_shoff > CODE_MAX || header.e_phoff > CODE_MAX ||
	    end > CODE_MAX || (header.e_shnum && header.e_shentsize != sizeof(Elf64_Shdr)) ||
	    (header.e_phnum && header.e_phentsize != sizeof(Elf64_Phdr)))
		return 0;
	if (!readable(bytes, end))
		return end;
	for (unsigned i = 0; i < header.e_shnum; i++) {
		Elf64_Shdr section;

		memcpy(&section, bytes + header.e_shoff + i * sizeof section, sizeof section);
		if (section.sh_type != SHT_NOBITS)
			end = code_later(end, section.sh_offset + section.sh_size);
	}
	for (unsigned i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr segment;

		memcpy(&segment, bytes + header.e_phoff + i * sizeof segment, sizeof segment);
		end = code_later(end, segment.p_offset + segment.p_filesz);
	}
	return end;
}

/* Of code without a wrapper, as it says itself: who reads that much asks code_is_there() first. 0 when its headers make
 * no sense. Text: without its NUL. */
static inline uint64_t code_size(const void *code, bool *text)
{
	uint64_t size;

	*text = false;
	if (code_begins(code, FATBIN_MAGIC)) {
		struct fatbin_header header;

		if (!readable(code, sizeof header))
			return sizeof header;
		memcpy(&header, code, sizeof header);
		size = header.header_size + header.size;
		return size < header.size || size > CODE_MAX ? 0 : size;
	}
	if (code_is_elf(code)) {
		size = code_elf_size((const uint8_t *)code);
		return size > CODE_MAX ? 0 : size;
	}
	*text = true;
	size = strnlen((const char *)code, CODE_MAX);
	return size == CODE_MAX ? 0 : size;
}

/* Whether memory has all that code_size() found; text was read to its end. */
static inline bool code_is_there(const void *code, uint64_t size, bool text)
{
	return text || readable(code, size);
}

/* Whether a file, with a NUL behind it, has all that it says of itself. What it says may be wrong. */
static inline bool code_is_whole(const void *code, size_t size)
{
	bool text;

	if (size >= sizeof(uint32_t) && (code_begins(code, WRAPPER_MAGIC) || /* which has an address of a process */
					 (code_begins(code, FATBIN_MAGIC) && size < sizeof(struct fatbin_header))))
		return false;
	if (size >= SELFMAG && code_is_elf(code)) {
		Elf64_Ehdr header;

		if (size < sizeof header)
			return false;
		memcpy(&header, code, sizeof header);
		if (header.e_shoff > size || header.e_phoff > size || code_elf_tables(&header) > size)
			return false;
	}
	return code_size(code, &text) <= size;
}

#endif
