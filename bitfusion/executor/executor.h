/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's end of the command stream: what the worker process calls, through ctypes (core.py).
 * One session per process: a driver's state, and its sticky errors, belong to a process anyway.
 */
#ifndef BITFUSION_EXECUTOR_H
#define BITFUSION_EXECUTOR_H

#include <stddef.h>
#include <stdint.h>

enum bf_serve_flags {
	BF_SERVE_VERBOSE = 1,
	BF_SERVE_KEEP_OUTPUT = 2, /* leave descriptors 1 and 2 alone */
	BF_SERVE_SOFTWARE = 4, /* device memory is this machine's */
};

/* Known to core.py: _ServeOptions. */
struct bf_serve_options {
	const char *driver;     /* path of a libcuda.so.1 */
	const int32_t *devices; /* driver ordinals, in the order that the session sees */
	uint32_t device_count;
	int32_t fd;
	int32_t ledger_fd; /* -1: memory is not limited */
	uint32_t slot;     /* of this worker in the ledger */
	int32_t log_fd;
	uint32_t flags;
	int32_t spin_us; /* how long to poll before sleeping; -1 for the default */
	uint32_t grace_ms;
	uint64_t host_memory; /* bytes of this machine's that the session's workers may hold; 0: not limited */
};

/* How a session ended. Known to core.py: ENDED_*. */
enum bf_ended {
	BF_ENDED_GOODBYE,
	BF_ENDED_CLIENT_GONE,
	BF_ENDED_PROTOCOL,
	BF_ENDED_DRIVER,
	BF_ENDED_INTERNAL,
	BF_ENDED_MEMORY, /* its client made it hold too much of this machine's */
};

int bf_executor_serve(const struct bf_serve_options *options);

/* Both return 0 or a CUresult; text gets the reason, or (probe) a JSON array of devices. */
int bf_executor_warm(const char *driver, char *text, size_t size);
int bf_executor_probe(const char *driver, char *text, size_t size);

/* ------------------------------------------------------------------ memory of a session (ledger.c) */

struct bf_ledger;

/* Returns a descriptor, or -errno. A limit of 0 means none. */
int bf_ledger_create(const uint64_t *limits, uint32_t devices, uint32_t slots);
struct bf_ledger *bf_ledger_open(int fd);
void bf_ledger_close(struct bf_ledger *ledger);
/* Returns 0, or -1 when the limit forbids it or the numbers are out of range. */
int bf_ledger_reserve(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size);
void bf_ledger_release(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size);
/* slot -1: of all workers */
int bf_ledger_used(struct bf_ledger *ledger, int32_t slot, uint64_t *used, uint32_t count);
/* Returns the number of devices. */
int bf_ledger_limits(struct bf_ledger *ledger, uint64_t *limits, uint32_t count);
int bf_ledger_clear(struct bf_ledger *ledger, uint32_t slot);

/* Device time of a session (ledger_time.c), in nanoseconds of CLOCK_MONOTONIC. A share of 0 or a million: all. */
int bf_ledger_set_share(struct bf_ledger *ledger, uint32_t millionths);
/* What it has used on each device; returns the number of devices. */
int bf_ledger_busy(struct bf_ledger *ledger, uint64_t *busy, uint32_t count);
/* It may use so much on each; NULL: as much as it likes. Holds for a quarter of a second. */
int bf_ledger_ration(struct bf_ledger *ledger, const uint64_t *until, uint32_t count);
/* When its clients called last, 0 for never, and how many of their calls wait for a device. */
uint64_t bf_ledger_last_call(struct bf_ledger *ledger, uint32_t *waiting);

#endif
