/* SPDX-License-Identifier: Apache-2.0
 *
 * Fat binaries, as the front end's fatbin.py reads them. All sizes come from files that we did not make: each is
 * checked before it is used.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "fatbin.h"
#include "../../abi/container.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { KIND_PTX = 1, KIND_LINK_INPUT = 0x4246, LINK_INPUT_PTX = 2 /* nvJitLink's number */ };
enum { FLAG_LZ4 = 0x2000, FLAG_ZSTD = 0x8000 };
enum { MAX_CANDIDATES = 256 };
#define MAX_UNPACKED ((uint64_t)256 << 20) /* of one */
#define MAX_TRIED ((uint64_t)1 << 30)      /* of all that are looked into */

struct entry {
	struct fatbin_entry head;
	const unsigned char *payload;
};

struct members {
	struct entry list[MAX_CANDIDATES]; /* PTX that the device takes */
	unsigned count, links;
};

/* ------------------------------------------------------------------ LZ4 blocks */

/* A length of which the token had 15, continued in bytes up to one that is not 255. */
static int read_length(const unsigned char **at, const unsigned char *end, size_t *length)
{
	unsigned char more = 255;
	while (more == 255) {
		if (*at == end)
			return 0;
		more = *(*at)++;
		*length += more;
	}
	return 1;
}

static int unpack_lz4(const unsigned char *at, size_t packed, unsigned char *to, size_t size)
{
	const unsigned char *end = at + packed;
	size_t made = 0;
	while (at < end) {
		const unsigned token = *at++;
		size_t length = token >> 4;
		if (length == 15 && !read_length(&at, end, &length))
			return 0;
		if (length > (size_t)(end - at) || length > size - made)
			return 0;
		memcpy(to + made, at, length);
		made += length;
		at += length;
		if (at == end)
			break;
		if (end - at < 2)
			return 0;
		const size_t distance = at[0] | (size_t)at[1] << 8;
		at += 2;
		length = token & 15;
		if (length == 15 && !read_length(&at, end, &length))
			return 0;
		length += 4;
		if (!distance || distance > made || length > size - made)
			return 0;
		for (size_t i = 0; i < length; i++) /* what is copied may overlap what it makes */
			to[made + i] = to[made + i - distance];
		made += length;
	}
	return made == size;
}

/* ------------------------------------------------------------------ entries */

typedef size_t zstd_decompress(void *to, size_t room, const void *from, size_t size);

/* Systems have this library for their packages; where it is missing, the front end's Python may have a decoder. */
static int unpack_zstd(const void *from, size_t packed, void *to, size_t size)
{
	void *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
	zstd_decompress *decompress = NULL;
	if (library)
		*(void **)&decompress = dlsym(library, "ZSTD_decompress");
	const int good = decompress && decompress(to, size, from, packed) == size;
	if (library)
		dlclose(library);
	return good;
}

static uint64_t unpacked_size(const struct fatbin_entry *head)
{
	return head->flags & (FLAG_LZ4 | FLAG_ZSTD) ? head->size : head->stored;
}

static char *unpack(const struct entry *entry, size_t *text_size)
{
	const struct fatbin_entry *head = &entry->head;
	const size_t packed = head->compressed ? head->compressed : head->stored;
	const uint64_t size = unpacked_size(head);
	if (!size || size > MAX_UNPACKED)
		return NULL;
	char *text = malloc(size + 1);
	int good = text != NULL;
	if (good && head->flags & FLAG_ZSTD)
		good = unpack_zstd(entry->payload, packed, text, size);
	else if (good && head->flags & FLAG_LZ4)
		good = unpack_lz4(entry->payload, packed, (unsigned char *)text, size);
	else if (good)
		memcpy(text, entry->payload, size);
	if (!good) {
		free(text);
		return NULL;
	}
	text[size] = 0;
	*text_size = strlen(text);
	return text;
}

