/* SPDX-License-Identifier: Apache-2.0
 *
 * The PTX front end is a Python program: one helper process per process that needs it, started with the
 * first context, or at the first image that the cache on disk does not have.
 */
#include "cache.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAGIC = 0x50545831, COMPILE = 1, LINK = 2, REQUESTS = 3, REPLIES = 4 };

extern char **environ;

static struct {
	pthread_mutex_t lock;
	int requests, replies; /* our ends; 0: not running */
} helper = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct request {
	uint32_t magic, kind, count, flags;
	struct sg_cache_key key;
};

struct reply {
	uint32_t magic;
	int32_t status;
	uint32_t text_size, zero;
	uint64_t image_size;
};

/* ------------------------------------------------------------------ starting it */

/* The folder that holds the Python package: said by the environment, or above this library. */
static int find_root(char root[PATH_MAX])
{
	const char *home = getenv("BITFUSION_HOME");
	Dl_info info;
	char path[PATH_MAX + 64];
	if (home && *home)
		return snprintf(root, PATH_MAX, "%s", home) < PATH_MAX;
	if (!dladdr((void *)(uintptr_t)find_root, &info) || !realpath(info.dli_fname, root))
		return 0;
	for (char *slash; (slash = strrchr(root, '/')) && slash != root;) {
		*slash = 0;
		snprintf(path, sizeof path, "%s/bitfusion/softgpu/ptx/helper.py", root);
		if (!access(path, R_OK))
			return 1;
	}
	return 0;
}

/* The program's environment without what would change the helper: malloc'ed, its entries are not. */
static char **make_environment(void)
{
	size_t count = 0, used = 0;
	while (environ[count])
		count++;
	char **list = calloc(count + 1, sizeof *list);
	for (size_t i = 0; list && i < count; i++)
		if (strncmp(environ[i], "LD_PRELOAD=", 11) && strncmp(environ[i], "PYTHONHOME=", 11))
			list[used++] = environ[i];
	return list;
}

/* Well above the descriptors that the helper is told to use. */
static int move_up(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, 16);
	close(fd);
	return moved;
}

/* Not -m: that would import from the folder the program runs in before any other. The package's folder comes last:
 * where pip put it, it also holds others' modules, maybe under names of the standard library's. */
#define PATH_TEXT "import sys; sys.path[:] = [*filter(None, sys.path), *sys.argv[1:]]\n"
static const char found_text[] = PATH_TEXT "from bitfusion.softgpu.ptx import boot; boot.run()";
/* boot.py by its path: to look for it in all of these folders takes most of a millisecond */
static const char main_text[] =
	PATH_TEXT "from _frozen_importlib import module_from_spec, spec_from_loader\n"
		  "from _frozen_importlib_external import SourceFileLoader\n"
		  "name = 'bitfusion.softgpu.ptx.boot'\n"
		  "loader = SourceFileLoader(name, sys.argv[1] + '/bitfusion/softgpu/ptx/boot.py')\n"
		  "boot = sys.modules[name] = module_from_spec(spec_from_loader(name, loader))\n"
		  "loader.exec_module(boot); boot.run()";

static int spawn(int requests, int replies)
{
	const char *python = getenv("BITFUSION_PYTHON");
	char root[PATH_MAX], *program = (char *)(python && *python ? python : "python3");
	/* -I: nothing that the program set for its own Python; and compiled modules are kept, which halves the start */
	char *alone[] = { program, "-I", "-S", "-c", (char *)main_text, root, NULL };
	char *as_set[] = { program, "-S", "-c", (char *)found_text, NULL };
	char **arguments = find_root(root) ? alone : as_set;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	pid_t pid;
	char **environment = make_environment();
	if (!environment)
		return ENOMEM;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, requests, REQUESTS);
	posix_spawn_file_actions_adddup2(&actions, replies, REPLIES);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, 2, 1); /* the program's output is not ours to write to */
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	/* a group of its own: an interrupt typed at the program is not for it. It ends when its input does. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	int error = posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	free(environment);
	return error;
}

static int start(char *text, size_t text_size)
{
	int requests[2], replies[2];
	if (helper.requests)
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, requests))
		goto fail;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, replies)) {
		close(requests[0]);
		close(requests[1]);
		goto fail;
	}
	for (int i = 0; i < 2; i++) {
		requests[i] = move_up(requests[i]);
		replies[i] = move_up(replies[i]);
	}
	int error = spawn(requests[1], replies[1]);
	close(requests[1]);
	close(replies[1]);
	if (!error) {
		helper.requests = requests[0];
		helper.replies = replies[0];
		return 1;
	}
	close(requests[0]);
	close(replies[0]);
	errno = error;
fail:
	snprintf(text, text_size, "cannot start the PTX front end: %s", strerror(errno));
	return 0;
}

static void stop(void)
{
	if (!helper.requests)
		return;
	close(helper.requests);
	close(helper.replies);
	helper.requests = helper.replies = 0;
}

/* ------------------------------------------------------------------ talking to it */

