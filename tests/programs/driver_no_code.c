/* SPDX-License-Identifier: Apache-2.0
 *
 * Code that is none, and files that are cut off: the reason is in the error log, or on stderr for who asked for no log.
 */
#define _GNU_SOURCE
#include "program.h"

#include <fcntl.h>
#include <unistd.h>

static int said; /* what is on stderr */
static char path[64];

/* Drivers begin their lines in their own ways, and tell a reason once when it comes again. */
static void show_reason(void)
{
	char text[4096];
	ssize_t size = read(said, text, sizeof text - 1);
	text[size > 0 ? size : 0] = 0;
	const char *reason = strstr(text, "cannot load code: ");
	printf("  stderr: %s", reason ? reason : size > 0 ? text : "nothing\n");
}

static void load(const char *what, const void *code, unsigned room)
{
	char info[100] = "old", error[100] = "old";
	CUjit_option options[] = { CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
				   CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { info, (void *)sizeof info, error, (void *)(size_t)room };
	CUmodule module;
	CUlibrary library;

	CUresult status = code ? cuModuleLoadDataEx(&module, code, 4, options, values)
			       : cuLibraryLoadFromFile(&library, path, options, values, 4, NULL, NULL, 0);
	printf("%s: %s\n  info %zu '%s', error %zu '%s'\n", what, error_name(status), (size_t)values[1], info,
	       (size_t)values[3], error);
	show_reason();
}

static void file_of(const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		exit(1);
	close(fd);
}

int main(void)
{
	static const char elf[128] = "\x7f"
				     "ELF..";
	static const unsigned fatbin[8] = { 0xba55ed50, 0x00100001, 0x1000 };
	static const struct {
		unsigned magic, version;
		const void *data[2];
	} wrapper = { 0x466243b1, 1, { NULL, NULL } };
	int ends[2];
	CUmodule module;
	CUlibrary library;

	open_device();
	strcpy(path, "/tmp/driver_no_code.XXXXXX");
	close(mkstemp(path));
	if (pipe(ends) != 0)
		return 1;
	said = ends[0];
	fcntl(said, F_SETFL, O_NONBLOCK);
	dup2(ends[1], STDERR_FILENO);
	load("an ELF file without a header", elf, 100);
	load("the same, with a short log", elf, 10);
	load("a wrapper of nothing", &wrapper, 100);
	SHOW(cuModuleLoadData(&module, elf));
	show_reason();
	SHOW(cuModuleLoadData(&module, elf));
	show_reason();
	SHOW(cuLibraryLoadData(&library, &wrapper, NULL, NULL, 0, NULL, NULL, 0));
	file_of(fatbin, sizeof fatbin);
	load("a cut fatbin", NULL, 100);
	SHOW(cuModuleLoad(&module, path));
	show_reason();
	SHOW(cuLibraryLoadFromFile(&library, path, NULL, NULL, 0, NULL, NULL, 0));
	show_reason();
	file_of(fatbin, 6);
	load("a fatbin's first bytes", NULL, 100);
	file_of(elf, 40);
	load("an ELF file's first bytes", NULL, 100);
	file_of(&wrapper, sizeof wrapper);
	load("a file with an address", NULL, 100);
	file_of("", 0);
	load("an empty file", NULL, 100);
	unlink(path);
	load("no file", NULL, 100);
	strcpy(path, "/tmp");
	load("a folder", NULL, 100);
	return 0;
}
