/* SPDX-License-Identifier: Apache-2.0
 *
 * How a library of ours gets a connection: the launcher's broker hands over a connected descriptor, then both ends
 * say who they are. No address, no ticket and no policy is known here.
 */
#define _GNU_SOURCE
#include "proxy.h"
#include "clock.h"
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

#define BROKER_MAGIC "BFBROKR"

struct broker_request {
	char magic[8];
	uint32_t version, operation, pid, zero;
};

/* A connection until both ends have said who they are. */
struct dialed {
	struct bf_transport transport; /* first: await_server() finds the rest by it */
	uint64_t patience_ns, until_ns; /* 0: however long it takes */
	bool late;
};

struct broker_reply {
	char magic[8];
	uint32_t version;
	int32_t status;
	uint32_t transport;
	uint32_t text_size;
};

/* Away from the numbers that a program gives a meaning: with 0, 1 or 2 closed, ours would be its standard output. */
static int move_up(int fd)
{
	static const int least[] = { 256, 64, 3 };
	int moved = -1;

	if (fd < 0)
		return fd;
	for (size_t i = 0; moved < 0 && i < sizeof least / sizeof *least; i++)
		moved = fcntl(fd, F_DUPFD_CLOEXEC, least[i]);
	if (moved >= 0)
		close(fd);
	return moved >= 0 ? moved : fd;
}

