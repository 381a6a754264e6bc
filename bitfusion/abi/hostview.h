/* SPDX-License-Identifier: Apache-2.0
 *
 * A driver whose device memory is memory of its process says so to the executor above it, which then moves
 * bulk data between the socket and that memory without a buffer between them. These are attributes that no CUDA
 * driver has: those answer CUDA_ERROR_INVALID_VALUE, and the program never gets to ask for them.
 */
#ifndef BITFUSION_HOSTVIEW_H
#define BITFUSION_HOSTVIEW_H

#include <stdint.h>

#define BF_POINTER_ATTRIBUTE_HOST_VIEW ((CUpointer_attribute)0x42460001)

struct bf_host_view {
	void *data;    /* where the process reads and writes what lies at the device address */
	uint64_t size; /* from there to the end of the allocation; 0 when there is no such view */
};

/* 1 where cuMemGetInfo tells of this process alone: nobody else uses the device. */
#define BF_DEVICE_ATTRIBUTE_OWN_MEMORY ((CUdevice_attribute)0x42460002)

#endif
