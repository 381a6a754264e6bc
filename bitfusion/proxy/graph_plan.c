/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of a graph made by hand. The server tells what is ahead of what; from that follows which function brings
 * out which copies before it runs, and whether it is enough to bring the others in before a launch and out after it.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>
#include <string.h>

_Atomic bool bf_graphs_by_hand;

enum { NOBODY = -1 };

/* A copy or a host function of the graph. In topological order. */
struct item {
	const struct bf_marked_node *marked;
	struct bf_graph_buffer *buffer; /* of a copy */
	struct bf_graph_function *function; /* of a host function */
	struct bf_graph_function *renewed; /* that takes its place: it brings other copies */
	CUDA_HOST_NODE_PARAMS params;
	int bringer; /* of a copy to the host: the function */
	bool crossed;
};

struct plan {
	struct bf_wait wait;
	struct bf_graph_shape head;
	const struct bf_marked_node *marked;
	const uint32_t *edges; /* pairs */
	uint32_t *next; /* places behind each place: from start[place] to start[place + 1] */
	uint32_t *start, *order, *waits; /* for how many places each one waits */
	uint64_t *ahead; /* of each place: bits of the items that are */
	size_t words;
	struct item *items;
	unsigned count;
};

/* ------------------------------------------------------------------ what the server tells */

static bool is_whole(struct plan *plan)
{
	const uint8_t *body = plan->wait.body;
	uint64_t size = plan->wait.body_size;

	if (size < sizeof plan->head)
		return false;
	memcpy(&plan->head, body, sizeof plan->head);
	if (plan->head.nodes > BF_MAX_COMMAND || plan->head.marked > plan->head.nodes ||
	    size < sizeof plan->head + plan->head.marked * sizeof *plan->marked + (uint64_t)plan->head.edges * 8)
		return false;
	plan->marked = (const struct bf_marked_node *)(body + sizeof plan->head);
	plan->edges = (const uint32_t *)(plan->marked + plan->head.marked);
	for (uint32_t i = 0; i < 2 * plan->head.edges; i++)
		if (plan->edges[i] >= plan->head.nodes)
			return false;
	for (uint32_t i = 0; i < plan->head.marked; i++)
		if (plan->marked[i].place >= plan->head.nodes)
			return false;
	return true;
}

static CUresult ask(struct plan *plan, uint64_t graph)
{
	const struct bf_node body = { graph };
	CUresult status = bf_question(&plan->wait, BF_OP_GRAPH_SHAPE, &body, sizeof body);

	if (!status)
		status = bf_wait_for_result(&plan->wait);
	return status || is_whole(plan) ? status : CUDA_ERROR_UNKNOWN;
}

/* A copy without a buffer of ours is none of the program's memory. */
static CUresult add_item(struct plan *plan, const struct bf_marked_node *marked)
{
	struct item *item = &plan->items[plan->count];

	*item = (struct item){ .marked = marked, .bringer = NOBODY };
	if (marked->type == CU_GRAPH_NODE_TYPE_HOST) {
		item->function = bf_ticket_function(marked->from, &item->params);
		plan->count += item->function != NULL;
		return item->function ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
	}
	item->buffer = marked->from ? bf_buffer_find(marked->from) : NULL;
	if (!item->buffer && marked->to)
		item->buffer = bf_buffer_find(marked->to);
	plan->count += item->buffer != NULL;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ what is ahead of what */

static bool make_room(struct plan *plan)
{
	size_t nodes = plan->head.nodes;

	plan->next = calloc(plan->head.edges + 1, sizeof *plan->next);
	plan->start = calloc(nodes + 2, sizeof *plan->start);
	plan->order = calloc(nodes + 1, sizeof *plan->order);
	plan->waits = calloc(nodes + 1, sizeof *plan->waits);
	plan->items = calloc(plan->head.marked + 1, sizeof *plan->items);
	return plan->next && plan->start && plan->order && plan->waits && plan->items;
}

static void link_places(struct plan *plan)
{
	const uint32_t *edges = plan->edges;

	for (uint32_t i = 0; i < plan->head.edges; i++) {
		plan->start[edges[2 * i] + 2]++;
		plan->waits[edges[2 * i + 1]]++;
	}
	for (uint32_t i = 2; i < plan->head.nodes + 2; i++)
		plan->start[i] += plan->start[i - 1];
	for (uint32_t i = 0; i < plan->head.edges; i++)
		plan->next[plan->start[edges[2 * i] + 1]++] = edges[2 * i + 1];
}

/* False: they wait for each other, which no driver's do. */
static bool sort(struct plan *plan)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < plan->head.nodes; i++)
		if (!plan->waits[i])
			plan->order[count++] = i;
	for (uint32_t done = 0; done < count; done++) {
		uint32_t place = plan->order[done];

		for (uint32_t i = plan->start[place]; i < plan->start[place + 1]; i++)
			if (!--plan->waits[plan->next[i]])
				plan->order[count++] = plan->next[i];
	}
	return count == plan->head.nodes;
}

