/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client must know of graphs to keep the order of its own memory and functions in them: which nodes copy and
 * which call it, and what is ahead of what.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_LEVELS = 64, NOWHERE = UINT32_MAX };

struct shape {
	struct bf_session *session;
	uint32_t owner; /* packed: of nodes that have no number yet */
	struct bf_graph_shape head;
	struct bf_marked_node *marked;
	uint32_t *edges; /* pairs */
	size_t marked_room, edge_room;
};

/* A node, and the places of its first and last part: a graph inside has one ahead of its nodes and one behind. */
struct placed {
	CUgraphNode node;
	uint32_t first, last;
};

/* ------------------------------------------------------------------ composing */

static bool make_room(void **array, size_t *room, size_t count, size_t size)
{
	if (count < *room)
		return true;
	size_t larger = *room ? 2 * *room : 64;
	void *moved = realloc(*array, larger * size);
	if (!moved)
		return false;
	*array = moved;
	*room = larger;
	return true;
}

static CUresult add_edge(struct shape *shape, uint32_t from, uint32_t to)
{
	if (!make_room((void **)&shape->edges, &shape->edge_room, shape->head.edges, 2 * sizeof(*shape->edges)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	shape->edges[2 * shape->head.edges] = from;
	shape->edges[2 * shape->head.edges++ + 1] = to;
	return CUDA_SUCCESS;
}

static uint64_t linear(CUmemorytype type, CUdeviceptr address)
{
	return type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED ? address : 0;
}

static CUresult describe(struct bf_driver *driver, CUgraphNode node, struct bf_marked_node *marked)
{
	CUDA_HOST_NODE_PARAMS host = { 0 };
	CUDA_MEMCPY3D copy = { 0 };
	CUresult status;
	if (marked->type == CU_GRAPH_NODE_TYPE_HOST) {
		status = driver->cuGraphHostNodeGetParams(node, &host);
		marked->from = status ? 0 : bf_host_function_number(&host);
		return status;
	}
	status = driver->cuGraphMemcpyNodeGetParams(node, &copy);
	marked->from = linear(copy.srcMemoryType, copy.srcDevice);
	marked->to = linear(copy.dstMemoryType, copy.dstDevice);
	return status;
}

static CUresult mark(struct shape *shape, CUgraphNode node, CUgraphNodeType type, uint32_t place)
{
	struct bf_marked_node marked = { .place = place, .type = type };
	CUresult status = describe(shape->session->driver, node, &marked);
	if (status != CUDA_SUCCESS)
		return status;
	marked.node =
		bf_handle_find(&shape->session->handles, BF_GRAPHNODE, (uint64_t)(uintptr_t)node, 0, shape->owner);
	if (!marked.node ||
	    !make_room((void **)&shape->marked, &shape->marked_room, shape->head.marked, sizeof(*shape->marked)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	shape->marked[shape->head.marked++] = marked;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ reading */

static CUresult walk(struct shape *shape, CUgraph graph, uint32_t first, uint32_t last, unsigned level);

static CUresult walk_child(struct shape *shape, const struct placed *placed, unsigned level)
{
	CUgraph child;
	CUresult status = shape->session->driver->cuGraphChildGraphNodeGetGraph(placed->node, &child);
	if (status == CUDA_SUCCESS)
		status = add_edge(shape, placed->first, placed->last);
	return status ? status : walk(shape, child, placed->first, placed->last, level + 1);
}

static CUresult place(struct shape *shape, struct placed *placed, unsigned level)
{
	CUgraphNodeType type;
	CUresult status = shape->session->driver->cuGraphNodeGetType(placed->node, &type);
	if (status != CUDA_SUCCESS)
		return status;
	placed->first = placed->last = shape->head.nodes++;
	if (type == CU_GRAPH_NODE_TYPE_HOST || type == CU_GRAPH_NODE_TYPE_MEMCPY)
		return mark(shape, placed->node, type, placed->first);
	if (type != CU_GRAPH_NODE_TYPE_GRAPH)
		return CUDA_SUCCESS;
	placed->last = shape->head.nodes++;
	return walk_child(shape, placed, level);
}

static int compare(const void *one, const void *two)
{
	uintptr_t a = (uintptr_t)((const struct placed *)one)->node, b = (uintptr_t)((const struct placed *)two)->node;
	return a < b ? -1 : a > b;
}

static const struct placed *find(const struct placed *placed, size_t count, CUgraphNode node)
{
	const struct placed wanted = { .node = node };
	return bsearch(&wanted, placed, count, sizeof(*placed), compare);
}

static CUresult get_edges(struct bf_driver *driver, CUgraph graph, CUgraphNode *from, CUgraphNode *to,
			  CUgraphEdgeData *data, size_t *count)
{
	return driver->cuGraphGetEdges_v2 ? driver->cuGraphGetEdges_v2(graph, from, to, data, count)
					  : driver->cuGraphGetEdges(graph, from, to, count);
}

static CUresult join(struct shape *shape, CUgraph graph, const struct placed *placed, size_t nodes)
{
	struct bf_driver *driver = shape->session->driver;
	size_t count = 0;
	CUresult status = get_edges(driver, graph, NULL, NULL, NULL, &count);
	if (status != CUDA_SUCCESS || !count)
		return status;
	CUgraphNode *ends = calloc(2 * count, sizeof(*ends));
	CUgraphEdgeData *data = calloc(count, sizeof(*data)); /* without room for which some edges are not told */
	status = ends && data ? get_edges(driver, graph, ends, ends + count, data, &count) : CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < count && status == CUDA_SUCCESS; i++) {
		const struct placed *from = find(placed, nodes, ends[i]), *to = find(placed, nodes, ends[count + i]);
		status = from && to ? add_edge(shape, from->last, to->first) : CUDA_ERROR_UNKNOWN;
	}
	free(ends);
	free(data);
	return status;
}

static CUresult walk(struct shape *shape, CUgraph graph, uint32_t first, uint32_t last, unsigned level)
{
	struct bf_driver *driver = shape->session->driver;
	size_t count = 0;
	CUresult status = level < MOST_LEVELS ? driver->cuGraphGetNodes(graph, NULL, &count) : CUDA_ERROR_NOT_SUPPORTED;
	if (status != CUDA_SUCCESS || !count)
		return status;
	CUgraphNode *nodes = calloc(count, sizeof(*nodes));
	struct placed *placed = calloc(count, sizeof(*placed));
	status = nodes && placed ? driver->cuGraphGetNodes(graph, nodes, &count) : CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < count && status == CUDA_SUCCESS; i++) {
		placed[i].node = nodes[i];
		status = place(shape, &placed[i], level);
		if (status == CUDA_SUCCESS && first != NOWHERE)
			status = add_edge(shape, first, placed[i].first);
		if (status == CUDA_SUCCESS && last != NOWHERE)
			status = add_edge(shape, placed[i].last, last);
	}
	if (status == CUDA_SUCCESS) {
		qsort(placed, count, sizeof(*placed), compare);
		status = join(shape, graph, placed, count);
	}
	free(nodes);
	free(placed);
	return status;
}

/* ------------------------------------------------------------------ the operations */

static CUresult answer_shape(const struct bf_command *command, struct shape *shape)
{
	struct bf_session *session = shape->session;
	size_t marked = shape->head.marked * sizeof(*shape->marked);
	size_t edges = (size_t)shape->head.edges * 2 * sizeof(*shape->edges);
	size_t size = sizeof(shape->head) + marked + edges;
	if (size > BF_MAX_COMMAND - sizeof(struct bf_reply)) {
		bf_log(session, "a graph of %u nodes and %u edges is too large for what copies host memory",
		       shape->head.nodes, shape->head.edges);
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	uint8_t *body = malloc(size);
	if (!body)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(body, &shape->head, sizeof(shape->head));
	if (marked)
		memcpy(body + sizeof(shape->head), shape->marked, marked);
	if (edges)
		memcpy(body + sizeof(shape->head) + marked, shape->edges, edges);
	bf_done(session, command, CUDA_SUCCESS, body, size);
	free(body);
	return CUDA_SUCCESS;
}

static bool has_functions(const struct bf_driver *driver)
{
	return driver->cuGraphGetNodes && driver->cuGraphNodeGetType && driver->cuGraphChildGraphNodeGetGraph &&
	       driver->cuGraphHostNodeGetParams && driver->cuGraphMemcpyNodeGetParams &&
	       (driver->cuGraphGetEdges || driver->cuGraphGetEdges_v2);
}

void bf_op_graph_shape(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct shape shape = { .session = session };
	struct bf_node given;
	uint64_t graph;
	memcpy(&given, body, sizeof(given));
	CUresult status = has_functions(session->driver) ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
	if (!given.node || !bf_handle_resolve(&session->handles, BF_GRAPH, given.node, &graph))
		status = CUDA_ERROR_INVALID_VALUE;
	shape.owner = bf_handle_pack(given.node);
	if (status == CUDA_SUCCESS)
		status = walk(&shape, (CUgraph)(uintptr_t)graph, NOWHERE, NOWHERE, 0);
	if (status == CUDA_SUCCESS)
		status = answer_shape(command, &shape);
	if (status != CUDA_SUCCESS)
		bf_done(session, command, status, NULL, 0);
	free(shape.marked);
	free(shape.edges);
}

/* Arrays that the client has no number for are none to it; addresses of the host are this process's own. */
static void tell_copy(struct bf_session *session, CUDA_MEMCPY3D *copy)
{
	copy->srcHost = copy->dstHost = NULL;
	copy->reserved0 = copy->reserved1 = NULL;
	copy->srcArray =
		(CUarray)(uintptr_t)bf_handle_known(&session->handles, BF_ARRAY, (uint64_t)(uintptr_t)copy->srcArray);
	copy->dstArray =
		(CUarray)(uintptr_t)bf_handle_known(&session->handles, BF_ARRAY, (uint64_t)(uintptr_t)copy->dstArray);
}

static CUresult read_node(struct bf_session *session, CUgraphNode node, struct bf_program_node *answer)
{
	struct bf_driver *driver = session->driver;
	CUDA_HOST_NODE_PARAMS host = { 0 };
	CUDA_MEMCPY3D copy = { 0 };
	CUgraphNodeType type;
	CUresult status = has_functions(driver) ? driver->cuGraphNodeGetType(node, &type) : CUDA_ERROR_NOT_SUPPORTED;
	if (status != CUDA_SUCCESS)
		return status;
	if (type == CU_GRAPH_NODE_TYPE_HOST) {
		status = driver->cuGraphHostNodeGetParams(node, &host);
		answer->function = status ? 0 : bf_host_function_number(&host);
		return status;
	}
	if (type != CU_GRAPH_NODE_TYPE_MEMCPY)
		return CUDA_ERROR_INVALID_VALUE;
	status = driver->cuGraphMemcpyNodeGetParams(node, &copy);
	tell_copy(session, &copy);
	_Static_assert(sizeof(copy) == sizeof(answer->copy), "wire.h");
	memcpy(answer->copy, &copy, sizeof(copy));
	return status;
}

void bf_op_program_node(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct bf_program_node answer = { 0 };
	struct bf_node given;
	uint64_t node;
	memcpy(&given, body, sizeof(given));
	CUresult status = CUDA_ERROR_INVALID_VALUE;
	if (given.node && bf_handle_resolve(&session->handles, BF_GRAPHNODE, given.node, &node)) {
		const struct bf_entry *entry =
			bf_handle_entry(&session->handles, BF_GRAPHNODE, BF_HANDLE_INDEX(given.node));
		answer.graph = entry ? bf_handle_unpack(entry->owner) : 0;
		status = read_node(session, (CUgraphNode)(uintptr_t)node, &answer);
	}
	bf_done(session, command, status, &answer, status ? 0 : sizeof(answer));
}
