/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the driver and its helper process take while nothing runs, and when device memory is committed.
 */
#include "program.h"

#include <dirent.h>
#include <unistd.h>

/* Of one process, in KiB: what it alone has, and its part of what is shared. */
static long resident(const char *process)
{
	char path[300], line[200];
	long size = 0;

	snprintf(path, sizeof path, "/proc/%s/smaps_rollup", process);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "Pss: %ld", &size) == 1)
			break;
	if (file)
		fclose(file);
	return size;
}

static int parent_of(const char *process)
{
	char path[300], line[200];
	int parent = 0;

	snprintf(path, sizeof path, "/proc/%s/status", process);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		sscanf(line, "PPid: %d", &parent);
	if (file)
		fclose(file);
	return parent;
}

static long with_children(void)
{
	long size = resident("self");
	DIR *folder = opendir("/proc");

	for (struct dirent *entry; folder && (entry = readdir(folder));)
		if (entry->d_name[0] > '0' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == getpid())
			size += resident(entry->d_name);
	if (folder)
		closedir(folder);
	return size;
}

static void show(const char *what, long more, long least, long most)
{
	/* pages that the process gives back meanwhile are no fault */
	if (more >= (least << 10) - 1024 && more <= most << 10)
		printf("%s: %ld to %ld MiB more\n", what, least, most);
	else
		printf("%s: %ld KiB more\n", what, more);
}

int main(void)
{
	const long before = with_children();
	CUmodule module;
	CUdeviceptr memory;

	open_device();
	show("a context", with_children() - before, 0, 40);
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_ADD PTX_SCALE));
	CHECK(cuMemAlloc_v2(&memory, 256 << 20));
	unsigned factor = 3, count = 32;
	void *parameters[] = { &memory, &factor, &count };
	CHECK(cuLaunchKernel(get_function(module, "scale"), 1, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuCtxSynchronize());
	show("after a kernel, with 256 MiB that nobody touched", with_children() - before, 0, 40);
	const long idle = resident("self"); /* the helper may still be starting */
	CHECK(cuMemsetD8_v2(memory, 1, 64 << 20));
	CHECK(cuCtxSynchronize());
	show("64 MiB written", resident("self") - idle, 60, 68);
	CHECK(cuMemFree_v2(memory));
	show("and given back", resident("self") - idle, 0, 4);
	return 0;
}
