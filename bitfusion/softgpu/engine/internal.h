/* SPDX-License-Identifier: Apache-2.0
 *
 * What the engine's files share. A warp is 32 lanes that run one instruction at a time; lanes at different
 * places form groups, and a group is (place, frame, mask). A register is an array over the 32 lanes, so a handler
 * is a loop over lanes that the compiler turns into vector code. A predicate register is one word, a bit a lane.
 */
#ifndef SOFTGPU_INTERNAL_H
#define SOFTGPU_INTERNAL_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine.h"
#include "generated/constants.h"
#include "records.h"

#define SG_MAX_CLUSTER 16 /* blocks */
#define SG_ALL 0xffffffffu

/* Shared addresses have the block of the cluster in their top byte: 0 the own one, else its rank plus 1. */
#define SG_TAG_SHIFT 24
#define SG_TAG_MASK 0xff000000u
#define SG_TAG(rank) (((rank) < 254 ? (uint32_t)(rank) + 1 : 255u) << SG_TAG_SHIFT)

/* CUresult values of faults. */
enum {
	SG_ILLEGAL_ADDRESS = 700,
	SG_LAUNCH_TIMEOUT = 702,
	SG_ASSERT = 710,
	SG_HARDWARE_STACK_ERROR = 714,
	SG_ILLEGAL_INSTRUCTION = 715,
	SG_MISALIGNED_ADDRESS = 716,
	SG_INVALID_ADDRESS_SPACE = 717,
	SG_INVALID_PC = 718,
	SG_LAUNCH_FAILED = 719,
	SG_NOT_SUPPORTED = 801,
	SG_INVALID_CLUSTER_SIZE = 912,
};

struct sg_module {
	const struct sg_image *image;
	char *constants; /* the image's constants, one value a lane, addresses filled in */
	uint64_t *address;
};

struct sg_frame {
	struct sg_frame *parent, *next_free, *next_all;
	const struct sg_function *function;
	const struct sg_op *call; /* returns go to the record after it */
	uint32_t mask; /* lanes in this call or in one below it */
	uint32_t depth, local_base, register_bytes;
	uint32_t grown; /* alloca was used: top says where each lane's memory of this call ends */
	uint32_t top[SG_LANES];
	char registers[] __attribute__((aligned(64)));
};

enum sg_state { SG_READY, SG_WAIT_LANES, SG_WAIT_BARRIER };

struct sg_group {
	const struct sg_op *pc;
	struct sg_frame *frame;
	uint32_t mask;
	uint16_t state;
	uint16_t resumed; /* what it waited for has happened: carry the instruction out */
	uint32_t barrier;
	uint32_t wanted; /* SG_WAIT_LANES: lanes it waits for */
	uint32_t any, all, count; /* bar.red's results */
	uint32_t stamp; /* when it last ran */
};

struct sg_block;

struct sg_warp {
	char *base[4]; /* registers of the frame, constants, this warp's and this block's special values */
	uint32_t idle; /* lanes whose registers in this frame nobody will read again */
	uint32_t mask; /* of the running group */
	uint32_t live; /* lanes that have not exited */
	uint32_t carry; /* condition code register, a bit a lane */
	int32_t budget; /* backward branches left in this slice */
	int32_t turn; /* backward branches left before another group gets its turn */
	const struct sg_op *stop; /* where another group waits to be joined */
	struct sg_frame *frame;
	struct sg_block *block;
	struct sg_frame *free_frames, *all_frames; /* of calls; all: to free them at the end */
	uint64_t frame_bytes; /* registers of all calls */
	struct sg_frame *root;
	char *local; /* lane l's memory starts at local + l * local_stride */
	uint32_t local_size; /* per lane */
	uint32_t index;
	uint32_t group_count; /* groups[0] is the running one while the warp runs */
	uint32_t clock; /* stamps */
	uint32_t arrived; /* lanes that are at the cluster's barrier, whose phase is not over */
	bool sticky; /* keep the running group although another has a lower place */
	bool finished;
	uint8_t patterns[SG_PATTERNS]; /* of addresses: what FAST_LOAD and FAST_STORE found out */
	struct sg_group groups[SG_LANES + 2];
};

#define SG_TURN 64 /* backward branches until another group of the warp gets its turn */
#define SG_BUDGET 256 /* … until another warp of the block does */
#define SG_ROUNDS 64 /* rounds of the block's warps until another block does */
#define SG_MAX_FRAMES (256u << 20) /* bytes of registers that a warp's calls may have */

