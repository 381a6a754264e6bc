/* SPDX-License-Identifier: Apache-2.0
 *
 * The software GPU's libcuda.so.1: what its files share. One file per kind of CUDA object; the engine
 * (../engine/engine.h) runs the kernels and knows nothing of what is here.
 *
 * Locks, outermost first: modules.lock (library.c) > memory.lock (arena.c) > contexts.lock (context.c) >
 * queue.lock (queue.c: streams, work, events, captures, graphs) > the object table's.
 */
#ifndef SOFTGPU_DRIVER_H
#define SOFTGPU_DRIVER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "abi.h"
#include "cuda.h"

#include "../compute.h"
#include "../engine/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { DRIVER_VERSION = 13000, MAX_DEVICES = 64, WARP = 32, MAX_BLOCK_THREADS = 1024 };
enum { STATIC_SHARED = 48 << 10, OPTIN_SHARED = 99 << 10, SM_SHARED = 100 << 10, RESERVED_SHARED = 1 << 10 };
enum { SM_THREADS = 1536, SM_BLOCKS = 24, SM_REGISTERS = 65536, SM_COUNT = 16 };

#define EXPORT __attribute__((visibility("default")))
#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

/* ------------------------------------------------------------------ objects behind handles (object.c) */

enum object_kind {
	OBJECT_FREE,
	OBJECT_CONTEXT,
	OBJECT_STREAM,
	OBJECT_EVENT,
	OBJECT_MODULE,
	OBJECT_FUNCTION,
	OBJECT_LIBRARY,
	OBJECT_KERNEL,
	OBJECT_POOL,
	OBJECT_ALLOCATION,
	OBJECT_LINK,
	OBJECT_GRAPH,
	OBJECT_NODE,
	OBJECT_EXEC,
	OBJECT_USER,
	OBJECT_ARRAY,
	OBJECT_MIPMAP,
};

/* First member of everything a handle points to. */
struct object {
	_Atomic uint32_t kind;
	uint32_t size_class;
};

void *object_new(enum object_kind kind, size_t size); /* zeroed; NULL when out of memory */
void object_retire(void *object);                     /* the handle is invalid from now on, the memory stays */
void object_free(void *object);
/* The object when the handle is one of that kind, else NULL: any bit pattern may be asked about. */
void *object_get(const void *handle, enum object_kind kind);
enum object_kind object_kind_of(const void *handle);

/* ------------------------------------------------------------------ the driver as a whole (init.c) */

struct device;

extern struct driver {
	_Atomic int state; /* enum driver_state */
	int device_count;
	int debug;
	struct device *devices;
	struct sg_space *space; /* unified addressing: what any kernel of this process may touch */
	struct sg_pool *pool;
} driver;

enum driver_state { DRIVER_FRESH, DRIVER_READY, DRIVER_FORKED, DRIVER_GONE };

CUresult driver_enter(void); /* CUDA_SUCCESS when cuInit was called, here, and we still are */
void driver_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void driver_say(const char *text); /* one line that must be seen */
struct sg_pool *driver_pool(void);
extern __thread int in_host_function; /* callbacks must not call CUDA */

#define TRY(expression) \
	do { \
		CUresult try_ = (expression); \
		if (try_ != CUDA_SUCCESS) \
			return try_; \
	} while (0)
/* Opens an API function that needs the driver, or also a current context in good health. */
#define ENTER() TRY(driver_enter())
#define ENTER_CONTEXT(name) \
	struct context *name = NULL; \
	TRY(context_enter(&name))

/* ------------------------------------------------------------------ devices (device.c) */

struct tree;
struct context;
struct pool;

struct device {
	int index, hardware; /* as numbered for the program, and among all of the machine */
	uint8_t uuid[16];
	uint64_t memory;
	struct arena *arena;
	struct context *primary;
	struct pool *default_pool, *current_pool, *graph_pool;
	struct pool *pools; /* of all, the last one made first; under memory_lock */
};

struct device *device_get(CUdevice device); /* NULL when there is none of that number */
CUresult devices_create(void);
int device_attribute(const struct device *device, CUdevice_attribute attribute, int *value);
extern const struct sg_limits device_limits;

/* ------------------------------------------------------------------ contexts (context.c) */

struct stream;
enum { LIMIT_COUNT = 16 };

struct context {
	struct object object;
	struct device *device;
	uint64_t id;
	unsigned flags;
	int primary, retained; /* retained: count of a primary context */
	_Atomic int alive;
	_Atomic int error;   /* sticky CUresult */
	int cancel;          /* running kernels stop when set; accessed atomically */
	size_t limits[LIMIT_COUNT];
	CUfunc_cache cache_config;
	unsigned api_version;
	struct sg_context *_Atomic engine; /* made by the first launch, under a lock; read without */
	struct stream *legacy;     /* the default stream */
	struct stream *streams;    /* all of it; under queue.lock */
	struct module *modules;    /* under modules.lock */
	uint64_t peers;            /* bit per device */
};

