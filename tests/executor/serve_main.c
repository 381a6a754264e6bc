/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker without Python around it, so that the executor runs under sanitizers from its first instruction:
 * serve_main DRIVER FD DEVICES LEDGER_FD SLOT WARM GRACE_MS HOST_MEMORY
 */
#include "executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	int32_t devices[64];
	uint32_t device_count = 0;
	char text[4096];
	if (count != 9)
		return 2;
	for (char *at = strtok(arguments[3], ","); at && device_count < 64; at = strtok(NULL, ","))
		devices[device_count++] = atoi(at);
	if (atoi(arguments[6]) && bf_executor_warm(arguments[1], text, sizeof(text)) != 0) {
		fprintf(stderr, "%s\n", text);
		return 3;
	}
	struct bf_serve_options options = {
		.driver = arguments[1],
		.devices = devices,
		.device_count = device_count,
		.fd = atoi(arguments[2]),
		.ledger_fd = atoi(arguments[4]),
		.slot = (uint32_t)atoi(arguments[5]),
		.log_fd = 2,
		.spin_us = getenv("SPIN_US") ? atoi(getenv("SPIN_US")) : -1,
		.grace_ms = (uint32_t)atoi(arguments[7]),
		.host_memory = strtoull(arguments[8], NULL, 10),
	};
	/* waiting threads are still about: exit's destructors run beside them, as they would at any exit */
	int ended = bf_executor_serve(&options);
	exit(ended);
}
