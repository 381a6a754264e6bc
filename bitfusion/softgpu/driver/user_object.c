/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects of the program that graphs, their instances and launches in flight keep. The program's function for one
 * that nobody keeps runs on a thread of its own, as it may lock what a caller has locked.
 */
#include "graph.h"

#include <stdlib.h>

struct user_object {
	struct object object;
	void *pointer;
	CUhostFn destroy;
	_Atomic unsigned references;
	struct user_object *next; /* among those that nobody keeps */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct user_object *gone, **end = &gone;

static void *destroy_all(void *unused)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!gone)
			pthread_cond_wait(&more, &lock);
		struct user_object *object = gone;
		gone = object->next;
		if (!gone)
			end = &gone;
		pthread_mutex_unlock(&lock);
		object->destroy(object->pointer);
		object_free(object);
		pthread_mutex_lock(&lock);
	}
	return unused;
}

static void unref(struct user_object *object, unsigned count)
{
	static int has_thread;
	pthread_t thread;
	if (atomic_fetch_sub(&object->references, count) != count)
		return;
	pthread_mutex_lock(&lock);
	*end = object;
	end = &object->next;
	if (!has_thread && !pthread_create(&thread, NULL, destroy_all, NULL)) {
		pthread_detach(thread);
		has_thread = 1;
	}
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
}

CUresult user_list_add(struct user_list *to, const struct user_list *from)
{
	if (!from->count)
		return CUDA_SUCCESS;
	struct user_object **longer = realloc(to->users, (to->count + from->count) * sizeof(struct user_object *));
	if (!longer)
		return CUDA_ERROR_OUT_OF_MEMORY;
	to->users = longer;
	for (unsigned i = 0; i < from->count; i++) {
		from->users[i]->references++;
		to->users[to->count++] = from->users[i];
	}
	return CUDA_SUCCESS;
}

void user_list_free(struct user_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		unref(list->users[i], 1);
	free(list->users);
}

static struct user_object *get(CUuserObject handle)
{
	struct user_object *object = object_get(handle, OBJECT_USER);
	return object && object->references ? object : NULL;
}

EXPORT CUresult cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy, unsigned int initialRefcount,
				   unsigned int flags)
{
	ENTER();
	if (!object_out || !destroy || !initialRefcount || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
		return CUDA_ERROR_INVALID_VALUE;
	struct user_object *object = object_new(OBJECT_USER, sizeof *object);
	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	object->pointer = ptr;
	object->destroy = destroy;
	object->references = initialRefcount;
	*object_out = (CUuserObject)object;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuUserObjectRetain(CUuserObject handle, unsigned int count)
{
	ENTER();
	struct user_object *object = get(handle);
	if (!object || !count)
		return CUDA_ERROR_INVALID_VALUE;
	object->references += count;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuUserObjectRelease(CUuserObject handle, unsigned int count)
{
	ENTER();
	struct user_object *object = get(handle);
	if (!object || !count || count > object->references)
		return CUDA_ERROR_INVALID_VALUE;
	unref(object, count);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphRetainUserObject(CUgraph hGraph, CUuserObject handle, unsigned int count, unsigned int flags)
{
	ENTER();
	struct graph *graph = object_get(hGraph, OBJECT_GRAPH);
	struct user_object *object = get(handle);
	const int moves = flags & CU_GRAPH_USER_OBJECT_MOVE;
	if (!graph || !object || !count || (flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE) ||
	    (moves && count > object->references))
		return CUDA_ERROR_INVALID_VALUE;
	const struct user_list one = { &object, 1 };
	CUresult result = CUDA_SUCCESS;
	pthread_mutex_lock(&queue_lock);
	for (unsigned i = 0; i < count && result == CUDA_SUCCESS; i++)
		result = user_list_add(&graph->users, &one);
	pthread_mutex_unlock(&queue_lock);
	if (result == CUDA_SUCCESS && moves)
		unref(object, count);
	return result;
}

EXPORT CUresult cuGraphReleaseUserObject(CUgraph hGraph, CUuserObject handle, unsigned int count)
{
	ENTER();
	struct graph *graph = object_get(hGraph, OBJECT_GRAPH);
	struct user_object *object = get(handle);
	if (!graph || !object || !count)
		return CUDA_ERROR_INVALID_VALUE;
	unsigned found = 0;
	pthread_mutex_lock(&queue_lock);
	struct user_list *list = &graph->users;
	for (unsigned i = 0; i < list->count; i++)
		found += list->users[i] == object;
	for (unsigned i = list->count; found >= count && i-- > 0 && count;)
		if (list->users[i] == object) {
			list->users[i] = list->users[--list->count];
			unref(object, 1);
			count--;
		}
	pthread_mutex_unlock(&queue_lock);
	return count ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
