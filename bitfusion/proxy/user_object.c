/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects of the program that graphs keep: who owns how many references to them is counted here, and the server's
 * graphs know nothing of it. A graph's instances and copies share what it has when they are made.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>
#include <string.h>

struct user_object {
	struct user_object *next;
	uint64_t references;
	CUhostFn destroy;
	void *data;
};

struct kept {
	struct user_object *object;
	uint64_t count;
};

/* The references that graphs own. Never changed once made, so that they share it. */
struct bf_keep {
	unsigned references, count;
	struct kept kept[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct user_object *objects;

/* All that follows up to the exported functions: with the lock held. */

static struct user_object *find(CUuserObject handle)
{
	struct user_object *object = objects;

	while (object && object != (struct user_object *)handle)
		object = object->next;
	return object;
}

/* Objects without a reference go to `gone`: their functions run when nothing is locked. */
static void release(struct user_object *object, uint64_t count, struct user_object **gone)
{
	struct user_object **at = &objects;

	object->references -= count;
	if (object->references)
		return;
	while (*at != object)
		at = &(*at)->next;
	*at = object->next;
	object->next = *gone;
	*gone = object;
}

static void drop(struct bf_keep *keep, struct user_object **gone)
{
	if (!keep || --keep->references)
		return;
	for (unsigned i = 0; i < keep->count; i++)
		release(keep->kept[i].object, keep->kept[i].count, gone);
	free(keep);
}

static struct bf_keep *share(struct bf_keep *keep)
{
	if (keep)
		keep->references++;
	return keep;
}

/* Both together, either of which may be NULL, and room for one more; all references are new ones. */
static struct bf_keep *join(const struct bf_keep *one, const struct bf_keep *two)
{
	unsigned first = one ? one->count : 0, second = two ? two->count : 0;
	struct bf_keep *keep = calloc(1, sizeof *keep + (first + second + 1) * sizeof *keep->kept);

	if (!keep)
		return NULL;
	keep->references = 1;
	keep->count = first + second;
	if (first)
		memcpy(keep->kept, one->kept, first * sizeof *keep->kept);
	if (second)
		memcpy(keep->kept + first, two->kept, second * sizeof *keep->kept);
	for (unsigned i = 0; i < keep->count; i++)
		keep->kept[i].object->references += keep->kept[i].count;
	return keep;
}

/* Takes `count` references away, of several entries if need be. */
static bool take_away(struct bf_keep *keep, struct user_object *object, uint64_t count, struct user_object **gone)
{
	for (unsigned i = 0; i < keep->count && count; i++) {
		struct kept *kept = &keep->kept[i];
		uint64_t some = kept->object != object ? 0 : kept->count < count ? kept->count : count;

		kept->count -= some;
		count -= some;
		if (some)
			release(object, some, gone);
		if (!kept->count)
			*kept = keep->kept[--keep->count], i--;
	}
	return !count;
}

/* ------------------------------------------------------------------ what graphs do */

static void finish(struct user_object *gone)
{
	while (gone) {
		struct user_object *object = gone;

		gone = object->next;
		object->destroy(object->data);
		free(object);
	}
}

static void end_of_launches(void *keep)
{
	struct user_object *gone = NULL;

	pthread_mutex_lock(&lock);
	drop(keep, &gone);
	pthread_mutex_unlock(&lock);
	finish(gone);
}

/* False where nobody can tell when the launches are over: a capture would take the function into the program's graph. */
static bool end_after_launches(struct bf_keep *keep, CUstream stream)
{
	uint64_t capture;

	if (bf_stream_check(stream)) { /* gone; what it had to do may go on */
		cuCtxSynchronize();
		end_of_launches(keep);
		return true;
	}
	return !bf_capture_find(stream, &capture) && !capture && !cuLaunchHostFunc(stream, end_of_launches, keep);
}

/* Launches of an instance come one after the other, so the last one's stream tells when all are through. */
static void give_up(struct bf_keep *keep, const struct bf_graph *graph)
{
	uint32_t before = bf_self.current;

	if (!keep)
		return;
	if (!graph->launched) {
		end_of_launches(keep);
		return;
	}
	bf_self.current = graph->last_context;
	if (!end_after_launches(keep, graph->last))
		bf_debug("nobody can tell when a graph's launches end: what it keeps stays");
	bf_self.current = before;
}

static void replace(struct bf_graph *graph, struct bf_keep *by)
{
	struct bf_keep *old;

	pthread_mutex_lock(&lock);
	old = graph->keep;
	graph->keep = by;
	pthread_mutex_unlock(&lock);
	give_up(old, graph);
}

void bf_keep_copy(struct bf_graph *to, const struct bf_graph *from)
{
	struct bf_keep *keep;

	if (!to)
		return;
	pthread_mutex_lock(&lock);
	keep = from ? share(from->keep) : NULL;
	pthread_mutex_unlock(&lock);
	replace(to, keep);
}

CUresult bf_keep_add(struct bf_graph *to, const struct bf_graph *from)
{
	struct bf_keep *both = NULL;
	bool needed;

	if (!to || !from)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	needed = from->keep != NULL;
	if (needed)
		both = join(to->keep, from->keep);
	pthread_mutex_unlock(&lock);
	if (both)
		replace(to, both);
	return needed && !both ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

void bf_keep_drop(struct bf_graph *graph)
{
	if (!graph)
		return;
	replace(graph, NULL);
	graph->launched = false;
}

bool bf_keeps(const struct bf_graph *graph)
{
	pthread_mutex_lock(&lock);
	const bool keeps = graph->keep != NULL;
	pthread_mutex_unlock(&lock);
	return keeps;
}

void bf_keep_launched(struct bf_graph *graph, CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));

	graph->last = stream;
	graph->last_context = entry ? entry->entry.context : bf_self.current;
	graph->launched = true;
}

/* ------------------------------------------------------------------ the program's calls */

BF_EXPORT CUresult cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy,
				      unsigned int initialRefcount, unsigned int flags)
{
	struct user_object *object;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!object_out || !destroy || !initialRefcount || initialRefcount > INT32_MAX ||
	    flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
		return CUDA_ERROR_INVALID_VALUE;
	object = calloc(1, sizeof *object);
	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*object = (struct user_object){ .references = initialRefcount, .destroy = destroy, .data = ptr };
	pthread_mutex_lock(&lock);
	object->next = objects;
	objects = object;
	pthread_mutex_unlock(&lock);
	*object_out = (CUuserObject)object;
	return CUDA_SUCCESS;
}