CUresult context_enter(struct context **context); /* the calling thread's, or why not */
struct context *context_current(void);
struct context *context_get(CUcontext handle); /* NULL when it is not a context's handle, dead or alive */
CUresult context_activate(struct context *context);
CUresult context_create(struct context **context, struct device *device, unsigned flags);
void context_die(struct context *context);
void context_cancel_all(void);
static inline int context_cancelled(const struct context *context)
{
	return __atomic_load_n(&context->cancel, __ATOMIC_RELAXED);
}
void context_defaults(struct context *context);
struct sg_context *context_engine(struct context *context);
void context_fail(struct context *context, CUresult error, const char *text);
void context_flush_output(struct context *context);
CUresult context_error(struct context *context); /* what a kernel did; what kernels said of it is out then */
CUresult context_synchronize(struct context *context);
CUresult context_push(struct context *context);
struct context *context_pop(void);
extern pthread_mutex_t contexts_lock;

/* ------------------------------------------------------------------ images, modules, kernels (image.c, module.c, library.c) */

struct ptx_text;

/* Compiled as a whole, or kernel by kernel when they are first used. */
struct image {
	_Atomic int references;
	struct sg_image *whole; /* or NULL, and then: */
	struct ptx_text *text;
	pthread_mutex_t lock; /* of what follows; taken before the helper's */
	struct part *kernels; /* by number */
	struct part *variables; /* by the item asked for */
	unsigned variable_parts;
};

/* What the options of a load or a link ask for. */
struct jit_options {
	char *info, *error;
	size_t info_size, error_size;
	void **info_slot, **error_slot; /* the sizes written go back here */
	float *wall_time_slot;
};
void jit_options_read(struct jit_options *options, unsigned count, const CUjit_option *names, void **values);
void jit_options_report(const struct jit_options *options, CUresult result, const char *text);

/* From whatever a program may pass (wrapper, fatbin, ELF, PTX text, our own) to something runnable. */
CUresult image_load(struct image **image, const void *code, const struct jit_options *options);
void image_release(struct image *image);
int image_is_eager(void); /* the program wants all code to be compiled when it is loaded */
uint64_t image_size(const void *code, const void **start, int *text); /* 0 when it is nothing we know */

struct function {
	struct object object;
	struct module *module;
	struct kernel *kernel; /* the library's, or NULL */
	unsigned index;
	const struct sg_kernel *code; /* these two: when it is loaded */
	struct sg_module *placed;
	int max_dynamic_shared, carveout, cluster_nonportable;
	int cluster[3]; /* required of launches, by attribute */
	CUfunc_cache cache_config;
};

/* A variable that has its place. */
struct placed {
	const char *name;
	uint64_t address, size;
	int managed, borrowed; /* borrowed: the library's */
};

struct module {
	struct object object;
	struct context *context;
	struct library *library; /* NULL: loaded as a module */
	struct image *image;
	struct sg_module **parts; /* of the images that were needed so far, which share the variables */
	struct placed *variables;
	unsigned part_count, variable_count;
	struct function **functions;
	unsigned function_count;
	struct module *next;
};

struct kernel {
	struct object object;
	struct library *library;
	unsigned index;
	int max_dynamic_shared[MAX_DEVICES], set[MAX_DEVICES];
};

struct library {
	struct object object;
	struct image *image;
	struct kernel **kernels;
	unsigned kernel_count;
	struct placed *managed; /* variables that all instances share */
	unsigned managed_count;
	struct module **instances; /* by context */
	unsigned instance_count;
};

extern pthread_mutex_t modules_lock;
CUresult module_create(struct module **module, struct context *context, struct image *image, struct library *library);
void module_free(struct module *module);
void modules_forget_context(struct context *context);
CUresult library_instance(struct library *library, struct context *context, struct module **module);
/* A CUfunction or a CUkernel, as a function of this context. */
CUresult function_find(CUfunction handle, struct context *context, struct function **function);
/* … that is loaded: it has its code and its place. */
CUresult function_resolve(CUfunction handle, struct context *context, struct function **function);
CUresult function_attribute(const struct function *function, CUfunction_attribute attribute, int *value);
CUresult kernel_attribute(const struct sg_kernel *code, int max_dynamic, CUfunction_attribute attribute, int *value);
CUresult function_load(struct function *function);

unsigned image_kernel_count(const struct image *image);
const char *image_kernel_name(const struct image *image, unsigned index);
int image_find_kernel(const struct image *image, const char *name, unsigned *index);
/* These compile what is not compiled yet. part may be NULL. */
CUresult image_kernel(struct image *image, unsigned index, const struct sg_image **part, const struct sg_kernel **code);
CUresult image_parameter(struct image *image, unsigned kernel, size_t index, size_t *offset, size_t *size);
/* An image that has this variable, or without a name all managed ones (*part is NULL where there are none). */
CUresult image_variable(struct image *image, const char *name, const struct sg_image **part);
int image_is_loaded(struct image *image, unsigned kernel);
int image_is_broken(struct image *image, unsigned kernel); /* it was compiled in vain */

/* ------------------------------------------------------------------ the PTX front end (helper.c, cache.c) */

struct helper_item {
	const void *bytes;
	uint64_t size;
	uint32_t type; /* CUjitInputType, when linking */
	const char *name;
};

/* Compiles one item (link 0) or links several. On success *image is malloc'ed; text gets the log either way. */
CUresult helper_compile(const struct helper_item *items, unsigned count, int link, void **image, size_t *size,
			char *text, size_t text_size);
void helper_expect(void); /* code is going to be loaded: starts the helper if it is likely to be needed */

/* ------------------------------------------------------------------ occupancy, launches (launch.c) */

unsigned function_blocks(const struct function *function, unsigned threads, uint64_t dynamic_shared);

#endif
