/* SPDX-License-Identifier: Apache-2.0
 *
 * A libnvidia-ml.so.1 for programs whose GPUs are remote or software ones. The same code serves both; what differs is where the
 * list of GPUs comes from: remote.c asks the worker, software.c knows. Neither starts the CUDA driver of the process, so
 * that, as with NVIDIA's, a program may ask NVML first and fork then.
 */
#ifndef BITFUSION_NVML_LIBRARY_H
#define BITFUSION_NVML_LIBRARY_H

#include "nvml.h"
#include "wire.h"

#include <stdint.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif
#define NVML_TRY(call) \
	do { \
		nvmlReturn_t tried = (call); \
		if (tried) \
			return tried; \
	} while (0)

/* The list as it is now: heads and count devices, malloced. All GPUs of the run, whatever CUDA_VISIBLE_DEVICES says. */
nvmlReturn_t inventory_ask(struct bf_devices *head, struct bf_device **devices);

/* A handle is the address of an entry of the list that nvmlInit fetched; entries live until the library is unloaded. */
nvmlReturn_t library_device(nvmlDevice_t handle, const struct bf_device **device, unsigned *index);
nvmlReturn_t library_handle(unsigned index, nvmlDevice_t *handle);
unsigned library_count(void);
int library_driver_version(void); /* as cuDriverGetVersion */
nvmlReturn_t library_ready(void); /* NVML_ERROR_UNINITIALIZED before nvmlInit and after the last nvmlShutdown */

/* 0 where the driver has no such attribute. */
int library_attribute(const struct bf_device *device, int attribute);

/* Copies a text into a program's buffer; NVML_ERROR_INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t library_text(char *out, unsigned size, const char *text);

#endif
