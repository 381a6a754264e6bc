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

/* A stream of its own waits, for the program's may be gone, or in a capture, which would take the function in. */
static CUresult end_after(uint64_t event, struct bf_keep *keep)
{
	CUstream stream = NULL;
	CUresult status = cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);

	if (status)
		return status;
	status = BF_CALL(cuStreamWaitEvent, BF_ARG(stream), event, 0);
	if (!status)
		status = cuLaunchHostFunc(stream, end_of_launches, keep);
	cuStreamDestroy_v2(stream);
	return status;
}

/* Launches of an instance come one after the other: when the last one is over all are. They end with their context. */
static void give_up(struct bf_keep *keep, const struct bf_graph *graph)
{
	uint32_t before = bf_self.current;

	if (!keep)
		return;
	bf_self.current = graph->context;
	if (!graph->passed || bf_context_check() == CUDA_ERROR_CONTEXT_IS_DESTROYED)
		end_of_launches(keep);
	else if (end_after(graph->passed, keep))
		bf_debug("nobody can tell when a graph's launches end: what it keeps stays");
	bf_self.current = before;
}

static void forget_launches(struct bf_graph *graph)
{
	if (graph->passed)
		BF_CALL(cuEventDestroy_v2, graph->passed);
	graph->passed = 0;
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
	forget_launches(graph);
}

bool bf_keeps(const struct bf_graph *graph)
{
	pthread_mutex_lock(&lock);
	const bool keeps = graph->keep != NULL;
	pthread_mutex_unlock(&lock);
	return keeps;
}

CUresult bf_keep_launched(struct bf_graph *graph, CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));
	uint32_t before = bf_self.current, context = entry ? entry->entry.context : before;
	CUresult status = CUDA_SUCCESS;

	if (graph->context != context)
		forget_launches(graph);
	bf_self.current = graph->context = context;
	if (!graph->passed)
		status = BF_CALL(cuEventCreate, BF_ARG(&graph->passed), CU_EVENT_DISABLE_TIMING);
	if (!status)
		status = BF_CALL(cuEventRecord, graph->passed, BF_ARG(stream));
	bf_self.current = before;
	return status;
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

/* A graph is about to keep more or fewer references. */
struct change {
	struct user_object *object;
	uint64_t count, owned; /* references that there were before this began */
	unsigned flags;
};
typedef CUresult (*apply)(struct bf_keep *keep, const struct change *change, struct user_object **gone);

static CUresult keep_more(struct bf_keep *keep, const struct change *change, struct user_object **gone)
{
	const bool moves = change->flags & CU_GRAPH_USER_OBJECT_MOVE;

	(void)gone;
	if (change->count > INT32_MAX || (change->flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE) ||
	    (moves && change->count > change->owned))
		return CUDA_ERROR_INVALID_VALUE;
	keep->kept[keep->count++] = (struct kept){ change->object, change->count };
	change->object->references += moves ? 0 : change->count;
	return CUDA_SUCCESS;
}

static CUresult keep_less(struct bf_keep *keep, const struct change *change, struct user_object **gone)
{
	return take_away(keep, change->object, change->count, gone) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult change_graph(CUgraph graph, CUuserObject object, struct change change, apply apply)
{
	struct bf_graph *owner = bf_handle_find(BF_GRAPH, BF_ARG(graph));
	struct user_object *gone = NULL;
	struct bf_keep *keep = NULL, *old = NULL;
	CUresult status = bf_check();

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	change.object = find(object);
	if (!owner || !change.object || !change.count) {
		status = CUDA_ERROR_INVALID_VALUE;
	} else {
		change.owned = change.object->references;
		old = owner->keep;
		keep = join(old, NULL);
		status = keep ? apply(keep, &change, &gone) : CUDA_ERROR_OUT_OF_MEMORY;
		if (!status)
			owner->keep = keep;
	}
	drop(status ? keep : old, &gone);
	pthread_mutex_unlock(&lock);
	finish(gone);
	return status;
}

BF_EXPORT CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count, unsigned int flags)
{
	return change_graph(graph, object, (struct change){ .count = count, .flags = flags }, keep_more);
}

BF_EXPORT CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count)
{
	return change_graph(graph, object, (struct change){ .count = count }, keep_less);
}
