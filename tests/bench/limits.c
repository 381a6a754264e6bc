/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits: what this machine itself allows, to read remoting figures against.
 *
 * Measures loopback TCP (64-byte ping-pong, one-way small sends, bandwidth with 4 MiB writes), memcpy
 * bandwidth, a ping-pong through shared memory with both sides spinning, and one with both sides sleeping
 * on a futex. The peer is a forked child; all traffic stays on 127.0.0.1.
 *
 *     cc -O2 -pthread -o limits limits.c
 *     ./limits > result.jsonl                 (the table goes to stderr; --pin puts the two sides on CPUs 0 and 1)
 *
 * Every figure is the median of several runs after a warm-up run; each run of a ping-pong yields its median.
 * A ping-pong that sleeps is an order of magnitude faster with both sides on one CPU than on two where waking
 * an idle CPU is dear (virtual machines): read it beside "taskset -c 0 ./limits", which leaves out the spinning.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	RUNS = 7,
	ROUNDS = 20000,
	SMALL = 64,        /* bytes of a ping or pong */
	ONE_WAY = 128,     /* bytes of a one-way message, about a kernel launch */
	ONE_WAY_COUNT = 200000,
	WRITE = 4 << 20,   /* bytes of a bulk write */
	MEMORY = 64 << 20, /* bytes of a buffer that no cache holds */
	BULK = 1 << 30,    /* bytes moved in a bulk run */
};

static int pin;
static int can_spin; /* both sides can run at the same time */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void pin_to(int cpu)
{
	cpu_set_t set;

	if (!pin)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		fail("sched_setaffinity");
}

static int compare_doubles(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median(double *values, int count)
{
	qsort(values, count, sizeof *values, compare_doubles);
	return values[count / 2];
}

static void report(const char *name, const char *unit, double *values, int count)
{
	double middle = median(values, count);

	printf("{\"metric\":\"%s\",\"unit\":\"%s\",\"median\":%.6g,\"min\":%.6g,\"max\":%.6g,\"runs\":%d}\n", name,
	       unit, middle, values[0], values[count - 1], count);
	fprintf(stderr, "%-28s %12.5g %12.5g %12.5g  %s\n", name, middle, values[0], values[count - 1], unit);
}

static void measure(const char *name, const char *unit, double (*once)(void *argument), void *argument)
{
	double values[RUNS];

	once(argument);
	for (int i = 0; i < RUNS; i++)
		values[i] = once(argument);
	report(name, unit, values, RUNS);
}

/* ------------------------------------------------------------------ loopback TCP */

static void write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

		if (n <= 0)
			fail("send");
		data += n;
		size -= n;
	}
}

/* Returns 0 at the end of the stream. Spins when asked to, else sleeps in the kernel. */
static int read_all(int fd, char *data, size_t size, int spin)
{
	while (size) {
		ssize_t n = recv(fd, data, size, spin ? MSG_DONTWAIT : 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			fail("recv");
		if (!n)
			return 0;
		data += n;
		size -= n;
	}
	return 1;
}

/* The child runs peer(fd) on the accepted connection and ends with it. */
static int connect_to_child(void (*peer)(int fd))
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd, one = 1;

	if (listener < 0 || bind(listener, (void *)&address, length) || listen(listener, 1) ||
	    getsockname(listener, (void *)&address, &length))
		fail("listen");
	if (!fork()) {
		pin_to(1);
		fd = accept(listener, NULL, NULL);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		peer(fd);
		_exit(0);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (void *)&address, length))
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	close(listener);
	return fd;
}

static void echo_sleeping(int fd)
{
	char message[SMALL];

	while (read_all(fd, message, sizeof message, 0))
		write_all(fd, message, sizeof message);
}

static void echo_spinning(int fd)
{
	char message[SMALL];

	while (read_all(fd, message, sizeof message, 1))
		write_all(fd, message, sizeof message);
}

struct connection {
	int fd, spin;
};

static double ping_pong(void *argument)
{
	static double spent[ROUNDS];
	const struct connection *c = argument;
	char message[SMALL] = { 0 };

	for (int i = 0; i < ROUNDS; i++) {
		double start = now_us();

		write_all(c->fd, message, sizeof message);
		read_all(c->fd, message, sizeof message, c->spin);
		spent[i] = now_us() - start;
	}
	return median(spent, ROUNDS);
}

/* Pages that were never written are all the same one, which stays in the cache. */
static char *filled(size_t size)
{
	char *buffer = malloc(size);

	if (!buffer)
		fail("malloc");
	return memset(buffer, 1, size);
}

/* Swallows everything into a buffer, round and round; one byte comes back after each `period` bytes. */
static void swallow(int fd, size_t buffer_size, size_t period)
{
	char *buffer = filled(buffer_size);
	size_t left = period, at = 0;

	for (;;) {
		size_t room = buffer_size - at;
		ssize_t n = recv(fd, buffer + at, left < room ? left : room, 0);

		if (n <= 0)
			return;
		at = (at + n) % buffer_size;
		left -= n;
		if (!left) {
			write_all(fd, buffer, 1);
			left = period;
		}
	}
}

static void swallow_bulk(int fd)
{
	swallow(fd, WRITE, BULK);
}

static void swallow_memory(int fd)
{
	swallow(fd, MEMORY, BULK);
}

static void swallow_messages(int fd)
{
	swallow(fd, WRITE, (size_t)ONE_WAY * ONE_WAY_COUNT);
}

struct source {
	int fd;
	size_t size; /* of the buffer that is sent round and round */
	char *buffer;
};

