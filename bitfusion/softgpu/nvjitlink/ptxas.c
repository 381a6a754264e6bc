/* SPDX-License-Identifier: Apache-2.0
 *
 * XLA and Triton start NVIDIA's ptxas to turn PTX into machine code. This library is preloaded into it as into every
 * other program of the run, and does its work before main: the "cubin" is a container that holds the PTX, which the software
 * GPU's loader compiles when it is loaded. So errors in the PTX appear then. Any other use of ptxas (--version, --help,
 * no PTX among its arguments) is left to the real one.
 */
#define _GNU_SOURCE
#include "nvjitlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *output_of(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--output-file=", 14))
			return argv[i] + 14;
		if (i + 1 < argc && (!strcmp(argv[i], "-o") || !strcmp(argv[i], "--output-file")))
			return argv[i + 1];
	}
	return NULL;
}

/* PTX begins with a .version directive; before it only comments are allowed, so a value of an option is never taken for PTX. */
static int is_ptx(const char *text)
{
	return text && strstr(text, ".version") && strstr(text, ".target");
}

static int add_inputs(struct link *link, int argc, char **argv, const char *output)
{
	int added = 0;

	for (int i = 1; i < argc; i++) {
		size_t size;
		char *text = argv[i][0] == '-' || argv[i] == output ? NULL : read_file(argv[i], &size);

		if (is_ptx(text)) {
			if (nvJitLinkAddData(link, INPUT_PTX, text, size + 1, argv[i]))
				added = -1;
			added += added >= 0;
		}
		free(text);
	}
	return added;
}

static int write_whole(const char *path, const char *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		return -1;
	while (size) {
		ssize_t written = write(fd, bytes, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			break;
		bytes += written;
		size -= written;
	}
	return close(fd) || size ? -1 : 0;
}

static int assemble(int argc, char **argv, const char *output)
{
	struct link *link;
	char *cubin = NULL;
	size_t size;
	int status = -1;

	if (nvJitLinkCreate(&link, 0, NULL))
		return -1;
	if (add_inputs(link, argc, argv, output) > 0 && !nvJitLinkGetLinkedCubinSize(link, &size) &&
	    (cubin = malloc(size)) && !nvJitLinkGetLinkedCubin(link, cubin)) {
		status = write_whole(output, cubin, size);
		if (status)
			fprintf(stderr, "ptxas (bitfusion): cannot write '%s': %s\n", output, strerror(errno));
		_exit(status ? 1 : 0);
	}
	free(cubin);
	nvJitLinkDestroy(&link);
	return status;
}

__attribute__((constructor)) static void be_ptxas(int argc, char **argv, char **environment)
{
	const char *output;

	if (strcmp(program_invocation_short_name, "ptxas"))
		return;
	output = output_of(argc, argv);
	if (output)
		assemble(argc, argv, output);
}
