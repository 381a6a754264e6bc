/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest complete program: two vectors up, their sum down; parameters in both forms.
 */
#include "program.h"

enum { COUNT = 100003 };

static float a[COUNT], b[COUNT], c[COUNT];

static int wrong(void)
{
	int count = 0;

	for (int i = 0; i < COUNT; i++)
		count += c[i] != a[i] + b[i];
	return count;
}

int main(void)
{
	CUdeviceptr da, db, dc;
	CUmodule module;
	unsigned n = COUNT;

	open_device();
	for (int i = 0; i < COUNT; i++) {
		a[i] = (float)i * 0.5f;
		b[i] = (float)(COUNT - i) * 0.25f;
	}
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_ADD));
	CUfunction add = get_function(module, "add");
	CHECK(cuMemAlloc_v2(&da, sizeof a));
	CHECK(cuMemAlloc_v2(&db, sizeof b));
	CHECK(cuMemAlloc_v2(&dc, sizeof c));
	CHECK(cuMemcpyHtoD_v2(da, a, sizeof a));
	CHECK(cuMemcpyHtoD_v2(db, b, sizeof b));

	void *parameters[] = { &da, &db, &dc, &n };
	CHECK(cuLaunchKernel(add, (COUNT + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(c, dc, sizeof c));
	printf("parameters one by one: %d wrong\n", wrong());

	struct {
		CUdeviceptr a, b, c;
		unsigned n;
	} packed = { da, db, dc, COUNT };
	size_t size = sizeof packed;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
			  CU_LAUNCH_PARAM_END };
	CHECK(cuMemsetD8_v2(dc, 0xff, sizeof c));
	CHECK(cuLaunchKernel(add, (COUNT + 127) / 128, 1, 1, 128, 1, 1, 0, NULL, NULL, extra));
	memset(c, 0, sizeof c);
	CHECK(cuMemcpyDtoH_v2(c, dc, sizeof c));
	printf("parameters in one block: %d wrong\n", wrong());

	CHECK(cuMemFree_v2(da));
	CHECK(cuMemFree_v2(db));
	CHECK(cuMemFree_v2(dc));
	CHECK(cuModuleUnload(module));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
