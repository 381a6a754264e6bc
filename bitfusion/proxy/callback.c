/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions: the server's stream stops at one, tells us, and goes on when we say that it has returned. They
 * run on one thread of ours, in the order the server reports them. The server never learns a function's address, and
 * cannot name one that the program did not give: it gets a ticket.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

#include <stdlib.h>
#include <sys/prctl.h>

struct ticket {
	uint64_t number; /* place in the table, and above it how often that was used; 0: free */
	uint64_t function;
	void *data;
	CUstream stream;
	uint32_t kind;
	struct bf_graph_function *owner; /* of a graph, which may be launched again; else NULL */
	unsigned launches; /* of that, in which it has yet to run */
	size_t next_free;
};
#define TICKET_PLACE(number) ((number) & UINT32_MAX)

struct pending {
	struct pending *next;
	struct bf_callback callback;
	struct ticket ticket;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct pending *first, **last;
	_Atomic uint64_t issued, done;
	bool started;
	struct ticket *tickets; /* place 0 is never given: it ends the list of free ones */
	size_t ticket_count, ticket_room, free_ticket;
	uint64_t ticket_uses;
} callbacks = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .last = &callbacks.first };

enum { HOST_FUNCTION, STREAM_CALLBACK };

/* With the lock held. */
static bool grow_tickets(void)
{
	size_t room = callbacks.ticket_room ? callbacks.ticket_room * 2 : 16;
	struct ticket *moved = room < UINT32_MAX ? realloc(callbacks.tickets, room * sizeof *moved) : NULL;

	if (!moved)
		return false;
	callbacks.tickets = moved;
	callbacks.ticket_room = room;
	if (!callbacks.ticket_count)
		moved[callbacks.ticket_count++] = (struct ticket){ 0 };
	return true;
}

static uint64_t give_ticket(const struct ticket *wanted)
{
	uint64_t number = 0;
	size_t place;

	pthread_mutex_lock(&callbacks.lock);
	place = callbacks.free_ticket;
	if (place)
		callbacks.free_ticket = callbacks.tickets[place].next_free;
	else if (callbacks.ticket_count < callbacks.ticket_room || grow_tickets())
		place = callbacks.ticket_count++;
	if (place) {
		number = ++callbacks.ticket_uses << 32 | place;
		callbacks.tickets[place] = *wanted;
		callbacks.tickets[place].number = number;
	}
	pthread_mutex_unlock(&callbacks.lock);
	return number;
}

/* With the lock held; NULL: there is none of this number. */
static struct ticket *find_ticket(uint64_t number)
{
	size_t place = TICKET_PLACE(number);
	bool found = number && place < callbacks.ticket_count && callbacks.tickets[place].number == number;

	return found ? &callbacks.tickets[place] : NULL;
}

static void free_ticket(struct ticket *ticket)
{
	ticket->number = 0;
	ticket->next_free = callbacks.free_ticket;
	callbacks.free_ticket = (size_t)(ticket - callbacks.tickets);
}

void bf_ticket_drop(uint64_t number)
{
	struct ticket *ticket;

	pthread_mutex_lock(&callbacks.lock);
	ticket = find_ticket(number);
	if (ticket)
		free_ticket(ticket);
	pthread_mutex_unlock(&callbacks.lock);
}

/* What the server says may run: once, or once for each launch. */
static bool take_ticket(uint64_t number, struct ticket *taken)
{
	struct ticket *ticket;
	bool found;

	pthread_mutex_lock(&callbacks.lock);
	ticket = find_ticket(number);
	found = ticket && (!ticket->owner || ticket->launches);
	if (found) {
		*taken = *ticket;
		if (ticket->owner)
			ticket->launches--;
		else
			free_ticket(ticket);
	}
	pthread_mutex_unlock(&callbacks.lock);
	return found;
}

/* The program's function may make no calls, but what is done for it does. */
static void share(void (*function)(void))
{
	bf_self.in_callback = false;
	function();
	bf_self.in_callback = true;
}