static int dial_broker(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, status;

	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path));
	fd = move_up(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return -1;
	do
		status = connect(fd, (struct sockaddr *)&address, sizeof address);
	while (status < 0 && errno == EINTR);
	if (status < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The descriptor rides on the first bytes of the reply. */
static ssize_t receive_with_fd(int fd, void *data, size_t size, int *passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { data, size };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	struct cmsghdr *header;
	ssize_t received;

	do
		received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	while (received < 0 && errno == EINTR);
	if (received < 0)
		return -1;
	for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS && *passed < 0)
			memcpy(passed, CMSG_DATA(header), sizeof *passed);
	return received;
}

static int receive_reply(int fd, struct broker_reply *reply, int *passed)
{
	for (size_t done = 0; done < sizeof *reply;) {
		ssize_t received = receive_with_fd(fd, (char *)reply + done, sizeof *reply - done, passed);

		if (received <= 0)
			return -1;
		done += received;
	}
	return 0;
}

/* Of a text of that many bytes, how many there is room for. */
static uint32_t text_part(uint32_t size)
{
	return size < BF_MAX_TEXT ? size : BF_MAX_TEXT - 1;
}

static CUresult refused(int status)
{
	return status > 0 ? (CUresult)status : CUDA_ERROR_SYSTEM_NOT_READY;
}

static CUresult ask_broker(int broker, int *passed)
{
	struct broker_request request = { BROKER_MAGIC, 1, 1, (uint32_t)getpid(), 0 };
	struct bf_transport peer = { .fd = broker, .kind = BF_TRANSPORT_UNIX };
	struct iovec part = { &request, sizeof request };
	struct broker_reply reply;
	char text[BF_MAX_TEXT] = "";

	if (bf_transport_send(&peer, &part, 1) || receive_reply(broker, &reply, passed) ||
	    memcmp(reply.magic, BROKER_MAGIC, sizeof reply.magic)) {
		bf_tell("the launcher did not answer: is `bitfusion run` still there?");
		return CUDA_ERROR_SYSTEM_NOT_READY;
	}
	if (bf_transport_receive_all(&peer, text, text_part(reply.text_size)))
		*text = 0;
	if (reply.status || *passed < 0) {
		bf_tell("no GPU for this program: %s", *text ? text : "the launcher refused");
		return refused(reply.status);
	}
	return CUDA_SUCCESS;
}

static CUresult get_descriptor(int *passed)
{
	const char *path = getenv("BITFUSION_SOCKET");
	CUresult status;
	int broker;

	*passed = -1;
	if (!path || !*path) {
		bf_debug("BITFUSION_SOCKET is not set, so there is no GPU: start the program with `bitfusion run`");
		return CUDA_ERROR_NO_DEVICE;
	}
	broker = dial_broker(path);
	if (broker < 0) {
		bf_tell("cannot reach the launcher at '%s': %s", path, strerror(errno));
		return CUDA_ERROR_SYSTEM_NOT_READY;
	}
	status = ask_broker(broker, passed);
	*passed = move_up(*passed);
	close(broker);
	if (status && *passed >= 0)
		close(*passed);
	return status;
}

/* CUDA_VISIBLE_DEVICES is applied on this side: the server must not apply it again. */
static bool is_for_the_driver(const char *variable)
{
	return !strncmp(variable, "CUDA_", 5) && strncmp(variable, "CUDA_VISIBLE_DEVICES=", 21) != 0;
}

static uint32_t pack_environment(char *packed, uint32_t limit)
{
	uint32_t used = 0;

	for (char **variable = environ; variable && *variable; variable++) {
		size_t size = strlen(*variable) + 1;

		if (!is_for_the_driver(*variable) || size > limit - used)
			continue;
		memcpy(packed + used, *variable, size);
		used += (uint32_t)size;
	}
	while (used % 8)
		packed[used++] = 0;
	return used;
}

/* The launcher decides how long the server may take, and says so on the descriptor. A later wait has no limit: a
 * kernel may run as long as it likes. */
static void take_patience(struct dialed *server)
{
	struct timeval limit = { 0, 0 }, none = { 0, 0 };
	socklen_t size = sizeof limit;

	if (getsockopt(server->transport.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &size))
		return;
	server->patience_ns = (uint64_t)limit.tv_sec * 1000000000 + (uint64_t)limit.tv_usec * 1000;
	if (server->patience_ns)
		server->until_ns = bf_now_ns() + server->patience_ns;
	setsockopt(server->transport.fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
}

static int await_server(struct dialed *server, short events)
{
	struct pollfd poll_fd = { .fd = server->transport.fd, .events = events };

	while (!server->late) {
		uint64_t now = bf_now_ns(), left = server->until_ns > now ? server->until_ns - now : 0;
		int ready = poll(&poll_fd, 1, server->until_ns ? (int)((left + 999999) / 1000000) : -1);

		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -1;
		server->late = server->until_ns && !left;
	}
	return -1;
}

static int await_room(struct bf_transport *transport)
{
	return await_server((struct dialed *)transport, POLLOUT);
}

static int receive_in_time(struct dialed *server, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t received;

		if (await_server(server, POLLIN))
			return -1;
		received = bf_transport_receive_some(&server->transport, (char *)data + done, size - done);
		if (received < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			return -1;
		if (received == 0)
			return -1;
		done += received > 0 ? (size_t)received : 0;
	}
	return 0;
}

static CUresult not_welcomed(const struct dialed *server)
{
	if (server->late)
		bf_tell("the GPU server took the connection and said nothing for %g s: its worker hangs or is stopped; "
			"see the server's log, then start the program again",
			(double)server->patience_ns / 1e9);
	else
		bf_tell("the GPU server closed the connection before it said anything");
	return CUDA_ERROR_SYSTEM_NOT_READY;
}

static CUresult send_hello(struct dialed *server)
{
	struct bf_hello hello = { .protocol = BF_PROTOCOL, .spec_hash = BF_SPEC_HASH, .pid = (uint32_t)getpid() };
	char *environment = malloc(BF_MAX_ENVIRONMENT);
	struct iovec parts[2] = { { &hello, sizeof hello }, { environment, 0 } };
	int failed;

	if (!environment)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(hello.magic, BF_MAGIC, sizeof hello.magic);
	hello.environment_size = pack_environment(environment, BF_MAX_ENVIRONMENT - 8);
	parts[1].iov_len = hello.environment_size;
	failed = bf_transport_send(&server->transport, parts, 2);
	free(environment);
	if (!failed)
		return CUDA_SUCCESS;
	if (server->late)
		return not_welcomed(server);
	bf_tell("cannot talk to the GPU server: %s", strerror(errno));
	return CUDA_ERROR_SYSTEM_NOT_READY;
}

static CUresult receive_welcome(struct dialed *server)
{
	struct bf_welcome welcome;
	char text[BF_MAX_TEXT] = "";

	if (receive_in_time(server, &welcome, sizeof welcome) || memcmp(welcome.magic, BF_MAGIC, sizeof welcome.magic))
		return not_welcomed(server);
	if (receive_in_time(server, text, text_part(welcome.text_size)))
		*text = 0;
	if (server->late)
		return not_welcomed(server);
	if (welcome.status) {
		bf_tell("the GPU server refused this program: %s", *text ? text : "no reason given");
		return refused(welcome.status);
	}
	if (welcome.protocol != BF_PROTOCOL || welcome.spec_hash != BF_SPEC_HASH) {
		bf_tell("client and GPU server are of different versions (protocol %d and %u, calls %016llx and %016llx)",
			BF_PROTOCOL, welcome.protocol, (unsigned long long)BF_SPEC_HASH,
			(unsigned long long)welcome.spec_hash);
		return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
	}
	return CUDA_SUCCESS;
}

CUresult bf_dial(struct bf_transport *server)
{
	struct dialed dialed = { .until_ns = 0 };
	CUresult status;
	int fd;

	status = get_descriptor(&fd);
	if (status)
		return status;
	bf_transport_open(&dialed.transport, fd);
	take_patience(&dialed);
	dialed.transport.await_room = await_room;
	status = send_hello(&dialed);
	if (!status)
		status = receive_welcome(&dialed);
	dialed.transport.await_room = NULL;
	*server = dialed.transport;
	if (status)
		bf_transport_close(server);
	return status;
}
