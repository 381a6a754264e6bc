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
	bool lasting; /* of a graph, which may be launched again */
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

/* What the server says may run; one that is not lasting only once. */
static bool take_ticket(uint64_t number, struct ticket *taken)
{
	size_t place = TICKET_PLACE(number);
	bool found;

	pthread_mutex_lock(&callbacks.lock);
	found = number && place < callbacks.ticket_count && callbacks.tickets[place].number == number;
	if (found) {
		*taken = callbacks.tickets[place];
		if (!taken->lasting) {
			callbacks.tickets[place].number = 0;
			callbacks.tickets[place].next_free = callbacks.free_ticket;
			callbacks.free_ticket = place;
		}
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

	if (bf_shared_in_use())
		share(bf_shared_enter_function);
	if (ticket->kind == STREAM_CALLBACK)
		((CUstreamCallback)(uintptr_t)ticket->function)(ticket->stream, (CUresult)callback->status,
								ticket->data);
	else
		((CUhostFn)(uintptr_t)ticket->function)(ticket->data);
	if (bf_shared_in_use())
		share(bf_shared_leave_function);
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

void bf_callback_expect(unsigned count)
{
	atomic_fetch_add(&callbacks.issued, count);
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

static CUresult launch(CUstream stream, uint64_t function, void *data, unsigned kind, bool per_thread)
{
	struct bf_host_function body = { .kind = kind };
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
		status = kind == HOST_FUNCTION ? bf_capture_function(capture) : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!status)
		status = start_thread();
	if (status)
		return status;
	bf_stream_admit(stream, 0);
	body.stream = BF_ARG(stream);
	body.function = give_ticket(&(struct ticket){
		.function = function, .data = data, .stream = stream, .kind = kind, .lasting = capture != 0 });
	if (!body.function)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!capture) /* else each launch of the graph will issue it */
		bf_callback_expect(1);
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