static int add_entry(struct members *members, const struct entry *entry)
{
	const struct fatbin_entry *head = &entry->head;
	members->links += head->kind == KIND_LINK_INPUT;
	if (head->kind != KIND_LINK_INPUT && (head->kind != KIND_PTX || head->arch > NEWEST_PTX))
		return 1;
	if (members->count == MAX_CANDIDATES)
		return 0;
	members->list[members->count++] = *entry;
	return 1;
}

static int read_entries(struct members *members, const unsigned char *at, const unsigned char *end)
{
	while (at < end) {
		struct entry entry;
		const size_t left = (size_t)(end - at);
		if (left < sizeof entry.head)
			return 0;
		memcpy(&entry.head, at, sizeof entry.head);
		const struct fatbin_entry *head = &entry.head;
		if (head->header_size < sizeof *head || head->header_size > left ||
		    head->stored > left - head->header_size || head->compressed > head->stored)
			return 0;
		entry.payload = at + head->header_size;
		at = entry.payload + head->stored;
		if (!add_entry(members, &entry))
			return 0;
	}
	return 1;
}

/* Fat binaries may follow each other directly. */
static int read_members(struct members *members, const unsigned char *at, size_t left)
{
	struct fatbin_header header;
	while (left >= sizeof header) {
		memcpy(&header, at, sizeof header);
		if (header.magic != FATBIN_MAGIC)
			break;
		if (header.header_size < sizeof header || header.header_size > left ||
		    header.size > left - header.header_size)
			return 0;
		at += header.header_size;
		left -= header.header_size;
		if (!read_entries(members, at, at + header.size))
			return 0;
		at += header.size;
		left -= header.size;
	}
	return members->count != 0;
}

/* ------------------------------------------------------------------ choosing */

/* Newest first; of equals, the first in the file. */
static int is_newer(const struct fatbin_entry *a, const struct fatbin_entry *b)
{
	if (a->arch != b->arch)
		return a->arch > b->arch;
	return a->major != b->major ? a->major > b->major : a->minor > b->minor;
}

/* sm_90a: for one architecture alone. */
static int is_special(const char *text)
{
	const char *target = strstr(text, ".target");
	target = target ? target + strcspn(target, " \t") : NULL;
	if (!target)
		return 0;
	target += strspn(target, " \t");
	const size_t size = strcspn(target, ", \t\r\n");
	return size && (target[size - 1] == 'a' || target[size - 1] == 'f');
}

static char *choose(struct members *members, size_t *size)
{
	char *special = NULL;
	uint64_t tried = 0;
	while (members->count && tried <= MAX_TRIED) {
		unsigned best = 0;
		for (unsigned i = 1; i < members->count; i++)
			if (is_newer(&members->list[i].head, &members->list[best].head))
				best = i;
		size_t have = 0;
		char *text = unpack(&members->list[best], &have);
		if (!text || !is_special(text)) {
			free(special);
			*size = have;
			return text;
		}
		tried += unpacked_size(&members->list[best].head); /* which is not above MAX_UNPACKED */
		if (special) {
			free(text);
		} else {
			special = text;
			*size = have;
		}
		members->count--;
		memmove(&members->list[best], &members->list[best + 1],
			(members->count - best) * sizeof *members->list);
	}
	if (!members->count)
		return special;
	free(special); /* the front end says what is wrong */
	return NULL;
}

char *fatbin_text(const void *bytes, size_t size, size_t *text_size)
{
	struct members *members = calloc(1, sizeof *members);
	char *text = NULL;
	if (!members)
		return NULL;
	if (read_members(members, bytes, size)) {
		const struct fatbin_entry *first = &members->list[0].head;
		if (!members->links)
			text = choose(members, text_size);
		else if (members->count == 1 && first->arch == LINK_INPUT_PTX && !first->minor)
			text = unpack(&members->list[0], text_size);
	}
	free(members);
	return text;
}
