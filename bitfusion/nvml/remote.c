/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of GPUs from a worker, over a connection that lives for this one question. The program's own session, if it has
 * one, is not touched: NVML may be asked before and after fork, and from any process of the run.
 */
#include "calls.h"
#include "dial.h"
#include "library.h"

#include <stdlib.h>

static nvmlReturn_t receive(struct bf_transport *worker, struct bf_devices *head, struct bf_device **devices)
{
	struct bf_reply reply;

	if (bf_transport_receive_all(worker, &reply, sizeof reply) || reply.status ||
	    reply.size < sizeof reply + sizeof *head || bf_transport_receive_all(worker, head, sizeof *head))
		return NVML_ERROR_GPU_IS_LOST;
	if (head->count > BF_MAX_DEVICES || reply.size < sizeof reply + sizeof *head + head->count * sizeof **devices)
		return NVML_ERROR_UNKNOWN;
	*devices = calloc(head->count + 1, sizeof **devices);
	if (!*devices)
		return NVML_ERROR_MEMORY;
	if (bf_transport_receive_all(worker, *devices, head->count * sizeof **devices)) {
		free(*devices);
		return NVML_ERROR_GPU_IS_LOST;
	}
	for (unsigned i = 0; i < head->count; i++) {
		(*devices)[i].name[sizeof(*devices)[i].name - 1] = 0;
		(*devices)[i].pci_bus_id[sizeof(*devices)[i].pci_bus_id - 1] = 0;
	}
	return NVML_SUCCESS;
}

nvmlReturn_t inventory_ask(struct bf_devices *head, struct bf_device **devices)
{
	struct bf_command command = { sizeof command, BF_OP_DEVICES, BF_WANTS_REPLY, 1, 0 };
	struct bf_command goodbye = { sizeof goodbye, BF_OP_GOODBYE, 0, 0, 0 };
	struct iovec question = { &command, sizeof command }, end = { &goodbye, sizeof goodbye };
	struct bf_transport worker;
	nvmlReturn_t status = NVML_ERROR_GPU_IS_LOST;

	switch (bf_dial(&worker)) {
	case CUDA_SUCCESS: break;
	case CUDA_ERROR_NO_DEVICE: return NVML_ERROR_DRIVER_NOT_LOADED;
	default: return NVML_ERROR_GPU_IS_LOST;
	}
	if (!bf_transport_send(&worker, &question, 1))
		status = receive(&worker, head, devices);
	if (!status)
		bf_transport_send(&worker, &end, 1);
	bf_transport_close(&worker);
	return status;
}