#define SG_BARRIERS 16
#define SG_CLUSTER_BARRIER SG_BARRIERS /* groups that wait for the cluster's */
struct sg_barrier {
	uint32_t arrived, expected; /* threads; expected 0: all that live */
	uint32_t any, some_false, count; /* bar.red */
};

/* An address range that was looked up. Each memory instruction has one of a block's, so that instructions which work
 * on different arrays do not take turns in one. Valid while the space does not change. */
struct sg_range {
	uint64_t base, size;
};
#define SG_RANGES 32

struct sg_run; /* a launch in progress */

/* Blocks that run together, taking turns on one thread; without clusters, one. */
struct sg_cluster {
	struct sg_run *run;
	struct sg_cluster *next;
	uint32_t size;
	uint32_t arrived; /* threads at its barrier */
	struct sg_block *blocks[]; /* by rank */
};

struct sg_block {
	struct sg_run *run;
	struct sg_cluster *cluster;
	uint32_t rank;
	char *shared;
	uint32_t shared_size;
	uint32_t index[3];
	uint32_t threads; /* alive */
	uint32_t warp_count;
	uint32_t warps_left;
	bool progress; /* a warp ran since this was cleared */
	bool used; /* a block of this launch ran here before: its kernel's prologue has been run */
	uint32_t open_barriers; /* bit a barrier at which somebody has arrived */
	struct sg_barrier barriers[SG_BARRIERS];
	char *specials; /* SG_AREA_BLOCK */
	uint64_t space_version;
	struct sg_range ranges[SG_RANGES];
	char *memory;
	size_t memory_size;
	struct sg_warp *warps;
};

/* Special values in the block's area, [32] words each. */
enum {
	SG_CTAID_X,
	SG_CTAID_Y,
	SG_CTAID_Z,
	SG_NTID_X,
	SG_NTID_Y,
	SG_NTID_Z,
	SG_NCTAID_X,
	SG_NCTAID_Y,
	SG_NCTAID_Z,
	SG_ENVREG1,
	SG_ENVREG2,
	SG_DYNAMIC_SMEM,
	SG_TOTAL_SMEM,
	SG_NWARPID,
	SG_SMID,
	SG_NSMID,
	SG_GRIDID,
	SG_CLUSTERID_X,
	SG_CLUSTERID_Y,
	SG_CLUSTERID_Z,
	SG_NCLUSTERID_X,
	SG_NCLUSTERID_Y,
	SG_NCLUSTERID_Z,
	SG_CLUSTER_CTAID_X,
	SG_CLUSTER_CTAID_Y,
	SG_CLUSTER_CTAID_Z,
	SG_CLUSTER_NCTAID_X,
	SG_CLUSTER_NCTAID_Y,
	SG_CLUSTER_NCTAID_Z,
	SG_CLUSTER_CTARANK,
	SG_CLUSTER_NCTARANK,
	SG_EXPLICIT_CLUSTER,
	SG_AGGR_SMEM,
	SG_RESERVED_BEGIN,
	SG_RESERVED_1,
	SG_RESERVED_END,
	SG_BLOCK_SPECIALS
};
/* … and in the warp's. */
enum { SG_TID_X, SG_TID_Y, SG_TID_Z, SG_WARPID, SG_WARP_SPECIALS };

enum sg_outcome { SG_DONE, SG_BLOCKED, SG_YIELDED, SG_FAULTED };

enum sg_stop { SG_GOING, SG_LAST_SLICE /* no more blocks; those that run end at their next pause */, SG_STOPPED };

struct sg_run {
	const struct sg_launch *launch;
	const struct sg_image *image;
	const struct sg_function *function;
	uint32_t block_threads, warp_count, local_size;
	uint32_t shared_size, reserved; /* the system's part is at the end, from `reserved` on, if there is one */
	uint32_t cluster[3], cluster_size; /* blocks */
	uint32_t grid; /* its number */
	uint64_t workspace; /* cooperative launches */
	char *parameters; /* our copy, aligned */
	uint64_t start_ns;
	atomic_int stop; /* enum sg_stop: a fault or a cancellation */
	pthread_mutex_t lock;
	struct sg_fault fault;
	/* below: the pool's */
	pthread_cond_t finished;
	uint64_t clusters, next_cluster, done_clusters;
	uint32_t resident, resident_limit, workers;
	struct sg_cluster *spare, *parked, *parked_tail;
	bool take_new;
	struct sg_run *next, *previous;
};

