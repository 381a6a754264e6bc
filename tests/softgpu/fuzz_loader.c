/* SPDX-License-Identifier: Apache-2.0
 *
 * Damages fat binaries and PTX text at random and takes them apart as the driver does: fuzz_loader SEED COUNT FILE….
 * Built with sanitizers. Prints how many were refused and how many gave kernels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../bitfusion/softgpu/driver/fatbin.h"
#include "../../bitfusion/softgpu/driver/ptxtext.h"

static uint64_t state;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Bytes that mean something to the scan, and offsets that do to the headers. */
static void damage(unsigned char *bytes, size_t size)
{
	static const char telling[] = "{}\"/*;.@,()[]=\n\\ %$\0x9";
	const size_t window = next_random() % 2 ? size : (size < 100 ? size : 100);

	for (int k = (int)(next_random() % 5); k >= 0; k--) {
		const size_t at = next_random() % window, from = next_random() % size;
		size_t length = next_random() % 40;

		switch (next_random() % 5) {
		case 0: bytes[at] ^= (unsigned char)(1u << next_random() % 8); break;
		case 1: bytes[at] = (unsigned char)next_random(); break;
		case 2: bytes[at] = (unsigned char)telling[next_random() % sizeof telling]; break;
		case 3: bytes[at] = (unsigned char)(next_random() % 2 ? 0xff : 0); break;
		default:
			if (length > size - at)
				length = size - at;
			if (length > size - from)
				length = size - from;
			memmove(bytes + at, bytes + from, length);
		}
	}
}

static void look_up(struct ptx_text *text)
{
	for (uint32_t k = 0; k < text->kernel_count; k++) {
		const uint32_t item = text->kernels[k];
		struct ptx_parameter *parameters;
		size_t size = 0;

		if (ptx_find_kernel(text, text->names[k]) == PTX_NONE || !text->items[item].body)
			abort();
		ptx_parameters(&text->items[item], &parameters);
		free(parameters);
		char *slice = ptx_slice(text, &item, 1, &size);
		/* a slice is a module again, and the kernel is in it */
		struct ptx_text *again = slice ? ptx_scan(slice, size) : NULL;
		if (again && ptx_find_kernel(again, text->names[k]) == PTX_NONE)
			abort();
		if (!again)
			free(slice);
		ptx_free(again);
	}
	ptx_find_variable(text, "counter");
}

/* True if kernels were found. */
static int take_apart(const unsigned char *bytes, size_t size)
{
	size_t text_size = 0;
	char *ptx = fatbin_text(bytes, size, &text_size);

	if (!ptx && (ptx = malloc(size + 1))) {
		memcpy(ptx, bytes, size);
		ptx[size] = 0;
		text_size = size;
	}
	struct ptx_text *text = ptx ? ptx_scan(ptx, text_size) : NULL;
	const int found = text && text->kernel_count;
	if (!text) {
		free(ptx);
		return 0;
	}
	look_up(text);
	ptx_free(text);
	return found;
}

static unsigned char *read_file(const char *name, size_t *size)
{
	FILE *file = fopen(name, "rb");
	unsigned char *bytes = malloc(1 << 22);

	if (!file || !bytes)
		exit(2);
	*size = fread(bytes, 1, 1 << 22, file);
	fclose(file);
	return bytes;
}

int main(int count, char **words)
{
	long refused = 0, found = 0;

	if (count < 4)
		return 2;
	state = strtoull(words[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
	for (int k = 3; k < count; k++) {
		size_t size;
		unsigned char *good = read_file(words[k], &size);

		if (!size || !take_apart(good, size)) {
			printf("%s itself was refused\n", words[k]);
			return 1;
		}
		for (long turn = strtol(words[2], NULL, 0); turn > 0; turn--) {
			const size_t cut = next_random() % 20 ? size : next_random() % size + 1;
			unsigned char *bad = malloc(cut); /* of that size: reading over the end is seen */

			memcpy(bad, good, cut);
			damage(bad, cut);
			if (take_apart(bad, cut))
				found++;
			else
				refused++;
			free(bad);
		}
		free(good);
	}
	printf("refused %ld found %ld\n", refused, found);
	return 0;
}