static CUresult change(CUuserObject handle, unsigned int count, bool retain)
{
	struct user_object *object, *gone = NULL;
	CUresult status = bf_check();

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	object = find(handle);
	if (!object || !count || count > INT32_MAX || (!retain && count > object->references))
		status = CUDA_ERROR_INVALID_VALUE;
	else if (retain)
		object->references += count;
	else
		release(object, count, &gone);
	pthread_mutex_unlock(&lock);
	finish(gone);
	return status;
}

BF_EXPORT CUresult cuUserObjectRetain(CUuserObject object, unsigned int count)
{
	return change(object, count, true);
}

BF_EXPORT CUresult cuUserObjectRelease(CUuserObject object, unsigned int count)
{
	return change(object, count, false);
}

BF_EXPORT CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count, unsigned int flags)
{
	const bool moves = flags & CU_GRAPH_USER_OBJECT_MOVE;
	struct user_object *kept, *gone = NULL;
	struct bf_keep *more = NULL;
	struct bf_graph *owner = bf_handle_find(BF_GRAPH, BF_ARG(graph));
	CUresult status = bf_check();

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	kept = find(object);
	if (!owner || !kept || !count || count > INT32_MAX || (flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE) ||
	    (moves && count > kept->references))
		status = CUDA_ERROR_INVALID_VALUE;
	else
		more = join(owner->keep, NULL);
	if (more) {
		more->kept[more->count++] = (struct kept){ kept, count };
		kept->references += moves ? 0 : count;
		drop(owner->keep, &gone);
		owner->keep = more;
	}
	pthread_mutex_unlock(&lock);
	return status || more ? status : CUDA_ERROR_OUT_OF_MEMORY;
}

BF_EXPORT CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count)
{
	struct user_object *kept, *gone = NULL;
	struct bf_keep *less = NULL;
	struct bf_graph *owner = bf_handle_find(BF_GRAPH, BF_ARG(graph));
	CUresult status = bf_check();

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	kept = find(object);
	if (!owner || !kept || !count)
		status = CUDA_ERROR_INVALID_VALUE;
	else
		less = join(owner->keep, NULL);
	if (!status && !less)
		status = CUDA_ERROR_OUT_OF_MEMORY;
	if (!status && !take_away(less, kept, count, &gone)) {
		drop(less, &gone);
		status = CUDA_ERROR_INVALID_VALUE;
	} else if (!status) {
		drop(owner->keep, &gone);
		owner->keep = less;
	}
	pthread_mutex_unlock(&lock);
	finish(gone);
	return status;
}