/* space.c */
uint64_t sg_space_version(struct sg_space *space); /* another after every change */
bool sg_space_lookup(struct sg_space *space, uint64_t address, uint64_t *base, uint64_t *size);

/* context.c */
struct sg_text {
	char *bytes;
	size_t size, used;
};
struct sg_context {
	struct sg_space *space;
	pthread_mutex_t lock;
	struct sg_text printed, asserted;
	char *heap;
	uint64_t heap_size;
	bool text_touched, heap_touched; /* by a kernel */
	struct sg_chunk *chunks; /* of the heap, by index; linked by address */
	uint32_t chunk_count, chunk_room, free_chunk;
	atomic_ullong grid;
};
uint64_t sg_context_malloc(struct sg_context *context, uint64_t size);
int sg_context_free(struct sg_context *context, uint64_t address);
bool sg_context_print(struct sg_context *context, const char *text, size_t size);
void sg_context_tell_assertion(struct sg_context *context, const char *text, size_t size);

/* warp.c */
enum sg_outcome sg_warp_run(struct sg_warp *w);
void sg_warp_leave(struct sg_warp *w, uint32_t m); /* lanes of the running group exit */
struct sg_frame *sg_frame_new(struct sg_warp *w, const struct sg_function *function);
void sg_frame_drop(struct sg_warp *w, struct sg_frame *frame);
void sg_warp_split(struct sg_warp *w, const struct sg_op *pc, struct sg_frame *frame, uint32_t m);
void sg_warp_enter(struct sg_warp *w, struct sg_frame *frame);

/* The lanes of m that may carry out a .sync instruction now: all those whose member mask is complete. The others
 * wait; 0: return NULL. */
uint32_t sg_warp_gather(struct sg_warp *w, const struct sg_op *i, uint32_t m, const uint32_t *members);

/* barrier.c */
enum sg_barrier_kind { SG_BARRIER_SYNC, SG_BARRIER_ARRIVE, SG_BARRIER_REDUCE };
const struct sg_op *sg_barrier(struct sg_warp *w, const struct sg_op *i, uint32_t m, enum sg_barrier_kind kind,
			       uint32_t bits);
void sg_barrier_open(struct sg_block *block, uint32_t id);
void sg_barrier_recheck(struct sg_block *block); /* after an exit */
bool sg_barrier_value(struct sg_warp *w, uint32_t *any, uint32_t *all, uint32_t *count); /* bar.red after it opened */

/* block.c */
size_t sg_block_bytes(const struct sg_run *run);
struct sg_block *sg_block_new(struct sg_run *run);
void sg_block_free(struct sg_block *block);
void sg_block_start(struct sg_block *block, const uint32_t index[3]);
bool sg_block_round(struct sg_block *block, bool *yielded); /* one turn for each warp; false: a fault */
bool sg_block_release(struct sg_block *block); /* nobody can run: lets go on who may; false: nobody may */
bool sg_block_deadlock(struct sg_block *block); /* makes it a fault; false: nobody waits here */

/* cluster.c */
struct sg_cluster *sg_cluster_new(struct sg_run *run);
void sg_cluster_free(struct sg_cluster *cluster);
void sg_cluster_place(const struct sg_run *run, uint64_t number, uint32_t first[3]); /* its first block */
void sg_cluster_start(struct sg_cluster *cluster, uint64_t number);
enum sg_outcome sg_cluster_run(struct sg_cluster *cluster);
void sg_cluster_arrive(struct sg_warp *w, uint32_t m);
void sg_cluster_leave(struct sg_warp *w, uint32_t m);

/* mbarrier.c: what one lane does to the word of an asynchronous barrier; false after a fault. */
enum sg_arrive { SG_ARRIVE_DROP = 1, SG_ARRIVE_NO_COMPLETE = 2, SG_ARRIVE_BYTES = 4 };
bool sg_mbarrier_init(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, uint32_t count);
bool sg_mbarrier_invalidate(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word);
bool sg_mbarrier_bytes(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, int64_t more);
bool sg_mbarrier_arrive(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t *word, uint32_t count,
			unsigned how); /* count: bytes where how has SG_ARRIVE_BYTES */
bool sg_mbarrier_phase(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const uint64_t *word, uint32_t *phase);
uint32_t sg_mbarrier_state_phase(uint64_t state);
uint32_t sg_mbarrier_state_pending(uint64_t state);

