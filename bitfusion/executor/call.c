/* SPDX-License-Identifier: Apache-2.0
 *
 * One interpreter for all functions that are rows: arguments from the wire, the driver's call through
 * integer-typed pointers (no CUDA driver function takes floating point or structures by value), results back.
 */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;

CUresult bf_invoke(struct bf_frame *frame)
{
	const u64 *a = frame->argument;
	void *f = frame->route->function;
#define T(...) ((CUresult (*)(__VA_ARGS__))f)
	switch (frame->route->row->argument_count) {
	case 0: return T(void)();
	case 1: return T(u64)(a[0]);
	case 2: return T(u64, u64)(a[0], a[1]);
	case 3: return T(u64, u64, u64)(a[0], a[1], a[2]);
	case 4: return T(u64, u64, u64, u64)(a[0], a[1], a[2], a[3]);
	case 5: return T(u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4]);
	case 6: return T(u64, u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4], a[5]);
	case 7:
	case 8: return T(u64, u64, u64, u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	case 9:
	case 10:
	case 11:
	case 12:
		return T(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
			 u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
	default:
		return T(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
			 u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
			      a[14], a[15]);
	}
#undef T
}

enum { MOST_USES = 2 }; /* no row has more */

struct row_job {
	struct bf_job job;
	struct bf_frame frame;
	struct bf_use uses[MOST_USES]; /* code and streams that it works with */
	unsigned used;
	uint8_t *memory; /* command, scratch, answer */
};

static CUresult carry_out(struct bf_session *session, struct bf_frame *frame)
{
	bf_around around = frame->route->around;
	return around ? around(session, frame) : bf_invoke(frame);
}

/* What must not end meanwhile. */
static bool is_used(const struct bf_argument *what)
{
	return what->kind == BF_ARG_HANDLE &&
	       (what->handle == BF_MODULE || what->handle == BF_LIBRARY || what->handle == BF_FUNCTION ||
		what->handle == BF_KERNEL || what->handle == BF_STREAM);
}

static void begin_use(struct bf_session *session, struct row_job *row)
{
	const struct bf_row *what = row->frame.route->row;
	for (unsigned i = 0; i < what->argument_count && row->used < MOST_USES; i++)
		if (is_used(&what->arguments[i]))
			bf_use_begin(session, &row->uses[row->used++], row->job.context, row->frame.given[i]);
}

static void end_use(struct bf_session *session, struct row_job *row)
{
	while (row->used)
		bf_use_end(session, &row->uses[--row->used]);
}

static CUresult decode_row(struct bf_session *session, struct row_job *row, const struct bf_command *command)
{
	memcpy(row->memory, command, command->size);
	row->frame.scratch_size = 0;
	return bf_decode(session, &row->frame);
}

/* Memory that is being given back may be that of the code it works with, and whatever else it names may have been
 * given back meanwhile. Decoding may change a command, so this begins with what came, which lies where the answer will. */
static bool is_worth_another(struct bf_session *session, struct row_job *row, struct bf_tries *tries, CUresult *status)
{
	end_use(session, row);
	bool better = bf_memory_wait(session, tries);
	begin_use(session, row);
	if (!better)
		return false;
	*status = decode_row(session, row, (const struct bf_command *)(row->memory + 2 * BF_SCRATCH));
	if (*status == CUDA_SUCCESS && !(row->frame.route->row->flags & BF_ROW_NO_CONTEXT))
		*status = bf_context_ensure(session, row->job.context);
	return *status == CUDA_SUCCESS;
}

static CUresult carry_out_late(struct bf_session *session, struct row_job *row)
{
	struct bf_tries tries = { 0 };
	for (;;) {
		tries.settled = atomic_load(&session->freed.settled);
		CUresult status = carry_out(session, &row->frame);
		if (status != CUDA_ERROR_OUT_OF_MEMORY || !is_worth_another(session, row, &tries, &status))
			return status;
	}
}

static void run_row(struct bf_session *session, struct bf_job *job)
{
	struct row_job *row = (struct row_job *)job;
	CUresult status = CUDA_SUCCESS;
	if (!(row->frame.route->row->flags & BF_ROW_NO_CONTEXT))
		status = bf_context_ensure(session, job->context);
	if (status == CUDA_SUCCESS) {
		status = carry_out_late(session, row);
		bf_settle(session);
		bf_finish(session, &row->frame, status, row->memory + 2 * BF_SCRATCH);
	} else {
		bf_done(session, row->frame.command, status, NULL, 0);
	}
	end_use(session, row);
	free(row->memory);
	free(row);
}

/* Carries a call out that may block on a waiter, from a copy of the command. */
static bool submit_row(struct bf_session *session, struct bf_route *route, const struct bf_command *command)
{
	struct row_job *row = calloc(1, sizeof(*row));
	if (!row)
		return false;
	row->memory = malloc(3 * (size_t)BF_SCRATCH);
	if (row->memory) {
		memcpy(row->memory + 2 * BF_SCRATCH, command, command->size);
		row->job.run = run_row;
		row->job.context = command->context;
		row->frame.route = route;
		row->frame.command = (const struct bf_command *)row->memory;
		row->frame.scratch = row->memory + BF_SCRATCH;
		CUresult status = decode_row(session, row, command);
		if (status == CUDA_SUCCESS) {
			begin_use(session, row);
			if (bf_submit(session, &row->job))
				return true;
			end_use(session, row);
		}
		if (status != CUDA_SUCCESS && status != BF_VIOLATION)
			bf_done(session, command, status, NULL, 0);
		free(row->memory);
		free(row);
		return status != CUDA_SUCCESS;
	}
	free(row);
	return false;
}