static int send_all(const void *bytes, size_t size)
{
	const char *at = bytes;
	while (size) {
		ssize_t sent = send(helper.requests, at, size, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return 0;
		at += sent;
		size -= (size_t)sent;
	}
	return 1;
}

static int receive_all(void *bytes, size_t size)
{
	char *at = bytes;
	while (size) {
		ssize_t received = recv(helper.replies, at, size, 0);
		if (received < 0 && errno == EINTR)
			continue;
		if (received <= 0)
			return 0;
		at += received;
		size -= (size_t)received;
	}
	return 1;
}

static int send_items(const struct helper_item *items, unsigned count, int link)
{
	for (unsigned i = 0; i < count; i++) {
		uint32_t name_size = items[i].name ? (uint32_t)strlen(items[i].name) : 0;
		uint32_t head[2] = { items[i].type, name_size };
		if (!send_all(&items[i].size, sizeof items[i].size) || !send_all(items[i].bytes, items[i].size))
			return 0;
		if (link && (!send_all(head, sizeof head) || !send_all(items[i].name, name_size)))
			return 0;
	}
	return 1;
}

/* The whole reply's text is read, what fits is kept. */
static int receive_text(uint32_t size, char *text, size_t text_size)
{
	char *all = malloc((size_t)size + 1);
	if (!all || !receive_all(all, size)) {
		free(all);
		return 0;
	}
	all[size] = 0;
	snprintf(text, text_size, "%s", all);
	free(all);
	return 1;
}

static int receive_reply(struct reply *reply, void **image, char *text, size_t text_size)
{
	if (!receive_all(reply, sizeof *reply) || reply->magic != MAGIC)
		return 0;
	if (!receive_text(reply->text_size, text, text_size))
		return 0;
	if (!reply->image_size)
		return 1;
	*image = malloc(reply->image_size);
	if (*image && receive_all(*image, reply->image_size))
		return 1;
	free(*image);
	*image = NULL;
	return 0;
}

static int exchange(const struct request *request, const struct helper_item *items, struct reply *reply, void **image,
		    char *text, size_t text_size)
{
	const size_t unused = request->flags & SG_HELPER_FLAG_KEY ? 0 : sizeof request->key;
	if (send_all(request, sizeof *request - unused) && send_items(items, request->count, request->kind == LINK) &&
	    receive_reply(reply, image, text, text_size))
		return 1;
	stop();
	return 0;
}

/* One that was killed while it had nothing to do, or that the system took away, is no reason to fail: the work is
 * given to another one. Two that end over it are. */
static CUresult ask(const struct helper_item *items, unsigned count, int link, const struct sg_cache_key *key,
		    void **image, size_t *size, char *text, size_t text_size)
{
	struct request request = { MAGIC, link ? LINK : COMPILE, count, key ? SG_HELPER_FLAG_KEY : 0, { 0 } };
	struct reply reply;
	int answered = 0;
	if (key)
		request.key = *key;
	for (int turn = 0; turn < 2 && !answered; turn++) {
		if (!start(text, text_size))
			return CUDA_ERROR_JIT_COMPILER_NOT_FOUND;
		answered = exchange(&request, items, &reply, image, text, text_size);
	}
	if (!answered) {
		snprintf(text, text_size, "the PTX front end ended unexpectedly, twice");
		return CUDA_ERROR_JIT_COMPILER_NOT_FOUND;
	}
	*size = reply.image_size;
	if (reply.status == CUDA_SUCCESS && !*image)
		return CUDA_ERROR_INVALID_IMAGE;
	return reply.status < 0 ? CUDA_ERROR_UNKNOWN : (CUresult)reply.status;
}

/* ------------------------------------------------------------------ for whoever loads code */

void helper_expect(void)
{
	static atomic_int done;
	char text[256];
	if (atomic_load_explicit(&done, memory_order_relaxed) || atomic_exchange(&done, 1))
		return;
	if (cache_was_enough())
		return;
	pthread_mutex_lock(&helper.lock);
	if (!start(text, sizeof text))
		driver_debug("%s", text); /* whoever loads code is told */
	pthread_mutex_unlock(&helper.lock);
}

CUresult helper_compile(const struct helper_item *items, unsigned count, int link, void **image, size_t *size,
			char *text, size_t text_size)
{
	struct sg_cache_key key = cache_key(items, count, link);
	*image = NULL;
	const int found = cache_find(&key, image, size);
	cache_mark(found);
	if (found)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&helper.lock);
	CUresult result = ask(items, count, link, &key, image, size, text, text_size);
	pthread_mutex_unlock(&helper.lock);
	if (result != CUDA_SUCCESS) {
		free(*image);
		*image = NULL;
	}
	return result;
}
