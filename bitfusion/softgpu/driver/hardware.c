/* SPDX-License-Identifier: Apache-2.0
 *
 * The GPUs that this machine is said to have, before CUDA_VISIBLE_DEVICES chooses from them.
 */
#include "hardware.h"
#include "driver.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static uint64_t parse_size(const char *text, uint64_t fallback)
{
	if (!text || !*text)
		return fallback;
	char *end;
	double value = strtod(text, &end);
	switch (tolower((unsigned char)*end)) {
	case 't':
		value *= 1024;
		/* fall through */
	case 'g':
		value *= 1024;
		/* fall through */
	case 'm':
		value *= 1024;
		/* fall through */
	case 'k': value *= 1024;
	}
	/* an arena must fit between this device's addresses and the next one's */
	if (!(value >= (double)MIB(1)) || value > (double)((uint64_t)128 << 30))
		return fallback;
	return (uint64_t)value & ~(MIB(1) - 1);
}

int hardware_count(void)
{
	const char *wanted = getenv("BITFUSION_SOFTGPU_GPUS");
	int count = wanted && *wanted ? atoi(wanted) : 1;
	return count < 0 || count > MAX_DEVICES ? 1 : count;
}

uint64_t hardware_memory(void)
{
	return parse_size(getenv("BITFUSION_SOFTGPU_MEMORY"), (uint64_t)4 << 30);
}

void hardware_uuid(uint8_t uuid[16], int hardware)
{
	static const uint8_t base[16] = { 0xb1, 0x7f, 0x05, 0x10, 0x50, 0xf7, 0x46, 0x50,
					  0x80, 0x12, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00 };
	memcpy(uuid, base, 16);
	uuid[15] = (uint8_t)hardware;
}