static bool resolve_route(struct bf_session *session, struct bf_route *route)
{
	if (!route->resolved) {
		route->resolved = true;
		route->function = bf_driver_symbol(session->driver, route->row->name);
		if (!route->function && (session->options.flags & BF_SERVE_VERBOSE))
			bf_log(session, "the driver has no %s", route->row->name);
	}
	return route->function != NULL;
}

void bf_row_command(struct bf_session *session, const struct bf_command *command)
{
	unsigned number = command->call - BF_FIRST_ROW;
	if (unlikely(number >= bf_row_count)) {
		bf_violation(session, "no call %u", command->call);
		return;
	}
	struct bf_route *route = &session->routes[number];
	if (unlikely(!route->function) && !resolve_route(session, route)) {
		bf_done(session, command, CUDA_ERROR_NOT_SUPPORTED, NULL, 0);
		return;
	}
	if (unlikely(route->makes && bf_host_memory_full(session, 0))) {
		bf_done(session, command, CUDA_ERROR_OUT_OF_MEMORY, NULL, 0);
		return;
	}
	CUresult status = CUDA_SUCCESS;
	/* special streams are those of the current context, also where no context is needed otherwise */
	if (!(route->row->flags & BF_ROW_NO_CONTEXT) || route->row->stream != BF_NO_ARGUMENT)
		status = bf_context_ensure(session, command->context);
	if (route->row->flags & BF_ROW_NO_CONTEXT)
		status = CUDA_SUCCESS;
	bool blocks = (route->row->flags & BF_ROW_BLOCKS) && !route->waits;
	/* memory that it needs may be about to be free */
	blocks |= route->allocates && bf_reap_pending(session);
	bool elsewhere = blocks && (command->flags & BF_WANTS_REPLY);
	if (unlikely(session->freed.open) && (blocks || route->waits || route->closes))
		bf_freed_close(session);
	if (elsewhere && status == CUDA_SUCCESS && submit_row(session, route, command))
		return;
	struct bf_frame frame;
	frame.route = route;
	frame.command = command;
	frame.scratch = session->scratch;
	frame.scratch_size = 0;
	const struct bf_command *copy = NULL;
	if (route->allocates && (command->flags & BF_WANTS_REPLY) && bf_memory_coming(session))
		copy = memcpy(session->answer, command, command->size); /* decoding may change it */
	if (status == CUDA_SUCCESS)
		status = bf_decode(session, &frame);
	if (unlikely(status != CUDA_SUCCESS)) {
		if (status != BF_VIOLATION)
			bf_done(session, command, status, NULL, 0);
		return;
	}
	if (route->row->stream != BF_NO_ARGUMENT) {
		unsigned stream = route->row->stream;
		status = bf_stream_ready(session, frame.given[stream], frame.argument[stream]);
		if (route->works)
			bf_pace_ready(session, frame.argument[stream]);
	}
	if (unlikely(session->pace.open && route->closes))
		bf_pace_close(session);
	if (route->waits && (command->flags & BF_WANTS_REPLY)) {
		bf_wait_row(session, &frame);
		return;
	}
	if (blocks && (route->row->flags & BF_ROW_ONEWAY) && bf_reap_row(session, &frame))
		return;
	if (likely(status == CUDA_SUCCESS))
		status = carry_out(session, &frame);
	if (unlikely(status == CUDA_ERROR_OUT_OF_MEMORY) && copy) {
		bf_freed_close(session);
		if (submit_row(session, route, copy))
			return;
	}
	if (route->row->flags & BF_ROW_BLOCKS)
		bf_settle(session);
	bf_finish(session, &frame, status, session->answer);
}

static bool is_wait(const char *name)
{
	static const char *const names[] = { "cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize",
					     "cuCtxSynchronize_v2" };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(name, names[i]))
			return true;
	}
	return false;
}

static bool begins(const char *name, const char *const *starts)
{
	while (*starts && strncmp(name, *starts, strlen(*starts)) != 0)
		starts++;
	return *starts != NULL;
}

bool bf_routes_init(struct bf_session *session)
{
	static const char *const work[] = { "cuMemcpy", "cuMemset", "cuGraphLaunch", "cuLaunch", NULL };
	static const char *const ends[] = { "cuStreamDestroy",      "cuStreamBeginCapture", "cuCtxDestroy",
					    "cuDevicePrimaryCtxRe", "cuGreenCtxDestroy",    NULL };
	session->routes = calloc(bf_row_count + 1, sizeof(*session->routes));
	session->scratch = aligned_alloc(64, bf_pad(BF_SCRATCH + 64) / 64 * 64);
	session->answer = aligned_alloc(64, bf_pad(BF_SCRATCH + 64) / 64 * 64);
	if (!session->routes || !session->scratch || !session->answer)
		return false;
	for (unsigned i = 0; i < bf_row_count; i++) {
		struct bf_route *route = &session->routes[i];
		route->row = &bf_rows[i];
		route->waits = is_wait(route->row->name);
		route->works = begins(route->row->name, work);
		route->closes = begins(route->row->name, ends);
		route->around = bf_row_around(route->row->name);
		route->allocates = bf_row_allocates(route->around);
		for (unsigned n = 0; n < route->row->argument_count; n++) {
			route->makes |= route->row->arguments[n].kind == BF_ARG_NEW_HANDLE;
			route->has_arrays |= bf_is_array(route->row->arguments[n].kind);
			route->has_locations |= route->row->arguments[n].location != 0;
		}
	}
	return true;
}