static double tcp_bandwidth(void *argument)
{
	struct source *source = argument;
	double start = now_us();

	for (size_t sent = 0; sent < BULK; sent += WRITE)
		write_all(source->fd, source->buffer + sent % source->size, WRITE);
	read_all(source->fd, source->buffer, 1, 0);
	return BULK / (now_us() - start) / 1e3;
}

static void measure_bandwidth(const char *name, void (*swallow)(int fd), size_t size)
{
	struct source source = { connect_to_child(swallow), size, filled(size) };

	measure(name, "GB/s", tcp_bandwidth, &source);
	close(source.fd);
	wait(NULL);
	free(source.buffer);
}

static double tcp_one_way(void *argument)
{
	char message[ONE_WAY] = { 0 };
	int fd = *(int *)argument;
	double start = now_us();

	for (int i = 0; i < ONE_WAY_COUNT; i++)
		write_all(fd, message, ONE_WAY);
	read_all(fd, message, 1, 0);
	return (now_us() - start) * 1e3 / ONE_WAY_COUNT;
}

static void measure_tcp(void)
{
	struct connection sleeping = { connect_to_child(echo_sleeping), 0 }, spinning;
	int one_way;

	measure("tcp_rtt_64B", "us", ping_pong, &sleeping);
	close(sleeping.fd);
	wait(NULL);

	if (can_spin) {
		spinning = (struct connection){ connect_to_child(echo_spinning), 1 };
		measure("tcp_rtt_64B_spinning", "us", ping_pong, &spinning);
		close(spinning.fd);
		wait(NULL);
	}

	one_way = connect_to_child(swallow_messages);
	measure("tcp_one_way_128B", "ns/message", tcp_one_way, &one_way);
	close(one_way);
	wait(NULL);

	measure_bandwidth("tcp_bandwidth_in_cache", swallow_bulk, WRITE);
	measure_bandwidth("tcp_bandwidth_in_memory", swallow_memory, MEMORY);
}

/* ------------------------------------------------------------------ shared memory */

struct mailbox {
	_Alignas(64) atomic_uint ping;
	_Alignas(64) atomic_uint pong;
};

static struct mailbox *mailbox;

static void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

static void wait_for(atomic_uint *word, unsigned value, int sleep)
{
	unsigned seen;

	while ((seen = atomic_load_explicit(word, memory_order_acquire)) != value)
		if (sleep)
			syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
		else
			relax();
}

static void post(atomic_uint *word, unsigned value, int sleep)
{
	atomic_store_explicit(word, value, memory_order_release);
	if (sleep)
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static double mailbox_ping_pong(void *argument)
{
	static double spent[ROUNDS];
	static unsigned turn;
	int sleep = *(int *)argument;

	for (int i = 0; i < ROUNDS; i++) {
		double start = now_us();

		post(&mailbox->ping, ++turn, sleep);
		wait_for(&mailbox->pong, turn, sleep);
		spent[i] = now_us() - start;
	}
	return median(spent, ROUNDS);
}

static void measure_mailbox(const char *name, int sleep)
{
	static unsigned turn;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		pin_to(1);
		for (;;) {
			wait_for(&mailbox->ping, ++turn, sleep);
			post(&mailbox->pong, turn, sleep);
		}
	}
	measure(name, "us", mailbox_ping_pong, &sleep);
	turn = atomic_load(&mailbox->ping);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* ------------------------------------------------------------------ memcpy */

struct buffers {
	char *from, *to;
	size_t size;
};

static double memcpy_bandwidth(void *argument)
{
	const struct buffers *b = argument;
	size_t times = BULK / b->size;
	double start = now_us();

	for (size_t i = 0; i < times; i++) {
		memcpy(b->to, b->from, b->size);
		__asm__ volatile("" ::: "memory");
	}
	return b->size * (double)times / (now_us() - start) / 1e3;
}

static void measure_memcpy(const char *name, size_t size, int huge_pages)
{
	struct buffers b = { .size = size };

	b.from = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b.to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b.from == MAP_FAILED || b.to == MAP_FAILED)
		fail("mmap");
	if (huge_pages && (madvise(b.from, size, MADV_HUGEPAGE) || madvise(b.to, size, MADV_HUGEPAGE)))
		perror("madvise");
	memset(b.from, 1, size);
	memset(b.to, 2, size);
	measure(name, "GB/s", memcpy_bandwidth, &b);
	munmap(b.from, size);
	munmap(b.to, size);
}

int main(int argc, char **argv)
{
	cpu_set_t set;

	if (argc == 2 && !strcmp(argv[1], "--pin"))
		pin = 1;
	else if (argc != 1) {
		fprintf(stderr, "usage: %s [--pin]\n", argv[0]);
		return 2;
	}
	can_spin = !sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 1;
	pin_to(0);
	mailbox = mmap(NULL, sizeof *mailbox, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mailbox == MAP_FAILED)
		fail("mmap");

	fprintf(stderr, "%-28s %12s %12s %12s\n", "limit", "median", "min", "max");
	measure_tcp();
	if (can_spin)
		measure_mailbox("shm_rtt_spinning", 0);
	measure_mailbox("shm_rtt_futex", 1);
	measure_memcpy("memcpy_1MiB", 1 << 20, 0);
	measure_memcpy("memcpy_64MiB", 64 << 20, 0);
	measure_memcpy("memcpy_64MiB_huge_pages", 64 << 20, 1);
	measure_memcpy("memcpy_512MiB", (size_t)512 << 20, 0);
	measure_memcpy("memcpy_512MiB_huge_pages", (size_t)512 << 20, 1);
	return 0;
}