static CUresult find_items(struct plan *plan)
{
	const struct bf_marked_node **at = calloc(plan->head.nodes + 1, sizeof *at);
	CUresult status = at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	for (uint32_t i = 0; at && i < plan->head.marked; i++)
		at[plan->marked[i].place] = &plan->marked[i];
	for (uint32_t i = 0; !status && i < plan->head.nodes; i++)
		if (at[plan->order[i]])
			status = add_item(plan, at[plan->order[i]]);
	free(at);
	return status;
}

static void pass_on(struct plan *plan, uint32_t place, int item)
{
	const uint64_t *own = plan->ahead + place * plan->words;

	for (uint32_t i = plan->start[place]; i < plan->start[place + 1]; i++) {
		uint64_t *its = plan->ahead + plan->next[i] * plan->words;

		for (size_t word = 0; word < plan->words; word++)
			its[word] |= own[word];
		if (item != NOBODY)
			its[item / 64] |= (uint64_t)1 << item % 64;
	}
}

static CUresult find_order(struct plan *plan)
{
	unsigned item = 0;

	plan->words = (plan->count + 63) / 64;
	plan->ahead = calloc((size_t)plan->head.nodes * plan->words + 1, sizeof *plan->ahead);
	if (!plan->ahead)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (uint32_t i = 0; i < plan->head.nodes; i++) {
		bool is_item = item < plan->count && plan->items[item].marked->place == plan->order[i];

		pass_on(plan, plan->order[i], is_item ? (int)item : NOBODY);
		item += is_item;
	}
	return CUDA_SUCCESS;
}

static CUresult read_graph(struct plan *plan, uint64_t graph)
{
	CUresult status = ask(plan, graph);

	if (!status && !make_room(plan))
		status = CUDA_ERROR_OUT_OF_MEMORY;
	if (status)
		return status;
	link_places(plan);
	status = sort(plan) ? find_items(plan) : CUDA_ERROR_UNKNOWN;
	return status ? status : find_order(plan);
}

static bool is_ahead(const struct plan *plan, unsigned one, unsigned of)
{
	return plan->ahead[plan->items[of].marked->place * plan->words + one / 64] >> one % 64 & 1;
}

/* ------------------------------------------------------------------ what can be kept in order */

static bool copies(const struct item *item, bool to_host)
{
	return item->buffer && item->buffer->to_host == to_host;
}

/* Why what is copied to the device by an item cannot be read ahead of the launch; NULL: it can. */
static const char *check_upload(struct plan *plan, unsigned up)
{
	for (unsigned i = 0; i < up; i++) {
		struct item *item = &plan->items[i];

		if (!is_ahead(plan, i, up))
			continue;
		if (item->function)
			return "a copy of host memory to the device behind a host function of its graph";
		if (!copies(item, true))
			continue;
		if (bf_buffers_overlap(item->buffer, plan->items[up].buffer))
			return "a copy of host memory to the device behind one of its graph that writes it";
		item->crossed = plan->items[up].crossed = true;
	}
	return NULL;
}

/* The first function behind a copy brings it out, once: what others do to the memory later must stay. */
static const char *check_function(struct plan *plan, unsigned function)
{
	for (unsigned i = 0; i < function; i++) {
		struct item *item = &plan->items[i];

		if (!copies(item, true) || !is_ahead(plan, i, function))
			continue;
		if (item->bringer == NOBODY)
			item->bringer = (int)function;
		else if (!is_ahead(plan, (unsigned)item->bringer, function))
			return "a graph with two host functions behind a copy to host memory and neither behind the other";
	}
	return NULL;
}

