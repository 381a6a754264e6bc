/* SPDX-License-Identifier: Apache-2.0 */
#include "library.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned started; /* nvmlInit less nvmlShutdown */
static struct bf_devices head;
static struct bf_device *list; /* never freed: handles point into it */

static nvmlReturn_t start(void)
{
	nvmlReturn_t status = NVML_SUCCESS;

	pthread_mutex_lock(&lock);
	if (!list)
		status = inventory_ask(&head, &list);
	if (!status)
		started++;
	pthread_mutex_unlock(&lock);
	return status;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
	return start();
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
	return start();
}

nvmlReturn_t nvmlInit(void);
EXPORT nvmlReturn_t nvmlInit(void)
{
	return start();
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t status = NVML_ERROR_UNINITIALIZED;

	pthread_mutex_lock(&lock);
	if (started) {
		started--;
		status = NVML_SUCCESS;
	}
	pthread_mutex_unlock(&lock);
	return status;
}

nvmlReturn_t library_ready(void)
{
	unsigned now;

	pthread_mutex_lock(&lock);
	now = started;
	pthread_mutex_unlock(&lock);
	return now ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

unsigned library_count(void)
{
	return head.count;
}

int library_driver_version(void)
{
	return head.driver_version;
}

nvmlReturn_t library_handle(unsigned index, nvmlDevice_t *handle)
{
	NVML_TRY(library_ready());
	if (!handle || index >= head.count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*handle = &list[index];
	return NVML_SUCCESS;
}

nvmlReturn_t library_device(nvmlDevice_t handle, const struct bf_device **device, unsigned *index)
{
	NVML_TRY(library_ready());
	for (unsigned i = 0; i < head.count; i++)
		if (handle == &list[i]) {
			*device = &list[i];
			if (index)
				*index = i;
			return NVML_SUCCESS;
		}
	return NVML_ERROR_INVALID_ARGUMENT;
}

int library_attribute(const struct bf_device *device, int attribute)
{
	return device->attribute[attribute].status ? 0 : device->attribute[attribute].value;
}

nvmlReturn_t library_text(char *out, unsigned size, const char *text)
{
	if (!out)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (strlen(text) >= size)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(out, text, strlen(text) + 1);
	return NVML_SUCCESS;
}

/* Every function of NVML that is not here comes to this. */
int nvml_absent(const char *name);
int nvml_absent(const char *name)
{
	const char *debug = getenv("BITFUSION_DEBUG");

	if (debug && *debug && strcmp(debug, "0"))
		fprintf(stderr, "bitfusion: %s is not implemented\n", name);
	return NVML_ERROR_NOT_SUPPORTED;
}
