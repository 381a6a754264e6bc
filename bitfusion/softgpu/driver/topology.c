/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program may ask about a graph's shape, and change in it.
 */
#include "graph.h"

#include <stdlib.h>

static struct graph *get(CUgraph handle)
{
	return object_get(handle, OBJECT_GRAPH);
}

static struct node *get_node(CUgraphNode handle)
{
	return object_get(handle, OBJECT_NODE);
}

EXPORT CUresult cuGraphCreate(CUgraph *phGraph, unsigned int flags)
{
	ENTER();
	if (!phGraph || flags)
		return CUDA_ERROR_INVALID_VALUE;
	struct graph *graph = graph_new();
	if (!graph)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*phGraph = (CUgraph)graph;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
	ENTER();
	struct graph *graph = get(hGraph);
	if (!graph || graph->is_child)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	graph_free(graph);
	pthread_mutex_unlock(&queue_lock);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphClone(CUgraph *phGraphClone, CUgraph originalGraph)
{
	ENTER();
	struct graph *graph = get(originalGraph), *clone;
	if (!phGraphClone || !graph)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = graph_clone(graph, &clone);
	pthread_mutex_unlock(&queue_lock);
	if (result == CUDA_SUCCESS)
		*phGraphClone = (CUgraph)clone;
	return result;
}

EXPORT CUresult cuGraphNodeFindInClone(CUgraphNode *phNode, CUgraphNode hOriginalNode, CUgraph hClonedGraph)
{
	ENTER();
	struct graph *graph = get(hClonedGraph);
	if (!phNode || !graph || !get_node(hOriginalNode))
		return CUDA_ERROR_INVALID_VALUE;
	for (struct node *node = graph->first; node; node = node->next)
		if (node->clone == (struct node *)hOriginalNode) {
			*phNode = (CUgraphNode)node;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

CUgraphNodeType node_type(const struct work *work)
{
	switch (work->kind) {
	case WORK_KERNEL: return CU_GRAPH_NODE_TYPE_KERNEL;
	case WORK_COPY: return CU_GRAPH_NODE_TYPE_MEMCPY;
	case WORK_SET: return CU_GRAPH_NODE_TYPE_MEMSET;
	case WORK_HOST: return CU_GRAPH_NODE_TYPE_HOST;
	case WORK_CHILD: return CU_GRAPH_NODE_TYPE_GRAPH;
	case WORK_EVENT_WAIT: return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
	case WORK_RECORD: return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
	case WORK_ALLOCATE: return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
	case WORK_RELEASE: return CU_GRAPH_NODE_TYPE_MEM_FREE;
	case WORK_WAIT_VALUE:
	case WORK_WRITE_VALUE: return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
	default: return CU_GRAPH_NODE_TYPE_EMPTY;
	}
}

EXPORT CUresult cuGraphNodeGetType(CUgraphNode hNode, CUgraphNodeType *type)
{
	ENTER();
	struct node *node = get_node(hNode);
	if (!node || !type)
		return CUDA_ERROR_INVALID_VALUE;
	*type = node_type(node->work);
	return CUDA_SUCCESS;
}

/* A list in the way of these calls: as many as fit, the rest NULL; without a list, how many there are. */
struct list {
	CUgraphNode *nodes;
	size_t *count;
	size_t found;
};

static void list_add(struct list *list, struct node *node)
{
	if (list->nodes && list->found < *list->count)
		list->nodes[list->found] = (CUgraphNode)node;
	list->found++;
}

static CUresult list_end(struct list *list)
{
	for (size_t i = list->found; list->nodes && i < *list->count; i++)
		list->nodes[i] = NULL;
	if (!list->nodes || list->found < *list->count)
		*list->count = list->found;
	return CUDA_SUCCESS;
}

static CUresult list_graph(CUgraph handle, CUgraphNode *nodes, size_t *count, int only_roots)
{
	ENTER();
	struct graph *graph = get(handle);
	struct list list = { nodes, count, 0 };
	if (!graph || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (struct node *node = graph->first; node; node = node->next)
		if (!only_roots || !node->dependency_count)
			list_add(&list, node);
	return list_end(&list);
}

EXPORT CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
	return list_graph(hGraph, nodes, numNodes, 0);
}

EXPORT CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode *rootNodes, size_t *numRootNodes)
{
	return list_graph(hGraph, rootNodes, numRootNodes, 1);
}

EXPORT CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, size_t *numEdges)
{
	ENTER();
	struct graph *graph = get(hGraph);
	if (!graph || !numEdges || !from != !to)
		return CUDA_ERROR_INVALID_VALUE;
	size_t room = *numEdges, room_to = *numEdges;
	struct list sources = { from, &room, 0 }, targets = { to, &room_to, 0 };
	for (struct node *node = graph->first; node; node = node->next)
		for (unsigned i = 0; i < node->dependency_count; i++) {
			list_add(&sources, node->dependencies[i]);
			list_add(&targets, node);
		}
	list_end(&sources);
	list_end(&targets);
	*numEdges = room;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphGetEdges_v2(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edgeData,
				   size_t *numEdges)
{
	TRY(cuGraphGetEdges(hGraph, from, to, numEdges));
	for (size_t i = 0; edgeData && from && i < *numEdges; i++)
		edgeData[i] = (CUgraphEdgeData){ 0 };
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode *dependencies, size_t *numDependencies)
{
	ENTER();
	struct node *node = get_node(hNode);
	struct list list = { dependencies, numDependencies, 0 };
	if (!node || !numDependencies)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < node->dependency_count; i++)
		list_add(&list, node->dependencies[i]);
	return list_end(&list);
}

EXPORT CUresult cuGraphNodeGetDependencies_v2(CUgraphNode hNode, CUgraphNode *dependencies, CUgraphEdgeData *edgeData,
					      size_t *numDependencies)
{
	TRY(cuGraphNodeGetDependencies(hNode, dependencies, numDependencies));
	for (size_t i = 0; edgeData && dependencies && i < *numDependencies; i++)
		edgeData[i] = (CUgraphEdgeData){ 0 };
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode *dependentNodes, size_t *numDependentNodes)
{
	ENTER();
	struct node *node = get_node(hNode);
	struct list list = { dependentNodes, numDependentNodes, 0 };
	if (!node || !numDependentNodes)
		return CUDA_ERROR_INVALID_VALUE;
	for (struct node *other = node->graph->first; other; other = other->next)
		for (unsigned i = 0; i < other->dependency_count; i++)
			if (other->dependencies[i] == node)
				list_add(&list, other);
	return list_end(&list);
}

EXPORT CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode hNode, CUgraphNode *dependentNodes,
						CUgraphEdgeData *edgeData, size_t *numDependentNodes)
{
	TRY(cuGraphNodeGetDependentNodes(hNode, dependentNodes, numDependentNodes));
	for (size_t i = 0; edgeData && dependentNodes && i < *numDependentNodes; i++)
		edgeData[i] = (CUgraphEdgeData){ 0 };
	return CUDA_SUCCESS;
}

