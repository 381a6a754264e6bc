/* SPDX-License-Identifier: Apache-2.0
 *
 * One session from the hello to the goodbye: the handshake, then the issue loop.
 */
#include "core.h"
#include "calls.h"
#include "printable.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOK_AFTER = 16 }; /* commands, at the memory that the session holds */
enum { MOST_LINES = 64 }; /* of the log: a client decides how often there is something to say */

void bf_log(struct bf_session *session, const char *format, ...)
{
	char line[512], shown[512];
	va_list arguments;
	if (session->options.log_fd < 0)
		return;
	va_start(arguments, format);
	int size = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	unsigned said = atomic_fetch_add(&session->lines_said, 1);
	if (size < 0 || said > MOST_LINES)
		return;
	bf_printable(shown, sizeof(shown), said < MOST_LINES ? line : "no more is said of this session");
	char out[600];
	size = snprintf(out, sizeof(out), "bitfusion worker %d: %s\n", (int)getpid(), shown);
	(void)!write(session->options.log_fd, out, (size_t)size);
}

CUresult bf_violation(struct bf_session *session, const char *format, ...)
{
	char line[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (!session->stopped)
		bf_log(session, "the client broke the protocol, ending its session: %s", line);
	session->stopped = true;
	session->ended = BF_ENDED_PROTOCOL;
	return BF_VIOLATION;
}

/* Any reply may take it along from now on, also one of a success, so what the driver said of it goes first. */
void bf_defer(struct bf_session *session, uint32_t call, CUresult status)
{
	uint64_t none = 0;
	bf_output_drain(session, true);
	atomic_compare_exchange_strong(&session->deferred, &none, (uint64_t)call << 32 | (uint32_t)status);
}

/* ------------------------------------------------------------------ handshake */

static bool welcome(struct bf_session *session, CUresult status, const char *text)
{
	char padded[BF_MAX_TEXT] = { 0 };
	size_t size = status == CUDA_SUCCESS ? 0 : strnlen(text, sizeof(padded) - 8) + 1;
	memcpy(padded, text, size ? size - 1 : 0);
	struct bf_welcome answer = {
		.magic = BF_MAGIC,
		.protocol = BF_PROTOCOL,
		.status = (int32_t)status,
		.spec_hash = BF_SPEC_HASH,
		.text_size = (uint32_t)bf_pad(size),
	};
	struct iovec parts[2] = { { &answer, sizeof(answer) }, { padded, bf_pad(size) } };
	return bf_transport_send(&session->transport, parts, size ? 2 : 1) == 0;
}

static CUresult start_driver(struct bf_session *session, char *text, size_t size)
{
	const struct bf_serve_options *options = &session->options;
	CUresult status = bf_driver_load(session->driver, options->driver, true, text, size);
	for (uint32_t i = 0; i < options->device_count && status == CUDA_SUCCESS; i++) {
		status = session->driver->cuDeviceGet(&session->ordinal[i], options->devices[i]);
		if (status != CUDA_SUCCESS)
			snprintf(text, size, "the server's driver has no device %d", options->devices[i]);
	}
	return status;
}

static bool check_hello(const struct bf_hello *hello, char *text, size_t size)
{
	if (hello->protocol != BF_PROTOCOL) {
		snprintf(text, size, "the server speaks protocol %d, the client %u: use the same version of Bitfusion",
			 BF_PROTOCOL, hello->protocol);
		return false;
	}
	if (hello->spec_hash != BF_SPEC_HASH) {
		snprintf(text, size, "client and server are of different versions of Bitfusion (%016llx, %016llx)",
			 (unsigned long long)hello->spec_hash, (unsigned long long)BF_SPEC_HASH);
		return false;
	}
	return true;
}

static enum bf_ended shake_hands(struct bf_session *session)
{
	struct bf_hello hello;
	char text[BF_MAX_TEXT] = "";
	if (bf_transport_receive_all(&session->transport, &hello, sizeof(hello)) != 0)
		return BF_ENDED_CLIENT_GONE;
	if (memcmp(hello.magic, BF_MAGIC, sizeof(hello.magic)) != 0 || hello.environment_size > BF_MAX_ENVIRONMENT ||
	    hello.environment_size % 8) {
		bf_log(session, "the peer does not speak our protocol, ending its session");
		return BF_ENDED_PROTOCOL;
	}
	char *environment = malloc(hello.environment_size + 1);
	if (!environment)
		return BF_ENDED_INTERNAL;
	if (bf_transport_receive_all(&session->transport, environment, hello.environment_size) != 0) {
		free(environment);
		return BF_ENDED_CLIENT_GONE;
	}
	bf_set_environment(session, environment, hello.environment_size);
	free(environment);
	if (!check_hello(&hello, text, sizeof(text))) {
		bf_log(session, "%s", text);
		welcome(session, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, text);
		return BF_ENDED_PROTOCOL;
	}
	CUresult status = start_driver(session, text, sizeof(text));
	if (status != CUDA_SUCCESS)
		bf_log(session, "%s", text);
	if (!welcome(session, status, text))
		return BF_ENDED_CLIENT_GONE;
	return status == CUDA_SUCCESS ? BF_ENDED_GOODBYE : BF_ENDED_DRIVER;
}

/* ------------------------------------------------------------------ the issue loop */

static const struct {
	bf_operation_function run;
	uint16_t least; /* bytes of the body */
	bool context, bulk;
} operations[BF_FIRST_ROW] = {
	[BF_OP_DEVICES] = { bf_op_devices, 0, false, false },
	[BF_OP_LAUNCH] = { bf_op_launch, sizeof(struct bf_launch), true, false },
	[BF_OP_HTOD] = { bf_op_htod, sizeof(struct bf_copy), true, true },
	[BF_OP_DTOH] = { bf_op_dtoh, sizeof(struct bf_copy), true, true },
	[BF_OP_REFRESH] = { bf_op_refresh, sizeof(struct bf_refresh), true, false },
	[BF_OP_KERNEL_NODE] = { bf_op_kernel_node, sizeof(struct bf_node), false, false },
	[BF_OP_PROGRAM_NODE] = { bf_op_program_node, sizeof(struct bf_node), false, false },
	[BF_OP_GRAPH_SHAPE] = { bf_op_graph_shape, sizeof(struct bf_node), false, false },
	[BF_OP_COPY3D] = { bf_op_copy3d, sizeof(struct bf_copy3d), true, true },
	[BF_OP_ALLOC] = { bf_op_alloc, sizeof(struct bf_alloc), true, false },
	[BF_OP_FREE] = { bf_op_free, sizeof(struct bf_free), true, false },
	[BF_OP_LOAD] = { bf_op_load, sizeof(struct bf_load), false, true },
	[BF_OP_GET_FUNCTION] = { bf_op_get_function, sizeof(struct bf_get_function), true, false },
	[BF_OP_HOST_FUNCTION] = { bf_op_host_function, sizeof(struct bf_host_function), true, false },
	[BF_OP_CALLBACK_DONE] = { bf_op_callback_done, sizeof(struct bf_callback_done), false, false },
	[BF_OP_LATE] = { bf_op_late, sizeof(struct bf_late), false, true },
	[BF_OP_PROGRESS] = { bf_op_progress, sizeof(struct bf_progress), false, false },
	[BF_OP_MEMORY_INFO] = { bf_op_memory_info, 0, true, false },
};

static uint64_t bulk_of(const struct bf_command *command)
{
	uint64_t size = 0;
	if ((command->flags & BF_HAS_BULK) && command->size >= sizeof(*command) + sizeof(size))
		memcpy(&size, command + 1, sizeof(size));
	return size;
}

/* Who reads ahead relies on the flag. */
static bool bulk_is_announced(const struct bf_command *command, bool may_have)
{
	uint64_t size;
	if (!may_have || (command->flags & BF_HAS_BULK))
		return may_have || !(command->flags & BF_HAS_BULK);
	memcpy(&size, command + 1, sizeof(size));
	return size == 0;
}

static void carry_out(struct bf_session *session, const struct bf_command *command)
{
	if (unlikely(session->input.ahead != NULL)) {
		struct bf_input *input = &session->input;
		atomic_store_explicit(&input->next, input->received - (input->end - input->start) + bulk_of(command),
				      memory_order_release);
	}
	if (command->call >= BF_FIRST_ROW) {
		bf_row_command(session, command);
		return;
	}
	size_t size = command->size - sizeof(*command);
	const uint8_t *body = (const uint8_t *)(command + 1);
	if (command->call == BF_OP_GOODBYE) {
		session->stopped = true;
		session->ended = BF_ENDED_GOODBYE;
		return;
	}
	if (unlikely(!operations[command->call].run || size < operations[command->call].least)) {
		bf_violation(session, "no operation %u of %zu bytes", command->call, size);
		return;
	}
	if (unlikely(!bulk_is_announced(command, operations[command->call].bulk))) {
		bf_violation(session, "operation %u hides what follows it", command->call);
		return;
	}
	session->context_status = CUDA_SUCCESS;
	if (operations[command->call].context)
		session->context_status = bf_context_ensure(session, command->context);
	/* one with bulk data has to take that in first */
	if (unlikely(session->context_status != CUDA_SUCCESS) && !operations[command->call].bulk) {
		bf_done(session, command, session->context_status, NULL, 0);
		return;
	}
	operations[command->call].run(session, command, body, size);
}

/* The next command if all of it is there. It stays where it is until more input is asked for. */
static const struct bf_command *next_command(struct bf_session *session)
{
	struct bf_input *input = &session->input;
	const uint8_t *at = input->base + input->start;
	size_t have = input->end - input->start;
	uint32_t size;
	if (have < sizeof(struct bf_command))
		return NULL;
	memcpy(&size, at, sizeof(size));
	if (unlikely(size < sizeof(struct bf_command) || size > BF_MAX_COMMAND || size % 8)) {
		bf_violation(session, "a command of %u bytes", size);
		return NULL;
	}
	if (have < size)
		return NULL;
	input->start += size;
	if (unlikely((uintptr_t)at % 8)) {
		memcpy(input->aligned, at, size);
		at = input->aligned;
	}
	return (const struct bf_command *)at;
}

static void close_batches(struct bf_session *session)
{
	bf_pace_turn(session);
	if (session->freed.open)
		bf_freed_close(session);
}

static void bound_memory(struct bf_session *session)
{
	if (bf_host_memory_held(session) <= session->host_memory.limit / 2)
		return;
	close_batches(session); /* what they hold up holds memory */
	bf_host_memory_wait(session);
	if (!session->stopped && bf_host_memory_over(session)) {
		session->stopped = true;
		session->ended = BF_ENDED_MEMORY;
	}
}

static void issue(struct bf_session *session)
{
	unsigned commands = 0;
	while (!session->stopped) {
		const struct bf_command *command = next_command(session);
		if (likely(command != NULL)) {
			carry_out(session, command);
			if (unlikely(!(++commands % LOOK_AFTER) && session->host_memory.limit))
				bound_memory(session);
			continue;
		}
		bf_outbox_throttle(session);
		close_batches(session);
		if (session->host_memory.limit)
			bound_memory(session);
		if (!session->stopped && bf_input_more(session, true) < 0) {
			session->stopped = true;
			session->ended = BF_ENDED_CLIENT_GONE;
		}
	}
}

/* ------------------------------------------------------------------ set-up and end */

static void keep_alive(int fd)
{
	int on = 1, idle = 30, interval = 10, count = 6;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static struct bf_session *open_session(const struct bf_serve_options *options)
{
	struct bf_session *session = calloc(1, sizeof(*session));
	if (!session)
		return NULL;
	session->options = *options;
	session->driver = &bf_driver;
	session->options.log_fd = options->log_fd < 0 ? -1 : dup(options->log_fd);
	bf_transport_open(&session->transport, options->fd);
	if (options->spin_us >= 0)
		session->transport.spin_us = options->spin_us;
	session->spin_ns = (uint64_t)session->transport.spin_us * 1000;
	if (session->transport.kind == BF_TRANSPORT_TCP)
		keep_alive(options->fd);
	bf_handles_init(&session->handles);
	bf_outbox_init(session);
	bf_staging_init(session);
	bf_waiters_init(session);
	bf_uses_init(session);
	bf_reaper_init(session);
	bf_freed_init(session);
	bf_virtual_init(session);
	bf_reserve_init(session);
	bf_limits_init(session);
	bf_pace_init(session);
	bf_copy_init(session);
	bf_host_memory_init(session);
	pthread_mutex_init(&session->context_lock, NULL);
	pthread_mutex_init(&session->memory_lock, NULL);
	pthread_mutex_init(&session->questions.lock, NULL);
	pthread_cond_init(&session->questions.asked, NULL);
	pthread_mutex_init(&session->image_lock, NULL);
	pthread_mutex_init(&session->output_lock, NULL);
	session->output[0] = session->output[1] = -1;
	if (options->ledger_fd >= 0)
		session->ledger = bf_ledger_open(options->ledger_fd);
	return session;
}

/* Threads may still be inside the driver, so what they use is not freed: the process ends next. */
static enum bf_ended end_session(struct bf_session *session)
{
	enum bf_ended ended = session->ended;
	bf_output_drain(session, true);
	bf_outbox_finish(session, (int)session->options.grace_ms);
	atomic_store(&session->over, true);
	bf_output_stop(session);
	shutdown(session->transport.fd, SHUT_RDWR);
	if (session->options.flags & BF_SERVE_VERBOSE)
		bf_log(session, "session ended: %d", ended);
	return ended;
}

BF_EXPORT int bf_executor_serve(const struct bf_serve_options *options)
{
	if (options->device_count > BF_MAX_DEVICES)
		return BF_ENDED_INTERNAL;
	struct bf_session *session = open_session(options);
	if (!session)
		return BF_ENDED_INTERNAL;
	if ((options->ledger_fd >= 0 && !session->ledger) || !bf_input_init(session) || !bf_routes_init(session)) {
		bf_log(session, "cannot set up a session");
		return BF_ENDED_INTERNAL;
	}
	enum bf_ended ended = shake_hands(session);
	if (ended != BF_ENDED_GOODBYE) {
		shutdown(session->transport.fd, SHUT_RDWR);
		return ended;
	}
	if (!bf_output_start(session)) {
		bf_log(session, "cannot watch the session's output");
		return BF_ENDED_INTERNAL;
	}
	issue(session);
	return end_session(session);
}
