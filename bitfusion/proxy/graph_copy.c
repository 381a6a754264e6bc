/* SPDX-License-Identifier: Apache-2.0
 *
 * Copy nodes made by hand. Where one side is on the host, the server's node has a buffer of ours there, and the
 * launch brings that in or out as it does for copies that were captured.
 */
#define _GNU_SOURCE
#include "box.h"
#include "graph.h"
#include "shared.h"

#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ what a node copies */

/* Memory that has a twin is device memory too. */
static void settle_side(const struct bf_box *box, struct bf_side *side)
{
	CUdeviceptr device;

	if (!bf_shared_in_use() || side->type != CU_MEMORYTYPE_HOST || !side->at ||
	    !bf_shared_find(side->at, bf_side_span(box, side), &device))
		return;
	side->type = CU_MEMORYTYPE_DEVICE;
	side->at = (uint8_t *)(uintptr_t)device;
}

static CUresult refuse(const char *function, const char *what, const char *instead)
{
	char name[128];

	snprintf(name, sizeof name, "%s %s", function, what);
	return bf_absent_instead(name, instead);
}

static CUresult find_buffer(const char *function, const struct bf_box *box, struct bf_graph_buffer **buffer)
{
	bool to_host = box->to.type == CU_MEMORYTYPE_HOST;
	const struct bf_side *host = to_host ? &box->to : &box->from;

	if (host->type != CU_MEMORYTYPE_HOST)
		return CUDA_SUCCESS;
	if (to_host && box->from.type == CU_MEMORYTYPE_HOST)
		return refuse(function, "from host to host", "copy in a host function");
	if (!bf_side_is_flat(box, host))
		return refuse(function, "of rows of host memory with gaps between them", "copy each row by a node");
	return bf_buffer_new(host->at, bf_box_bytes(box), to_host, buffer);
}

static void place_source(CUDA_MEMCPY3D *copy, const struct bf_box *box, const struct bf_graph_buffer *buffer)
{
	if (box->from.type == CU_MEMORYTYPE_ARRAY)
		return;
	copy->srcMemoryType = CU_MEMORYTYPE_DEVICE;
	copy->srcHost = NULL;
	copy->srcDevice = buffer ? buffer->address : BF_ARG(box->from.at);
	copy->srcXInBytes = copy->srcY = copy->srcZ = 0; /* they are in the address */
	copy->srcPitch = buffer ? box->width : box->from.pitch;
	copy->srcHeight = buffer ? box->height : box->from.height;
}

static void place_target(CUDA_MEMCPY3D *copy, const struct bf_box *box, const struct bf_graph_buffer *buffer)
{
	if (box->to.type == CU_MEMORYTYPE_ARRAY)
		return;
	copy->dstMemoryType = CU_MEMORYTYPE_DEVICE;
	copy->dstHost = NULL;
	copy->dstDevice = buffer ? buffer->address : BF_ARG(box->to.at);
	copy->dstXInBytes = copy->dstY = copy->dstZ = 0;
	copy->dstPitch = buffer ? box->width : box->to.pitch;
	copy->dstHeight = buffer ? box->height : box->to.height;
}

CUresult bf_graph_settle_copy(const char *function, const CUDA_MEMCPY3D *given, CUDA_MEMCPY3D *settled,
			      struct bf_graph_buffer **buffer)
{
	CUresult status = bf_check();
	struct bf_box box;

	*buffer = NULL;
	if (!status && (!given || !given->WidthInBytes || !given->Height || !given->Depth))
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		return status;
	box = bf_box_of(given);
	settle_side(&box, &box.from);
	settle_side(&box, &box.to);
	status = bf_box_check(&box);
	if (!status)
		status = find_buffer(function, &box, buffer);
	if (status)
		return status;
	if (*buffer)
		(*buffer)->given = *given;
	*settled = *given;
	place_source(settled, &box, *buffer && !(*buffer)->to_host ? *buffer : NULL);
	place_target(settled, &box, *buffer && (*buffer)->to_host ? *buffer : NULL);
	return CUDA_SUCCESS;
}

CUresult bf_graph_ask_node(CUgraphNode node, struct bf_program_node *answer)
{
	const struct bf_node body = { BF_ARG(node) };

	return bf_ask(BF_OP_PROGRAM_NODE, &body, sizeof body, answer, sizeof *answer);
}

static CUDA_MEMCPY3D copy_of(const struct bf_program_node *node)
{
	CUDA_MEMCPY3D copy;

	_Static_assert(sizeof copy == sizeof node->copy, "wire.h");
	memcpy(&copy, node->copy, sizeof copy);
	return copy;
}

