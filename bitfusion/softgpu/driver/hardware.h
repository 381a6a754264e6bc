/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known of the software GPUs without starting the driver; the software GPU's NVML asks the same.
 */
#ifndef SOFTGPU_HARDWARE_H
#define SOFTGPU_HARDWARE_H

#include <stdint.h>

#define HARDWARE_NAME "Bitfusion Software GPU"
#define HARDWARE_PCI "0000:%02X:00.0" /* with the hardware number and one */

int hardware_count(void);
uint64_t hardware_memory(void); /* bytes of each */
void hardware_uuid(uint8_t uuid[16], int hardware);

/* A table of cuGetExportTable that only the software GPU has: what this process has allocated, for NVML. */
#define HARDWARE_USAGE_ID "\x42\x46\x4e\x56\x4d\x4c\x50\xf7\x46\x50\x80\x12\x00\x00\x00\x01"
struct hardware_usage {
	uint64_t size;
	uint64_t (*used)(int hardware); /* bytes */
};

#endif
