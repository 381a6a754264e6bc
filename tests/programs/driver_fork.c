/* SPDX-License-Identifier: Apache-2.0
 *
 * A child of a process that uses CUDA is told that it cannot; one made before may; the parent goes on.
 */
#include "program.h"

#include <sys/wait.h>
#include <unistd.h>

static void wait_for(pid_t child)
{
	int status;

	waitpid(child, &status, 0);
	printf("child: %s\n", WIFEXITED(status) && !WEXITSTATUS(status) ? "ended well" : "did not end well");
}

static void use_memory(void)
{
	CUdeviceptr x;
	int value = 5, back = 0;

	CHECK(cuMemAlloc_v2(&x, 4));
	CHECK(cuMemcpyHtoD_v2(x, &value, 4));
	CHECK(cuMemcpyDtoH_v2(&back, x, 4));
	CHECK(cuMemFree_v2(x));
	printf("read back: %d\n", back);
}

int main(void)
{
	CUdeviceptr x;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		open_device();
		use_memory();
		fflush(stdout);
		_exit(0);
	}
	wait_for(child);
	open_device();
	use_memory();
	fflush(stdout);
	child = fork();
	if (!child) {
		SHOW(cuMemAlloc_v2(&x, 4));
		SHOW(cuInit(0));
		SHOW(cuCtxSynchronize());
		fflush(stdout);
		exit(0); /* with the parent's exit handlers */
	}
	wait_for(child);
	use_memory();
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