static void run(const struct bf_callback *callback, const struct ticket *ticket)
{
	struct bf_callback_done done = { callback->token };

	if (ticket->owner) {
		bf_self.in_callback = false;
		bf_graph_function_bring_out(ticket->owner);
		bf_self.in_callback = true;
	}
	if (bf_shared_in_use())
		share(bf_shared_enter_function);
	if (ticket->kind == STREAM_CALLBACK)
		((CUstreamCallback)(uintptr_t)ticket->function)(ticket->stream, (CUresult)callback->status,
								ticket->data);
	else
		((CUhostFn)(uintptr_t)ticket->function)(ticket->data);
	if (bf_shared_in_use())
		share(bf_shared_leave_function);
	if (ticket->owner) { /* ahead of the end of its launch: who waits for that finds the memory given back */
		bf_self.in_callback = false;
		bf_graph_function_drop(ticket->owner);
		bf_self.in_callback = true;
	}
	bf_post(BF_OP_CALLBACK_DONE, &done, sizeof done);
	bf_queue_flush();
}

static void *callback_main(void *unused)
{
	prctl(PR_SET_NAME, "bitfusion-calls");
	bf_self.in_callback = true;
	pthread_mutex_lock(&callbacks.lock);
	for (;;) {
		struct pending *pending = callbacks.first;

		if (!pending) {
			pthread_cond_wait(&callbacks.changed, &callbacks.lock);
			continue;
		}
		callbacks.first = pending->next;
		if (!callbacks.first)
			callbacks.last = &callbacks.first;
		pthread_mutex_unlock(&callbacks.lock);
		run(&pending->callback, &pending->ticket);
		free(pending);
		pthread_mutex_lock(&callbacks.lock);
		atomic_fetch_add(&callbacks.done, 1);
	}
	return unused;
}

/* Called by whoever reads the socket; -1 when it may not go on. */
int bf_callback_queue(const struct bf_callback *callback)
{
	struct pending *pending = malloc(sizeof *pending);

	if (!pending || !take_ticket(callback->function, &pending->ticket)) {
		bf_debug(pending ? "the server calls a function that nobody gave it" : "no memory for a host function");
		free(pending);
		return -1;
	}
	pending->next = NULL;
	pending->callback = *callback;
	pthread_mutex_lock(&callbacks.lock);
	*callbacks.last = pending;
	callbacks.last = &pending->next;
	pthread_cond_broadcast(&callbacks.changed);
	pthread_mutex_unlock(&callbacks.lock);
	return 0;
}

bool bf_callback_pending(void)
{
	return atomic_load(&callbacks.issued) != atomic_load(&callbacks.done);
}

void bf_callback_expect(const struct bf_graph_work *work)
{
	atomic_fetch_add(&callbacks.issued, work->function_count);
	pthread_mutex_lock(&callbacks.lock);
	for (unsigned i = 0; i < work->function_count; i++) {
		struct ticket *ticket = find_ticket(work->functions[i].function->ticket);

		atomic_fetch_add(&work->functions[i].function->references, 1);
		if (ticket)
			ticket->launches++;
	}
	pthread_mutex_unlock(&callbacks.lock);
}

void bf_callback_forget(const struct bf_graph_work *work)
{
	atomic_fetch_sub(&callbacks.issued, work->function_count);
	pthread_mutex_lock(&callbacks.lock);
	for (unsigned i = 0; i < work->function_count; i++) {
		struct ticket *ticket = find_ticket(work->functions[i].function->ticket);

		if (ticket && ticket->launches) {
			ticket->launches--;
			atomic_fetch_sub(&work->functions[i].function->references, 1); /* the work has one of its own */
		}
	}
	pthread_mutex_unlock(&callbacks.lock);
}

static CUresult start_thread(void)
{
	CUresult status = CUDA_SUCCESS;

	pthread_mutex_lock(&callbacks.lock);
	if (!callbacks.started) {
		if (bf_thread_start(callback_main))
			status = CUDA_ERROR_OUT_OF_MEMORY;
		else
			callbacks.started = true;
	}
	pthread_mutex_unlock(&callbacks.lock);
	if (!status)
		bf_reply_start_reader();
	return status;
}

