/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs: nodes are pieces of work that were not queued. An instance is a plan, the works in an order that
 * respects the edges; a launch queues the whole plan as one piece of work.
 */
#ifndef SOFTGPU_GRAPH_H
#define SOFTGPU_GRAPH_H

#include "queue.h"

struct node {
	struct object object;
	struct graph *graph;
	struct work *work;
	struct node **dependencies; /* of this graph */
	unsigned dependency_count;
	struct node *next; /* in the order of creation */
	struct node *clone; /* while its graph is being cloned; afterwards, in the clone: what it was made from */
	int placed;         /* while a plan is being made */
	unsigned search;    /* the latest that came by */
	unsigned id;
	struct graph *child; /* WORK_CHILD */
	CUcontext context;
	union { /* as the program gave it, to be read back */
		CUDA_MEMCPY3D copy;
		CUDA_MEMSET_NODE_PARAMS set;
		CUDA_MEM_ALLOC_NODE_PARAMS allocate;
	} given;
	void **parameters; /* of a kernel: made when they are asked for */
};

/* Objects of the program, a reference each. */
struct user_list {
	struct user_object **users;
	unsigned count;
};

struct graph {
	struct object object;
	struct node *first, **end;
	unsigned count, id, next_node;
	int is_child;
	struct user_list users;
};

/* One entry of a plan. */
struct step {
	struct node *node; /* what it was made from: a key only, may be gone */
	struct work *work;
	int enabled;
};

struct exec_plan {
	int references; /* under queue_lock: the instance, and launches in flight */
	struct user_list users;
	unsigned count;
	struct step steps[];
};

struct exec {
	struct object object;
	struct exec_plan *plan;
	struct context *context;
	cuuint64_t flags;
	unsigned id;
};

CUresult plan_run(struct context *context, struct exec_plan *plan);
void plan_unref(struct exec_plan *plan); /* with queue_lock held */

/* All with queue_lock held. */
struct graph *graph_new(void);
void graph_free(struct graph *graph);
CUresult node_add(struct graph *graph, struct work *work, struct node *const *dependencies, size_t count,
		  struct node **result);
CUresult node_depend(struct node *node, struct node *on);
void node_free(struct node *node);
int node_reaches(struct node *const *from, unsigned count, const struct node *node);
CUresult graph_plan(struct graph *graph, struct exec_plan **plan);
CUresult graph_clone(struct graph *graph, struct graph **clone);
void graph_memory_unref(struct graph_memory *memory);
void graph_memory_launch(const struct exec_plan *plan); /* what the program has when the launch is over */
CUresult user_list_add(struct user_list *to, const struct user_list *from);
void user_list_free(struct user_list *list);
CUgraphNodeType node_type(const struct work *work);

#endif
