/* SPDX-License-Identifier: Apache-2.0
 *
 * Host threads that launch on one pool, in two contexts of one space, while ranges come and go:
 * stress_launches IMAGE THREADS ROUNDS. Says what was wrong, else how much ran.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../bitfusion/softgpu/engine/engine.h"

#define MAX_THREADS 16
#define BLOCK 40
#define CHURN 300 /* ranges: the table of them grows several times */

static struct sg_space *space;
static struct sg_context *contexts[2];
static struct sg_pool *pool;
static struct sg_module *module;
static atomic_int failures, launches, changes, ending;
static long rounds;

static void wrong(const char *what, const char *text)
{
	if (atomic_fetch_add(&failures, 1) < 10)
		fprintf(stderr, "%s: %s\n", what, text);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static const struct sg_kernel *find(const char *name)
{
	for (unsigned k = 0; k < sg_module_kernel_count(module); k++)
		if (!strcmp(sg_module_kernel(module, k)->name, name))
			return sg_module_kernel(module, k);
	fprintf(stderr, "no kernel %s\n", name);
	exit(2);
}

struct job {
	unsigned blocks;
	int cooperative;
	const int *cancel;
	unsigned context;
	uint32_t *memory; /* of the kernel: out */
	struct sg_fault fault;
};

static int run(struct job *job, const char *name)
{
	uint64_t out = (uint64_t)(uintptr_t)job->memory;
	struct sg_launch launch = { .module = module,
				    .kernel = find(name),
				    .context = contexts[job->context],
				    .grid = { job->blocks, 1, 1 },
				    .block = { BLOCK, 1, 1 },
				    .cooperative = job->cooperative,
				    .parameters = &out,
				    .cancel = job->cancel };
	atomic_fetch_add(&launches, 1);
	return sg_launch(pool, &launch, &job->fault);
}

static void expect(struct job *job, const char *name, int error)
{
	if (run(job, name) == error)
		return;
	wrong(name, job->fault.text);
}

static void sums(struct job *job)
{
	job->memory[-1] = UINT32_MAX;
	job->memory[-2] = 0;
	expect(job, "sums", 0);
	if (job->memory[-1] != job->memory[-2])
		wrong("sums", "the blocks of a grid have several grid numbers");
	for (unsigned i = 0; i < job->blocks * BLOCK; i++)
		if (job->memory[i] != i / BLOCK * 1000 + BLOCK * (BLOCK - 1) / 2) {
			wrong("sums", "wrong value");
			return;
		}
}

static void count_zero(struct job *job, const char *name)
{
	job->memory[0] = 0;
	expect(job, name, 0);
	if (job->memory[0])
		wrong(name, "some threads found something wrong");
}

struct later {
	int cancel;
	uint32_t *memory;
	int remove;
};

/* Ends a kernel that runs: by telling it to stop, or by taking away the memory that it reads. */
static void *end_soon(void *argument)
{
	struct later *later = argument;

	usleep(3000);
	if (later->remove)
		sg_space_remove(space, (uint64_t)(uintptr_t)(later->memory - 2));
	else
		__atomic_store_n(&later->cancel, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void endless(struct job *job, size_t bytes, int remove)
{
	struct later later = { .memory = job->memory, .remove = remove };
	pthread_t thread;

	job->memory[0] = 0;
	job->cancel = &later.cancel;
	pthread_create(&thread, NULL, end_soon, &later);
	expect(job, "spin", remove ? 700 : 702);
	pthread_join(thread, NULL);
	job->cancel = NULL;
	if (remove)
		sg_space_add(space, (uint64_t)(uintptr_t)(job->memory - 2), bytes);
}

static void one_round(uint64_t *state)
{
	struct job job = { .blocks = 1 + next_random(state) % 12, .context = next_random(state) % 2 };
	const size_t bytes = 4 * (2 + job.blocks * BLOCK);
	uint32_t *memory = calloc(1, bytes);

	job.memory = memory + 2;
	if (sg_space_add(space, (uint64_t)(uintptr_t)memory, bytes))
		wrong("space", "a range was refused");
	switch (next_random(state) % 8) {
	case 0:
	case 1: sums(&job); break;
	case 2:
		job.cooperative = 1;
		expect(&job, "meet", 0);
		break;
	case 3: expect(&job, "meet", 0); break;
	case 4: count_zero(&job, "heap"); break;
	case 5: count_zero(&job, "talk"); break;
	case 6: expect(&job, "wrong", 700); break;
	default: endless(&job, bytes, next_random(state) % 2);
	}
	if (sg_space_remove(space, (uint64_t)(uintptr_t)memory))
		wrong("space", "a range was not there");
	free(memory);
}

static void *launcher(void *argument)
{
	uint64_t state = 0x9e3779b97f4a7c15ull * (uintptr_t)argument;

	for (long k = 0; k < rounds; k++)
		one_round(&state);
	return NULL;
}

/* Ranges that nobody accesses, at addresses that nobody has, among, below and above the others. */
static void *changer(void *argument)
{
	const uint64_t first = ((uint64_t)(uintptr_t)argument << 40) + 4096, step = 1 << 20;
	uint64_t state = first, base, size;
	char there[CHURN] = { 0 };

	while (!atomic_load(&ending)) {
		const unsigned k = next_random(&state) % CHURN;
		const uint64_t at = first + k * step;

		if (there[k] ? sg_space_remove(space, at) : sg_space_add(space, at, 4096 + k))
			wrong("space", "adding or removing failed");
		there[k] = !there[k];
		if (sg_space_find(space, at + 4095, &base, &size) != there[k] ||
		    (there[k] && (base != at || size != 4096 + k)))
			wrong("space", "a range is not what it was made");
		atomic_fetch_add(&changes, 1);
		if (k % 16 == 0)
			usleep(200);
	}
	return NULL;
}

/* Takes printed text and sees that no line was torn. */
static void *listener(void *argument)
{
	struct sg_context *context = argument;
	char text[999];
	size_t size;

	do {
		usleep(500);
		while ((size = sg_context_take_output(context, text, sizeof(text))))
			for (size_t k = 0; k < size; k++)
				if (text[k] != "xy\n"[k % 3])
					wrong("talk", "a line was torn");
	} while (!atomic_load(&ending));
	return NULL;
}

static void load(const char *name)
{
	FILE *file = fopen(name, "rb");
	unsigned char *bytes = malloc(1 << 20);
	const size_t size = file && bytes ? fread(bytes, 1, 1 << 20, file) : 0;
	uint64_t addresses[8];
	char reason[200] = "cannot read it";
	struct sg_image *image = size ? sg_image_parse(bytes, size, reason, sizeof(reason)) : NULL;

	for (unsigned k = 0; image && k < sg_image_variable_count(image) && k < 8; k++) {
		addresses[k] = (uint64_t)(uintptr_t)malloc(64);
		sg_space_add(space, addresses[k], 64);
	}
	module = image ? sg_module_create(image, addresses, reason, sizeof(reason)) : NULL;
	if (!module) {
		fprintf(stderr, "%s: %s\n", name, reason);
		exit(2);
	}
	free(bytes);
	fclose(file);
}

int main(int count, char **words)
{
	pthread_t threads[MAX_THREADS], others[4];
	const long launchers = count == 4 ? strtol(words[2], NULL, 0) : 0;

	if (launchers < 1 || launchers > MAX_THREADS)
		return 2;
	rounds = strtol(words[3], NULL, 0);
	space = sg_space_create();
	pool = sg_pool_create(3);
	for (int k = 0; k < 2; k++)
		contexts[k] = sg_context_create(space, 1 << 20, 1 << 20);
	load(words[1]);
	for (int k = 0; k < 2; k++) {
		pthread_create(&others[k], NULL, listener, contexts[k]);
		pthread_create(&others[2 + k], NULL, changer, (void *)(uintptr_t)(k ? 0x10 : 0xe0));
	}
	for (long k = 0; k < launchers; k++)
		pthread_create(&threads[k], NULL, launcher, (void *)(uintptr_t)(k + 1));
	for (long k = 0; k < launchers; k++)
		pthread_join(threads[k], NULL);
	atomic_store(&ending, 1);
	for (int k = 0; k < 4; k++)
		pthread_join(others[k], NULL);
	sg_pool_destroy(pool);
	for (int k = 0; k < 2; k++)
		sg_context_destroy(contexts[k]);
	sg_space_destroy(space);
	printf("launches %d changes %d failures %d\n", launches, changes, failures);
	return failures != 0;
}
