/* SPDX-License-Identifier: Apache-2.0
 *
 * What nodes, instances and captured allocations share.
 */
#ifndef SOFTGPU_NODE_H
#define SOFTGPU_NODE_H

#include "graph.h"

/* Takes the work over; it becomes the step that stands for the node. */
CUresult exec_replace(CUgraphExec handle, CUgraphNode node, struct work *work);

/* Parameters to work. */
CUresult make_kernel(const CUDA_KERNEL_NODE_PARAMS *given, struct work **work);
CUresult make_copy(const CUDA_MEMCPY3D *given, struct work **result);
CUresult make_set(const CUDA_MEMSET_NODE_PARAMS *given, struct work **result);
CUresult make_host(const CUDA_HOST_NODE_PARAMS *given, struct work **result);
CUresult make_event(enum work_kind kind, CUevent handle, struct work **result);
CUresult make_allocation(struct device *device, struct context *context, uint64_t size, struct work **result);

#endif