struct bf_graph_function *bf_ticket_function(uint64_t number, CUDA_HOST_NODE_PARAMS *params)
{
	struct bf_graph_function *owner = NULL;
	const struct ticket *ticket;

	pthread_mutex_lock(&callbacks.lock);
	ticket = find_ticket(number);
	if (ticket && ticket->owner && atomic_load(&ticket->owner->references)) {
		owner = ticket->owner;
		atomic_fetch_add(&owner->references, 1);
		*params = (CUDA_HOST_NODE_PARAMS){ (CUhostFn)(uintptr_t)ticket->function, ticket->data };
	}
	pthread_mutex_unlock(&callbacks.lock);
	return owner;
}

CUresult bf_graph_function_make(const CUDA_HOST_NODE_PARAMS *params, struct bf_graph_work *before,
				struct bf_graph_function **made)
{
	struct bf_graph_function *function = bf_graph_function_new();
	struct ticket ticket = { .function = BF_ARG(params->fn), .data = params->userData, .owner = function };
	CUresult status = function ? start_thread() : CUDA_ERROR_OUT_OF_MEMORY;

	if (!function)
		bf_work_drop(before);
	else
		function->before = before;
	if (!status && before)
		status = cuStreamCreate(&function->stream, CU_STREAM_NON_BLOCKING);
	if (!status) {
		function->ticket = give_ticket(&ticket);
		status = function->ticket ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (status)
		bf_graph_function_drop(function);
	else
		*made = function;
	return status;
}

static CUresult capture_function(uint64_t capture, unsigned kind, CUstream stream, struct bf_graph_function **owner)
{
	CUresult status;

	if (kind != HOST_FUNCTION)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	*owner = bf_graph_function_new();
	status = *owner ? bf_capture_function(capture, *owner, stream) : CUDA_ERROR_OUT_OF_MEMORY;
	bf_graph_function_drop(*owner); /* the capture's now, or nobody's */
	return status;
}

static CUresult launch(CUstream stream, uint64_t function, void *data, unsigned kind, bool per_thread)
{
	struct bf_host_function body = { .kind = kind };
	struct ticket ticket = { .function = function, .data = data, .kind = kind };
	CUresult status = bf_check();
	uint64_t capture = 0;

	if (!status)
		status = bf_context_check();
	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (!status)
		status = bf_stream_check(stream);
	if (!status && !function)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = bf_capture_find(stream, &capture);
	if (!status && capture)
		status = capture_function(capture, kind, stream, &ticket.owner);
	if (!status)
		status = start_thread();
	if (status)
		return status;
	bf_stream_admit(stream, 0);
	body.stream = BF_ARG(stream);
	ticket.stream = stream;
	body.function = give_ticket(&ticket);
	if (!body.function)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (ticket.owner) /* each launch of the graph will issue it */
		ticket.owner->ticket = body.function;
	else
		atomic_fetch_add(&callbacks.issued, 1);
	return bf_post(BF_OP_HOST_FUNCTION, &body, sizeof body);
}

BF_EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
	return launch(hStream, (uint64_t)(uintptr_t)fn, userData, HOST_FUNCTION, false);
}

BF_EXPORT CUresult cuLaunchHostFunc_ptsz(CUstream hStream, CUhostFn fn, void *userData)
{
	return launch(hStream, (uint64_t)(uintptr_t)fn, userData, HOST_FUNCTION, true);
}

BF_EXPORT CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)
{
	if (flags)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return launch(hStream, (uint64_t)(uintptr_t)callback, userData, STREAM_CALLBACK, false);
}

BF_EXPORT CUresult cuStreamAddCallback_ptsz(CUstream hStream, CUstreamCallback callback, void *userData,
					    unsigned int flags)
{
	if (flags)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return launch(hStream, (uint64_t)(uintptr_t)callback, userData, STREAM_CALLBACK, true);
}
