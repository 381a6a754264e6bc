/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs: nodes, edges, the order in which they may run.
 */
#include "graph.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct graph *graph_new(void)
{
	static _Atomic unsigned last_id;
	struct graph *graph = object_new(OBJECT_GRAPH, sizeof *graph);
	if (!graph)
		return NULL;
	graph->end = &graph->first;
	graph->id = ++last_id;
	return graph;
}

void node_free(struct node *node)
{
	if (node->child)
		graph_free(node->child);
	work_free(node->work);
	free(node->dependencies);
	free(node->parameters);
	object_free(node);
}

void graph_free(struct graph *graph)
{
	while (graph->first) {
		struct node *node = graph->first;
		graph->first = node->next;
		node_free(node);
	}
	user_list_free(&graph->users);
	object_free(graph);
}

CUresult node_depend(struct node *node, struct node *on)
{
	for (unsigned i = 0; i < node->dependency_count; i++)
		if (node->dependencies[i] == on)
			return CUDA_ERROR_INVALID_VALUE;
	struct node **more = realloc(node->dependencies, (node->dependency_count + 1) * sizeof(struct node *));
	if (!more)
		return CUDA_ERROR_OUT_OF_MEMORY;
	node->dependencies = more;
	node->dependencies[node->dependency_count++] = on;
	return CUDA_SUCCESS;
}

CUresult node_add(struct graph *graph, struct work *work, struct node *const *dependencies, size_t count,
		  struct node **result)
{
	struct node *node = object_new(OBJECT_NODE, sizeof *node);
	if (!node) {
		work_free(work);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	node->graph = graph;
	node->work = work;
	node->id = graph->next_node++;
	for (size_t i = 0; i < count; i++) {
		CUresult status = node_depend(node, dependencies[i]);
		if (status != CUDA_SUCCESS) {
			node_free(node);
			return status;
		}
	}
	*graph->end = node;
	graph->end = &node->next;
	graph->count++;
	*result = node;
	return CUDA_SUCCESS;
}

static int reaches(struct node *const *from, unsigned count, const struct node *node, unsigned search)
{
	for (unsigned i = 0; i < count; i++) {
		if (from[i] == node)
			return 1;
		if (from[i]->search == search)
			continue; /* seen on another way */
		from[i]->search = search;
		if (reaches(from[i]->dependencies, from[i]->dependency_count, node, search))
			return 1;
	}
	return 0;
}

int node_reaches(struct node *const *from, unsigned count, const struct node *node)
{
	static unsigned last_search;
	return reaches(from, count, node, ++last_search);
}

/* ------------------------------------------------------------------ plans */

static unsigned count_steps(const struct graph *graph)
{
	unsigned count = 0;
	for (const struct node *node = graph->first; node; node = node->next)
		count += node->child ? count_steps(node->child) : 1;
	return count;
}

static int may_place(const struct node *node)
{
	for (unsigned i = 0; i < node->dependency_count; i++)
		if (!node->dependencies[i]->placed)
			return 0;
	return 1;
}

static CUresult place_all(struct graph *graph, struct exec_plan *plan);

static CUresult place(struct node *node, struct exec_plan *plan)
{
	node->placed = 1;
	if (node->child)
		return place_all(node->child, plan);
	struct work *copy = work_copy(node->work);
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	plan->steps[plan->count++] = (struct step){ node, copy, 1 };
	return CUDA_SUCCESS;
}

/* The order of creation nearly always does; else what was passed over is tried again. */
static CUresult place_all(struct graph *graph, struct exec_plan *plan)
{
	unsigned left = graph->count;
	TRY(user_list_add(&plan->users, &graph->users));
	for (struct node *node = graph->first; node; node = node->next)
		node->placed = 0;
	while (left) {
		unsigned before = left;
		for (struct node *node = graph->first; node; node = node->next) {
			if (node->placed || !may_place(node))
				continue;
			TRY(place(node, plan));
			left--;
		}
		if (left == before)
			return CUDA_ERROR_INVALID_VALUE; /* a circle */
	}
	return CUDA_SUCCESS;
}

CUresult graph_plan(struct graph *graph, struct exec_plan **result)
{
	unsigned count = count_steps(graph);
	struct exec_plan *plan = calloc(1, sizeof *plan + count * sizeof(struct step));
	if (!plan)
		return CUDA_ERROR_OUT_OF_MEMORY;
	plan->references = 1;
	CUresult status = place_all(graph, plan);
	if (status == CUDA_SUCCESS)
		*result = plan;
	else
		plan_unref(plan);
	return status;
}

void plan_unref(struct exec_plan *plan)
{
	if (--plan->references)
		return;
	for (unsigned i = 0; i < plan->count; i++)
		work_free(plan->steps[i].work);
	user_list_free(&plan->users);
	free(plan);
}

CUresult plan_run(struct context *context, struct exec_plan *plan)
{
	for (unsigned i = 0; i < plan->count && !context->error; i++) {
		struct work *work = plan->steps[i].work;
		if (!plan->steps[i].enabled)
			continue;
		if (work->kind == WORK_RECORD) {
			pthread_mutex_lock(&queue_lock);
			work->record.event->time_ns = queue_now_ns();
			pthread_mutex_unlock(&queue_lock);
		} else {
			TRY(work_run(context, work));
		}
	}
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ cloning */

static CUresult clone_node(struct node *node, struct graph *into)
{
	struct work *work = work_copy(node->work);
	struct node *copy;
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	TRY(node_add(into, work, NULL, 0, &copy));
	copy->id = node->id;
	copy->context = node->context;
	copy->given = node->given;
	node->clone = copy;
	return node->child ? graph_clone(node->child, &copy->child) : CUDA_SUCCESS;
}

CUresult graph_clone(struct graph *graph, struct graph **result)
{
	struct graph *clone = graph_new();
	CUresult status = clone ? user_list_add(&clone->users, &graph->users) : CUDA_ERROR_OUT_OF_MEMORY;
	for (struct node *node = graph->first; node && status == CUDA_SUCCESS; node = node->next)
		status = clone_node(node, clone);
	for (struct node *node = graph->first; node && status == CUDA_SUCCESS; node = node->next) {
		for (unsigned i = 0; i < node->dependency_count && status == CUDA_SUCCESS; i++)
			status = node_depend(node->clone, node->dependencies[i]->clone);
	}
	for (struct node *node = graph->first; node; node = node->next) {
		if (node->clone && status == CUDA_SUCCESS)
			node->clone->clone = node;
		node->clone = NULL;
	}
	if (status == CUDA_SUCCESS) {
		clone->next_node = graph->next_node;
		*result = clone;
	} else if (clone) {
		graph_free(clone);
	}
	return status;
}