static CUresult check(struct plan *plan)
{
	const char *fault = NULL;

	for (unsigned i = 0; i < plan->count && !fault; i++)
		if (plan->items[i].function)
			fault = check_function(plan, i);
		else if (!plan->items[i].buffer->to_host)
			fault = check_upload(plan, i);
	return fault ? bf_absent_instead(fault, "make two graphs of it") : CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ the work */

static struct bf_graph_work *what_brings(const struct plan *plan, int function)
{
	struct bf_graph_work *before = bf_work_new((unsigned)function, 0);

	for (int i = 0; before && i < function; i++)
		if (plan->items[i].bringer == function)
			bf_work_append_copy(before, plan->items[i].buffer, plan->items[i].marked->node);
	return before;
}

static bool brings_the_same(const struct bf_graph_work *one, const struct bf_graph_work *two)
{
	const struct bf_graph_copy *first, *second;
	unsigned i = 0, j = 0;

	do {
		first = bf_work_brings(one, &i);
		second = bf_work_brings(two, &j);
		i++;
		j++;
	} while (first && second && first->buffer == second->buffer);
	return !first && !second;
}

/* A function that other graphs may have is not changed. */
static CUresult renew(struct plan *plan, int function)
{
	struct item *item = &plan->items[function];
	struct bf_graph_work *before = what_brings(plan, function);

	if (!before)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (brings_the_same(item->function->before, before)) {
		bf_work_drop(before);
		return CUDA_SUCCESS;
	}
	if (!before->copy_count) {
		bf_work_drop(before);
		before = NULL;
	}
	return bf_graph_function_make(&item->params, before, &item->renewed);
}

static struct bf_graph_work *compose(const struct plan *plan)
{
	struct bf_graph_work *work = bf_work_new(plan->count, plan->count);

	for (unsigned i = 0; work && i < plan->count; i++) {
		const struct item *item = &plan->items[i];

		if (item->function) {
			bf_work_append_function(work, item->renewed ? item->renewed : item->function,
						item->marked->node);
			continue;
		}
		bf_work_append_copy(work, item->buffer, item->marked->node);
		work->copies[work->copy_count - 1].brought = item->bringer != NOBODY;
		work->copies[work->copy_count - 1].crossed = item->crossed;
	}
	return work;
}

static CUresult tell_server(const struct plan *plan)
{
	CUresult status = CUDA_SUCCESS;

	for (unsigned i = 0; i < plan->count && !status; i++) {
		const struct item *item = &plan->items[i];
		const CUDA_HOST_NODE_PARAMS params = { NULL, item->renewed ? (void *)(uintptr_t)item->renewed->ticket
									   : NULL };

		if (item->renewed)
			status = BF_CALL(cuGraphHostNodeSetParams, item->marked->node, BF_ARG(&params));
	}
	return status;
}

/* Where the server has taken but some of it, the graph keeps what it had too. */
static CUresult put_into_effect(const struct plan *plan, struct bf_graph *graph)
{
	struct bf_graph_work *old = bf_graph_take_work(graph), *work = plan->count ? compose(plan) : NULL;
	struct bf_graph_work *both = work ? bf_work_join(old, work) : NULL;
	CUresult status = plan->count && !both ? CUDA_ERROR_OUT_OF_MEMORY : tell_server(plan);

	if (!status) {
		bf_graph_give_work(graph, work);
		bf_work_drop(both);
	} else {
		bf_work_drop(work);
		if (both)
			bf_graph_give_work(graph, both);
	}
	bf_work_drop(old);
	return status;
}

static void forget(struct plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++) {
		bf_buffer_drop(plan->items[i].buffer);
		bf_graph_function_drop(plan->items[i].function);
		bf_graph_function_drop(plan->items[i].renewed);
	}
	free(plan->items);
	free(plan->ahead);
	free(plan->next);
	free(plan->start);
	free(plan->order);
	free(plan->waits);
	bf_wait_drop(&plan->wait);
}

CUresult bf_graph_plan(uint64_t handle)
{
	struct bf_graph *graph = bf_handle_find(BF_GRAPH, handle);
	struct plan plan = { 0 };
	CUresult status = bf_check();

	if (!status && !graph)
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		return status;
	status = read_graph(&plan, handle);
	if (!status)
		status = check(&plan);
	for (unsigned i = 0; i < plan.count && !status; i++)
		if (plan.items[i].function)
			status = renew(&plan, (int)i);
	if (!status)
		status = put_into_effect(&plan, graph);
	forget(&plan);
	return status;
}