/* launch.c */
bool sg_run_prepare(struct sg_run *run, const struct sg_launch *launch, struct sg_fault *fault);
void sg_run_release(struct sg_run *run);
bool sg_run_cancelled(struct sg_run *run);

/* pool.c: a cluster that was not begun, and now never will be; false: there is none. */
bool sg_run_withdraw(struct sg_run *run, uint32_t first[3]);

/* fault.c: records the first fault of a launch, stops it, returns NULL for handlers to return. */
const struct sg_op *sg_fault(struct sg_warp *w, const struct sg_op *i, uint32_t lanes, int error, const char *format,
			     ...) __attribute__((format(printf, 5, 6)));
/* … but lets the blocks that run go on until they pause, so that others of their threads can say the same. */
void sg_fault_at_leisure(struct sg_warp *w, const struct sg_op *i, uint32_t lanes, int error, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* memory.c: host addresses of what the lanes of m name, one by one; false after a fault. */
/* Makes the instruction's range the one that holds this address; false where none does. */
bool sg_range_find(struct sg_warp *w, const struct sg_op *i, uint64_t address);
bool sg_resolve_lanes(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bytes, uint64_t *host);
/* … and of the bytes at an offset from what one lane names; NULL after a fault. */
char *sg_resolve_line(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t offset, uint32_t bytes,
		      uint32_t align);
/* The block of the cluster in whose shared memory this is, or NULL. */
struct sg_block *sg_shared_owner(const struct sg_block *block, const void *host);
/* Host address of one lane's generic address, or NULL. */
char *sg_host(struct sg_warp *w, uint32_t lane, uint64_t address, uint64_t bytes);
/* Bytes from address to the end of its range, for strings. */
char *sg_host_span(struct sg_warp *w, uint32_t lane, uint64_t address, uint64_t *bytes);

/* system.c */
/* False: the lanes did not come back, because of a fault or as their assertion failed. */
bool sg_system_call(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t base);
enum { SG_SYSTEM_VPRINTF, SG_SYSTEM_MALLOC, SG_SYSTEM_FREE, SG_SYSTEM_ASSERT, SG_SYSTEMS };
#define SG_SYSTEM_BYTES 48 /* that any of them reads or writes at base */

/* printf.c: formats one call; returns the length that the whole text has. */
size_t sg_printf_format(struct sg_warp *w, uint32_t lane, const char *format, const char *arguments,
			uint64_t argument_bytes, char *text, size_t size);

uint64_t sg_now_ns(void);

/* generated/table.c */
struct sg_signature {
	const char *name;
	unsigned char operand[4]; /* d, a, b, c: see enum sg_operand */
	unsigned char check; /* see image.c */
};
enum sg_operand {
	SG_NONE,
	SG_RAW,
	SG_TO16,
	SG_TO32,
	SG_TO64,
	SG_TO128,
	SG_FROM16,
	SG_FROM32,
	SG_FROM64,
	SG_FROM128,
	SG_TO_PRED,
	SG_FROM_PRED,
	SG_TO_PRED_OR_NOT
};
extern const struct sg_signature sg_signatures[];
const sg_handler *sg_handlers(void); /* the variant for this CPU */

static inline void *sg_at(const struct sg_warp *w, uint32_t operand)
{
	return w->base[operand & 3] + (operand & ~3u);
}

static inline uint32_t *sg_predicate(const struct sg_warp *w, uint32_t offset)
{
	return (uint32_t *)(w->base[0] + offset);
}

/* A source predicate: offset with the negation in bit 0. */
static inline uint32_t sg_truth(const struct sg_warp *w, uint32_t operand)
{
	return *sg_predicate(w, operand & ~3u) ^ -(operand & 1);
}

static inline void sg_predicate_set(struct sg_warp *w, uint32_t offset, uint32_t m, uint32_t bits)
{
	uint32_t *p = sg_predicate(w, offset);

	*p = (*p & ~m) | (bits & m);
}

static inline uint32_t sg_lowest(uint32_t m)
{
	return (uint32_t)__builtin_ctz(m);
}

static inline const struct sg_op *sg_next(const struct sg_op *i)
{
	return i + 1 + SG_EXTRA(i->flags);
}

static inline struct sg_range *sg_range_of(const struct sg_warp *w, const struct sg_op *i)
{
	return &w->block->ranges[(uintptr_t)i / sizeof(*i) % SG_RANGES];
}

#define SG_EACH(lane, m) for (uint32_t rest_ = (m), lane; rest_ && (lane = sg_lowest(rest_), 1); rest_ &= rest_ - 1)

#endif