static void forget_dependency(struct node *node, const struct node *on)
{
	for (unsigned i = 0; i < node->dependency_count; i++)
		if (node->dependencies[i] == on)
			node->dependencies[i--] = node->dependencies[--node->dependency_count];
}

EXPORT CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
				       size_t numDependencies)
{
	ENTER();
	struct graph *graph = get(hGraph);
	if (!graph || (numDependencies && (!from || !to)))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numDependencies; i++) {
		struct node *source = get_node(from[i]), *target = get_node(to[i]);
		if (!source || !target || source->graph != graph || target->graph != graph || source == target)
			return CUDA_ERROR_INVALID_VALUE;
		TRY(node_depend(target, source));
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphAddDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
					  const CUgraphEdgeData *edgeData, size_t numDependencies)
{
	(void)edgeData;
	return cuGraphAddDependencies(hGraph, from, to, numDependencies);
}

EXPORT CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
					  size_t numDependencies)
{
	ENTER();
	struct graph *graph = get(hGraph);
	if (!graph || (numDependencies && (!from || !to)))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numDependencies; i++) {
		struct node *source = get_node(from[i]), *target = get_node(to[i]);
		if (!source || !target || target->graph != graph)
			return CUDA_ERROR_INVALID_VALUE;
		forget_dependency(target, source);
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphRemoveDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
					     const CUgraphEdgeData *edgeData, size_t numDependencies)
{
	(void)edgeData;
	return cuGraphRemoveDependencies(hGraph, from, to, numDependencies);
}

EXPORT CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
	ENTER();
	struct node *node = get_node(hNode);
	if (!node)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	struct graph *graph = node->graph;
	for (struct node *other = graph->first; other; other = other->next)
		forget_dependency(other, node);
	struct node **at = &graph->first;
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	if (graph->end == &node->next)
		graph->end = at;
	graph->count--;
	node_free(node);
	pthread_mutex_unlock(&queue_lock);
	return CUDA_SUCCESS;
}
