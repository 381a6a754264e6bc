/* SPDX-License-Identifier: Apache-2.0
 *
 * Texture and surface objects. They are numbers of the server's driver, since kernels get them as parameters; what
 * they were made of is kept here, in the program's own handles, for who asks.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>

enum kind { TEXTURE, SURFACE };
enum { BUCKETS = 256 };

struct object {
	struct object *next;
	uint64_t number;
	enum kind kind;
	uint32_t context;
	bool has_view;
	CUDA_RESOURCE_DESC resource;
	CUDA_TEXTURE_DESC texture;
	CUDA_RESOURCE_VIEW_DESC view;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *buckets[BUCKETS];

static struct object **find_locked(uint64_t number, enum kind kind)
{
	struct object **at = &buckets[number % BUCKETS];

	while (*at && ((*at)->number != number || (*at)->kind != kind))
		at = &(*at)->next;
	return at;
}

static void forget(uint64_t number, enum kind kind)
{
	struct object **at, *found;

	pthread_mutex_lock(&lock);
	at = find_locked(number, kind);
	found = *at;
	if (found)
		*at = found->next;
	pthread_mutex_unlock(&lock);
	free(found);
}

/* A driver may give a number again whose object went with its context. */
static void keep(struct object *object)
{
	forget(object->number, object->kind);
	object->context = bf_self.current;
	pthread_mutex_lock(&lock);
	object->next = buckets[object->number % BUCKETS];
	buckets[object->number % BUCKETS] = object;
	pthread_mutex_unlock(&lock);
}

void bf_texture_end_context(uint32_t context)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < BUCKETS; i++)
		for (struct object **at = &buckets[i]; *at;) {
			struct object *object = *at;

			if (object->context != context) {
				at = &object->next;
				continue;
			}
			*at = object->next;
			free(object);
		}
	pthread_mutex_unlock(&lock);
}

static CUresult copy_of(uint64_t number, enum kind kind, struct object *copy)
{
	const struct object *found;
	CUresult status = bf_check();

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	found = *find_locked(number, kind);
	if (found)
		*copy = *found;
	pthread_mutex_unlock(&lock);
	return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

BF_EXPORT CUresult cuTexObjectCreate(CUtexObject *pTexObject, const CUDA_RESOURCE_DESC *pResDesc,
				     const CUDA_TEXTURE_DESC *pTexDesc, const CUDA_RESOURCE_VIEW_DESC *pResViewDesc)
{
	struct object *object = calloc(1, sizeof *object);
	CUresult status;

	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = BF_CALL(cuTexObjectCreate, BF_ARG(pTexObject ? &object->number : NULL), BF_ARG(pResDesc),
			 BF_ARG(pTexDesc), BF_ARG(pResViewDesc));
	if (status) {
		free(object);
		return status;
	}
	*pTexObject = object->number;
	object->kind = TEXTURE;
	object->resource = *pResDesc;
	object->texture = *pTexDesc;
	object->has_view = pResViewDesc != NULL;
	if (pResViewDesc)
		object->view = *pResViewDesc;
	keep(object);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuSurfObjectCreate(CUsurfObject *pSurfObject, const CUDA_RESOURCE_DESC *pResDesc)
{
	struct object *object = calloc(1, sizeof *object);
	CUresult status;

	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = BF_CALL(cuSurfObjectCreate, BF_ARG(pSurfObject ? &object->number : NULL), BF_ARG(pResDesc));
	if (status) {
		free(object);
		return status;
	}
	*pSurfObject = object->number;
	object->kind = SURFACE;
	object->resource = *pResDesc;
	keep(object);
	return CUDA_SUCCESS;
}

/* Forgotten first: once it is destroyed another thread may be given the same number. */
BF_EXPORT CUresult cuTexObjectDestroy(CUtexObject texObject)
{
	forget(texObject, TEXTURE);
	return BF_CALL(cuTexObjectDestroy, texObject);
}

BF_EXPORT CUresult cuSurfObjectDestroy(CUsurfObject surfObject)
{
	forget(surfObject, SURFACE);
	return BF_CALL(cuSurfObjectDestroy, surfObject);
}

static CUresult get_resource(CUDA_RESOURCE_DESC *resource, uint64_t number, enum kind kind)
{
	struct object object;
	CUresult status = copy_of(number, kind, &object);

	if (status)
		return status;
	if (!resource)
		return CUDA_ERROR_INVALID_VALUE;
	*resource = object.resource;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC *pResDesc, CUtexObject texObject)
{
	return get_resource(pResDesc, texObject, TEXTURE);
}

BF_EXPORT CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC *pResDesc, CUsurfObject surfObject)
{
	return get_resource(pResDesc, surfObject, SURFACE);
}

BF_EXPORT CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC *pTexDesc, CUtexObject texObject)
{
	struct object object;
	CUresult status = copy_of(texObject, TEXTURE, &object);

	if (status)
		return status;
	if (!pTexDesc)
		return CUDA_ERROR_INVALID_VALUE;
	*pTexDesc = object.texture;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC *pResViewDesc, CUtexObject texObject)
{
	struct object object;
	CUresult status = copy_of(texObject, TEXTURE, &object);

	if (status)
		return status;
	if (!pResViewDesc || !object.has_view)
		return CUDA_ERROR_INVALID_VALUE;
	*pResViewDesc = object.view;
	return CUDA_SUCCESS;
}
