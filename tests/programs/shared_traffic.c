/* SPDX-License-Identifier: Apache-2.0
 *
 * What a wait costs on the link where memory of both sides is large and little of it has changed. Directly there is
 * no link, and so no cost.
 */
#include "program.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

enum { SIZE = 64 << 20, FILES = 4096, LITTLE = 256 << 10 };

/* touch(x, y): adds 1 to *x and *y */
#define PTX_TOUCH \
	".visible .entry touch(.param .u64 x, .param .u64 y)\n{\n" PTX_REGISTERS \
	"    ld.param.u64 %d1, [x];\n    ld.param.u64 %d2, [y];\n    cvta.to.global.u64 %d1, %d1;\n" \
	"    cvta.to.global.u64 %d2, %d2;\n    ld.global.u32 %r1, [%d1];\n    ld.global.u32 %r2, [%d2];\n" \
	"    add.u32 %r1, %r1, 1;\n    add.u32 %r2, %r2, 1;\n    st.global.u32 [%d1], %r1;\n" \
	"    st.global.u32 [%d2], %r2;\n    ret;\n}\n"

/* Both ways, over all connections of this process. */
static uint64_t traffic(void)
{
	uint64_t total = 0;

	for (int file = 3; file < FILES; file++) {
		struct tcp_info info = { 0 };
		socklen_t size = sizeof info;

		if (!getsockopt(file, IPPROTO_TCP, TCP_INFO, &info, &size))
			total += info.tcpi_bytes_received + info.tcpi_bytes_acked;
	}
	return total;
}

static void count(const char *what, uint64_t before)
{
	uint64_t bytes = traffic() - before;

	fprintf(stderr, "%s: %llu bytes\n", what, (unsigned long long)bytes);
	printf("%s: %s\n", what, bytes < LITTLE ? "little" : "much");
}

int main(void)
{
	CUcontext context = open_device();
	CUdeviceptr small, large, last;
	void *none[] = { &small, &small }, *ends[] = { &large, &last };
	unsigned char *host;
	CUfunction touch;
	CUmodule module;
	uint64_t before;

	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_TOUCH));
	touch = get_function(module, "touch");
	CHECK(cuMemAlloc_v2(&small, 4));
	CHECK(cuMemAllocManaged(&large, SIZE, CU_MEM_ATTACH_GLOBAL));
	last = large + SIZE - 4;
	host = (unsigned char *)(uintptr_t)large;
	for (unsigned i = 0; i < SIZE; i++)
		host[i] = (unsigned char)(i * 2654435761u >> 24);
	CHECK(cuLaunchKernel(touch, 1, 1, 1, 1, 1, 1, 0, NULL, ends, NULL));
	CHECK(cuCtxSynchronize());
	for (int i = 0; i < 3; i++) {
		before = traffic();
		CHECK(cuLaunchKernel(touch, 1, 1, 1, 1, 1, 1, 0, NULL, none, NULL));
		CHECK(cuCtxSynchronize());
		count("nobody changed it", before);
		before = traffic();
		CHECK(cuLaunchKernel(touch, 1, 1, 1, 1, 1, 1, 0, NULL, ends, NULL));
		CHECK(cuCtxSynchronize());
		count("both ends changed", before);
		printf("%u %u, %u\n", host[0], host[SIZE - 4], host[SIZE / 2]);
	}
	CHECK(cuMemFree_v2(large));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return context ? 0 : 1;
}
