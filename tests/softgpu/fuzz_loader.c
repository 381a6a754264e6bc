/* SPDX-License-Identifier: Apache-2.0
 *
 * Damages fat binaries and PTX text at random and takes them apart as the driver does: fuzz_loader SEED COUNT FILE….
 * Built with sanitizers. Prints how many were refused and how many gave kernels.
 */
#include "../../bitfusion/softgpu/driver/fatbin.h"
#include "../../bitfusion/softgpu/driver/ptxtext.h"
#include "fuzz_damage.h"

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

int main(int count, char **words)
{
	long refused = 0, found = 0;

	if (count < 4)
		return 2;
	seed_random(words[1]);
	for (int k = 3; k < count; k++) {
		size_t size;
		unsigned char *good = read_file(words[k], &size);

		if (!size || !take_apart(good, size)) {
			printf("%s itself was refused\n", words[k]);
			return 1;
		}
		for (long turn = strtol(words[2], NULL, 0); turn > 0; turn--) {
			size_t cut;
			unsigned char *bad = damaged(good, size, &cut);

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
