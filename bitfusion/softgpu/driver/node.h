/* SPDX-License-Identifier: Apache-2.0
 *
 * What nodes, instances and captured allocations share.
 */
#ifndef SOFTGPU_NODE_H
#define SOFTGPU_NODE_H

#include "graph.h"

/* Takes the work over; it becomes the step that stands for the node. */
CUresult exec_replace(CUgraphExec handle, CUgraphNode node, struct work *work);
CUresult make_allocation(struct device *device, struct context *context, uint64_t size, struct work **result);

#endif