struct bf_graph_buffer *bf_graph_node_buffer(const struct bf_program_node *node)
{
	const CUDA_MEMCPY3D copy = copy_of(node);
	struct bf_graph_buffer *buffer = copy.srcDevice ? bf_buffer_find(copy.srcDevice) : NULL;

	return buffer || !copy.dstDevice ? buffer : bf_buffer_find(copy.dstDevice);
}

/* ------------------------------------------------------------------ nodes of a graph */

static CUresult add(uint64_t args[6], struct bf_graph *graph, struct bf_graph_buffer *buffer)
{
	struct bf_graph_work *old = bf_graph_take_work(graph), *more = bf_work_without(old, NULL, NULL);
	CUresult status = more ? bf_call(BF_cuGraphAddMemcpyNode, args) : CUDA_ERROR_OUT_OF_MEMORY;

	if (!status) {
		bf_work_append_copy(more, buffer, BF_ARG(*(CUgraphNode *)(uintptr_t)args[0]));
		bf_graph_give_work(graph, more);
		atomic_store(&bf_graphs_by_hand, true);
	} else {
		bf_work_drop(more);
	}
	bf_work_drop(old);
	return status;
}

BF_EXPORT CUresult cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					size_t numDependencies, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	struct bf_graph *graph = bf_handle_find(BF_GRAPH, BF_ARG(hGraph));
	struct bf_graph_buffer *buffer;
	CUDA_MEMCPY3D copy;
	uint64_t args[] = { BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
			    numDependencies,     BF_ARG(&copy),  BF_ARG(ctx) };
	CUresult status = bf_graph_settle_copy("cuGraphAddMemcpyNode", copyParams, &copy, &buffer);

	if (!status && (!graph || !phGraphNode))
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = buffer ? add(args, graph, buffer) : bf_call(BF_cuGraphAddMemcpyNode, args);
	bf_buffer_drop(buffer); /* the graph's now, or nobody's */
	return status;
}

/* The node's old buffer goes, but for instances that have it. */
static CUresult set(CUgraphNode node, const CUDA_MEMCPY3D *copy, struct bf_graph_buffer *buffer)
{
	struct bf_graph_buffer *before = NULL;
	struct bf_graph_work *old = NULL, *work = NULL;
	struct bf_graph *graph = NULL;
	struct bf_program_node has;
	CUresult status = bf_graph_ask_node(node, &has);

	if (!status) {
		before = bf_graph_node_buffer(&has);
		graph = bf_handle_find(BF_GRAPH, has.graph);
		old = bf_graph_take_work(graph);
		work = bf_work_without(old, before, NULL);
		status = !graph ? CUDA_ERROR_INVALID_VALUE : work ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (!status)
		status = BF_CALL(cuGraphMemcpyNodeSetParams, BF_ARG(node), BF_ARG(copy));
	if (!status && buffer)
		bf_work_append_copy(work, buffer, BF_ARG(node));
	if (!status) {
		atomic_store(&bf_graphs_by_hand, true);
		bf_graph_give_work(graph, work);
	} else {
		bf_work_drop(work);
	}
	bf_work_drop(old);
	bf_buffer_drop(before);
	return status;
}

BF_EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
	struct bf_graph_buffer *buffer;
	CUDA_MEMCPY3D copy;
	CUresult status = bf_graph_settle_copy("cuGraphMemcpyNodeSetParams", nodeParams, &copy, &buffer);

	if (!status)
		status = buffer || atomic_load(&bf_works)
				 ? set(hNode, &copy, buffer)
				 : BF_CALL(cuGraphMemcpyNodeSetParams, BF_ARG(hNode), BF_ARG(&copy));
	bf_buffer_drop(buffer);
	return status;
}

/* What was captured was given in no such way: this is what it amounts to. */
static void tell_captured(const struct bf_graph_buffer *buffer, CUDA_MEMCPY3D *copy)
{
	if (buffer->to_host) {
		copy->dstMemoryType = CU_MEMORYTYPE_HOST;
		copy->dstHost = buffer->host;
		copy->dstDevice = 0;
	} else {
		copy->srcMemoryType = CU_MEMORYTYPE_HOST;
		copy->srcHost = buffer->host;
		copy->srcDevice = 0;
	}
}

BF_EXPORT CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
	struct bf_graph_buffer *buffer;
	struct bf_program_node has;
	CUresult status = bf_check();

	if (!status && !nodeParams)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = bf_graph_ask_node(hNode, &has);
	if (!status && has.function)
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		return status;
	*nodeParams = copy_of(&has);
	buffer = bf_graph_node_buffer(&has);
	if (buffer && buffer->given.WidthInBytes)
		*nodeParams = buffer->given;
	else if (buffer)
		tell_captured(buffer, nodeParams);
	bf_buffer_drop(buffer);
	return CUDA_SUCCESS;
}
