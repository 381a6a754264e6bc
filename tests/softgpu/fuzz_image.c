/* SPDX-License-Identifier: Apache-2.0
 *
 * Damages an image at random and runs whatever the engine still accepts: fuzz_image FILE SEED COUNT. Built with
 * sanitizers. Prints how many were refused and how many ran.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../bitfusion/softgpu/engine/engine.h"

static uint64_t state;
static volatile int cancel;
static volatile long deadline; /* in watchdog ticks; 0: nothing runs */

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *watch(void *unused)
{
	(void)unused;
	for (;;) {
		usleep(5000);
		if (deadline && !--deadline)
			cancel = 1;
	}
	return NULL;
}

/* Mostly words near each other in value: numbers, offsets and counts that are slightly off. */
static void damage(unsigned char *image, size_t size)
{
	const size_t header = 24 + 14 * 16;

	for (int k = (int)(next_random() % 6); k >= 0; k--) {
		const size_t at = (next_random() % 16 ? header : 0) + next_random() % (size - header - 8);
		uint32_t word;

		memcpy(&word, image + at / 4 * 4, 4);
		switch (next_random() % 6) {
		case 0: word ^= 1u << next_random() % 32; break;
		case 1: word += (uint32_t)(next_random() % 129) - 64; break;
		case 2: word = (uint32_t)next_random(); break;
		case 3: word = next_random() % 2 ? 0xffffffff : 0x7fffffff; break;
		case 4: memcpy(&word, image + header + next_random() % (size - header - 8) / 4 * 4, 4); break;
		default: word = (uint32_t)(next_random() % 1200);
		}
		memcpy(image + at / 4 * 4, &word, 4);
	}
}

struct world {
	struct sg_space *space;
	struct sg_context *context;
	struct sg_pool *pool;
	char *memory;
	unsigned char *parameters;
};

static void run_kernels(struct world *w, struct sg_module *module)
{
	for (unsigned k = 0; k < sg_module_kernel_count(module) && k < 8; k++) {
		const struct sg_kernel *kernel = sg_module_kernel(module, k);
		struct sg_launch launch = { .module = module,
					    .kernel = kernel,
					    .context = w->context,
					    .grid = { 2, 1, 1 },
					    .block = { 40, 1, 1 },
					    .dynamic_shared = 64,
					    .parameters = w->parameters,
					    .cancel = &cancel };
		struct sg_fault fault;
		char text[256];

		cancel = 0;
		deadline = 4;
		sg_launch(w->pool, &launch, &fault);
		deadline = 0;
		while (sg_context_take_output(w->context, text, sizeof(text)))
			;
	}
}

static void run_image(struct world *w, struct sg_image *image)
{
	const unsigned count = sg_image_variable_count(image);
	uint64_t *address = calloc(count + 1, sizeof(*address)), total = 0;
	struct sg_module *module;
	char reason[200];

	for (unsigned k = 0; k < count; k++)
		total += sg_image_variable(image, k)->size;
	if (total < 1 << 20) {
		for (unsigned k = 0; k < count; k++) {
			const uint64_t size = sg_image_variable(image, k)->size;

			address[k] = (uint64_t)(uintptr_t)malloc(size + 16);
			sg_space_add(w->space, address[k], size + 16);
		}
		module = sg_module_create(image, address, reason, sizeof(reason));
		run_kernels(w, module);
		sg_module_free(module);
		for (unsigned k = 0; k < count; k++) {
			sg_space_remove(w->space, address[k]);
			free((void *)(uintptr_t)address[k]);
		}
	}
	free(address);
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
	struct world w = { .space = sg_space_create(), .pool = sg_pool_create(1), .memory = calloc(1, 4096) };
	size_t size;
	unsigned char *good, *bad;
	long refused = 0, ran = 0;
	pthread_t thread;
	char reason[200];

	if (count != 4)
		return 2;
	good = read_file(words[1], &size);
	bad = malloc(size);
	state = strtoull(words[2], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
	w.context = sg_context_create(w.space, 4096, 4096);
	sg_space_add(w.space, (uint64_t)(uintptr_t)w.memory, 4096);
	w.parameters = calloc(1, 1 << 17);
	for (int k = 0; k < 1 << 14; k++)
		memcpy(w.parameters + 8 * k, &w.memory, sizeof(w.memory));
	pthread_create(&thread, NULL, watch, NULL);
	for (long k = strtol(words[3], NULL, 0); k > 0; k--) {
		struct sg_image *image;

		memcpy(bad, good, size);
		damage(bad, size);
		image = sg_image_parse(bad, next_random() % 50 ? size : next_random() % size, reason, sizeof(reason));
		refused += !image;
		ran += image != NULL;
		if (image)
			run_image(&w, image);
		sg_image_free(image);
	}
	sg_pool_destroy(w.pool);
	sg_context_destroy(w.context);
	sg_space_destroy(w.space);
	free(w.memory);
	free(w.parameters);
	free(good);
	free(bad);
	printf("refused %ld ran %ld\n", refused, ran);
	return 0;
}
