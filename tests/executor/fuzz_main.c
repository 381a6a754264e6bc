/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds streams to the executor, each to a child of its own: reads { uint32_t size; bytes } from standard input,
 * writes a line with the child's end for each: its exit status, "signal N", or "hang".
 */
#define _GNU_SOURCE
#include "executor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 8000, GRACE_MS = 50 };

/* Gives the child everything it will take, and reads whatever it answers. */
static void feed(int fd, const char *data, size_t size)
{
	char answers[65536];
	size_t sent = 0;
	if (!size)
		shutdown(fd, SHUT_WR);
	for (int left = LIMIT_MS; left > 0;) {
		struct pollfd poller = { .fd = fd, .events = POLLIN | (sent < size ? POLLOUT : 0) };
		if (poll(&poller, 1, 10) == 0)
			left -= 10;
		if (sent < size && (poller.revents & POLLOUT)) {
			ssize_t part = send(fd, data + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (part < 0 && errno != EAGAIN)
				return;
			sent += part > 0 ? (size_t)part : 0;
			if (sent == size)
				shutdown(fd, SHUT_WR);
		}
		if ((poller.revents & (POLLIN | POLLHUP)) && recv(fd, answers, sizeof(answers), MSG_DONTWAIT) <= 0 &&
		    errno != EAGAIN)
			return;
	}
}

static void report(pid_t child)
{
	int status;
	for (int left = LIMIT_MS; left > 0; left--) {
		if (waitpid(child, &status, WNOHANG) == child) {
			if (WIFSIGNALED(status))
				printf("signal %d\n", WTERMSIG(status));
			else
				printf("%d\n", WEXITSTATUS(status));
			fflush(stdout);
			return;
		}
		usleep(1000);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	printf("hang\n");
	fflush(stdout);
}

int main(int count, char **arguments)
{
	uint32_t size;
	int32_t devices[2] = { 0, 1 };
	while (count == 2 && fread(&size, sizeof(size), 1, stdin) == 1) {
		int ends[2];
		char *data = malloc(size + 1);
		if (!data || fread(data, 1, size, stdin) != size || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
			return 2;
		pid_t child = fork();
		if (child == 0) {
			close(ends[0]);
			struct bf_serve_options options = {
				.driver = arguments[1],
				.devices = devices,
				.device_count = 2,
				.fd = ends[1],
				.ledger_fd = -1,
				.log_fd = -1,
				.grace_ms = GRACE_MS,
			};
			_exit(bf_executor_serve(&options));
		}
		close(ends[1]);
		feed(ends[0], data, size);
		close(ends[0]);
		report(child);
		free(data);
	}
	return 0;
}
