/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine runs compiled PTX on the CPU, a warp of 32 lanes at a time. It knows nothing of the driver
 * API: no contexts, no streams. The driver (softgpu/driver) gives it memory ranges, images and launches.
 */
#ifndef SOFTGPU_ENGINE_H
#define SOFTGPU_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* ------------------------------------------------------------------ what kernels may touch */

/* The address ranges of one device (or process): every global or generic access is checked against it.
 * Adding and removing takes a lock; finding is lock-free and may run beside both. */
struct sg_space;
struct sg_space *sg_space_create(void);
void sg_space_destroy(struct sg_space *space);
int sg_space_add(struct sg_space *space, uint64_t base, uint64_t size); /* 0, or -1 when it overlaps or no memory */
int sg_space_remove(struct sg_space *space, uint64_t base);             /* 0, or -1 when unknown */
int sg_space_find(struct sg_space *space, uint64_t address, uint64_t *base, uint64_t *size); /* 1 found, 0 not */

/* ------------------------------------------------------------------ images */

/* What the PTX front end produced: position independent, read-only, may be shared by several modules. */
struct sg_image;
/* Copies what it needs. NULL on a damaged or foreign image, with a one-line reason. */
struct sg_image *sg_image_parse(const void *bytes, size_t size, char *reason, size_t reason_size);
void sg_image_free(struct sg_image *image);

struct sg_variable {
	const char *name;
	uint64_t size, align;
	int constant; /* .const, else .global */
	int managed;  /* .attribute(.managed) */
};
unsigned sg_image_variable_count(const struct sg_image *image);
const struct sg_variable *sg_image_variable(const struct sg_image *image, unsigned index);

struct sg_parameter {
	uint32_t offset, size;
};
struct sg_kernel {
	const char *name;
	uint32_t parameter_count, parameters_size;
	const struct sg_parameter *parameters;
	uint32_t registers;       /* CU_FUNC_ATTRIBUTE_NUM_REGS: 32-bit registers a thread uses, our estimate */
	uint32_t static_shared;   /* bytes */
	uint32_t local_bytes;     /* per thread */
	uint32_t const_bytes;
	uint32_t max_threads;     /* .maxntid product, or 1024 */
	uint32_t required_block[3]; /* .reqntid, or 0 */
	uint32_t required_cluster[3];
	int ptx_version, target;  /* 90 for 9.0, 75 for sm_75 */
	uint32_t max_cluster;     /* .maxclusterrank, or 0 */
	int explicit_cluster;     /* a launch has to give the size, unless required_cluster does */
};

unsigned sg_image_kernel_count(const struct sg_image *image);
/* The same index in every module of it. */
const struct sg_kernel *sg_image_kernel(const struct sg_image *image, unsigned index);
uint64_t sg_image_version(void); /* SG_IMAGE_VERSION: what sg_image_parse accepts */
/* "v3" (AVX2 and FMA) or "baseline": the handlers that an image gets which is parsed now. */
const char *sg_handler_set(void);

/* An image placed in device memory: globals have addresses and their initial bytes, code is relocated. */
struct sg_module;
/* address[i] is the device address of variable i, at least sg_image_variable(i)->align aligned, already in the
 * space. resolve gives the address of a variable or, in linked images, nothing is left unresolved.
 * Writes the initial bytes. NULL when out of memory or the image has unresolved externs (reason says which). */
struct sg_module *sg_module_create(const struct sg_image *image, const uint64_t *address, char *reason,
				   size_t reason_size);
/* The same for an image that shares variables with others: only those whose byte in fresh is not 0 are initialised. */
struct sg_module *sg_module_join(const struct sg_image *image, const uint64_t *address, const uint8_t *fresh,
				 char *reason, size_t reason_size);
void sg_module_free(struct sg_module *module);
const struct sg_image *sg_module_image(const struct sg_module *module);
unsigned sg_module_kernel_count(const struct sg_module *module);
const struct sg_kernel *sg_module_kernel(const struct sg_module *module, unsigned index);

/* ------------------------------------------------------------------ launches */

/* State that the launches of one context share: device malloc heap, printf FIFO, cooperative workspace. */
struct sg_context;
struct sg_context *sg_context_create(struct sg_space *space, uint64_t heap_bytes, uint64_t printf_bytes);
void sg_context_destroy(struct sg_context *context);
/* Other sizes, while no kernel has used what they are of: 0, 1 when one has, -1 when there is no memory. */
int sg_context_set_heap(struct sg_context *context, uint64_t bytes);
int sg_context_set_text(struct sg_context *context, uint64_t bytes);
/* Takes formatted device printf text out of the FIFO: returns bytes written to text (0: empty). */
size_t sg_context_take_output(struct sg_context *context, char *text, size_t size);
/* The same for the lines of assertions that failed, which have a FIFO of their own. */
size_t sg_context_take_assertions(struct sg_context *context, char *text, size_t size);

struct sg_launch {
	const struct sg_module *module;
	const struct sg_kernel *kernel;
	struct sg_context *context;
	uint32_t grid[3], block[3], cluster[3]; /* cluster 0,0,0: none */
	uint32_t dynamic_shared;
	int cooperative;
	const void *parameters; /* kernel->parameters_size bytes */
	const volatile int *cancel; /* not NULL: stop soon when it becomes non-zero; written atomically */
};

struct sg_fault {
	int error;      /* CUresult: 700 ILLEGAL_ADDRESS, 716 MISALIGNED_ADDRESS, 710 ASSERT, 715 ILLEGAL_INSTRUCTION,
	                 * 718 INVALID_PC, 719 LAUNCH_FAILED, 702 LAUNCH_TIMEOUT … */
	char text[400]; /* one line: kernel, block, thread, PTX line, instruction, address */
};

/* The threads that run blocks, shared by every launch of the process. 0 threads: one per CPU. */
struct sg_pool;
struct sg_pool *sg_pool_create(unsigned threads);
void sg_pool_destroy(struct sg_pool *pool);
/* Whether these clusters can be run; sg_launch asks it too. 0, or the CUresult that is in fault->error. */
int sg_cluster_check(const struct sg_kernel *kernel, const uint32_t grid[3], const uint32_t cluster[3],
		     struct sg_fault *fault);
/* Runs the whole grid on the pool and the calling thread; several callers may launch at once and share the pool
 * fairly. 0, or the CUresult that is in fault->error. */
int sg_launch(struct sg_pool *pool, const struct sg_launch *launch, struct sg_fault *fault);

/* Blocks of a kernel that fit one multiprocessor (the figure occupancy queries want). */
struct sg_limits {
	uint32_t threads_per_sm, blocks_per_sm, registers_per_sm, shared_per_sm, reserved_shared_per_block;
};
unsigned sg_occupancy(const struct sg_kernel *kernel, const struct sg_limits *limits, uint32_t block_threads,
		      uint64_t dynamic_shared);

#pragma GCC visibility pop

#endif
