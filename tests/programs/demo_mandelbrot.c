/* SPDX-License-Identifier: Apache-2.0
 *
 * The program of `make demo`: an ordinary CUDA driver-API program that knows nothing of Bitfusion. It renders the Mandelbrot set
 * in four bands on two streams, compares every pixel with the CPU, and shows the picture as text.
 *
 *     demo_mandelbrot [PICTURE.pgm]
 */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WIDTH = 640, HEIGHT = 400, LIMIT = 255, BANDS = 4, STREAMS = 2, COLUMNS = 80, ROWS = 25 };
static const float left = -2.2f, top = -1.0f, step = 0.005f;

/* The thread at (x, y) counts how often z = z * z + c stays within the circle of radius 2. Each operation rounds by itself, so
 * that the CPU can compute the very same numbers. */
static const char ptx[] =
	".version 7.0\n"
	".target sm_70\n"
	".address_size 64\n"
	".visible .entry mandelbrot(.param .u64 out, .param .u32 width, .param .u32 first_row, .param .u32 rows,\n"
	"                           .param .f32 left, .param .f32 top, .param .f32 step, .param .u32 limit)\n"
	"{\n"
	"    .reg .pred %p<4>;\n"
	"    .reg .b32 %r<20>;\n"
	"    .reg .f32 %f<20>;\n"
	"    .reg .b64 %d<4>;\n"
	"    mov.u32 %r1, %ctaid.x;\n"
	"    mov.u32 %r2, %ntid.x;\n"
	"    mov.u32 %r3, %tid.x;\n"
	"    mad.lo.s32 %r4, %r1, %r2, %r3;\n" /* x */
	"    mov.u32 %r1, %ctaid.y;\n"
	"    mov.u32 %r2, %ntid.y;\n"
	"    mov.u32 %r3, %tid.y;\n"
	"    mad.lo.s32 %r5, %r1, %r2, %r3;\n" /* row of the band */
	"    ld.param.u32 %r6, [width];\n"
	"    ld.param.u32 %r7, [rows];\n"
	"    setp.ge.u32 %p1, %r4, %r6;\n"
	"    setp.ge.u32 %p2, %r5, %r7;\n"
	"    or.pred %p1, %p1, %p2;\n"
	"    @%p1 bra DONE;\n"
	"    ld.param.u32 %r8, [first_row];\n"
	"    add.u32 %r8, %r8, %r5;\n" /* y */
	"    ld.param.f32 %f1, [left];\n"
	"    ld.param.f32 %f2, [top];\n"
	"    ld.param.f32 %f3, [step];\n"
	"    cvt.rn.f32.u32 %f4, %r4;\n"
	"    mul.rn.f32 %f4, %f4, %f3;\n"
	"    add.rn.f32 %f4, %f1, %f4;\n" /* real part of c */
	"    cvt.rn.f32.u32 %f5, %r8;\n"
	"    mul.rn.f32 %f5, %f5, %f3;\n"
	"    add.rn.f32 %f5, %f2, %f5;\n" /* imaginary part of c */
	"    ld.param.u32 %r9, [limit];\n"
	"    mov.u32 %r10, 0;\n"
	"    mov.f32 %f6, 0f00000000;\n"
	"    mov.f32 %f7, 0f00000000;\n"
	"LOOP:\n"
	"    mul.rn.f32 %f8, %f6, %f6;\n"
	"    mul.rn.f32 %f9, %f7, %f7;\n"
	"    add.rn.f32 %f10, %f8, %f9;\n"
	"    setp.gt.f32 %p3, %f10, 0f40800000;\n"
	"    @%p3 bra STORE;\n"
	"    mul.rn.f32 %f11, %f6, %f7;\n"
	"    sub.rn.f32 %f12, %f8, %f9;\n"
	"    add.rn.f32 %f6, %f12, %f4;\n"
	"    add.rn.f32 %f11, %f11, %f11;\n"
	"    add.rn.f32 %f7, %f11, %f5;\n"
	"    add.u32 %r10, %r10, 1;\n"
	"    setp.lt.u32 %p3, %r10, %r9;\n"
	"    @%p3 bra LOOP;\n"
	"STORE:\n"
	"    ld.param.u64 %d1, [out];\n"
	"    cvta.to.global.u64 %d1, %d1;\n"
	"    mad.lo.u32 %r11, %r8, %r6, %r4;\n"
	"    cvt.u64.u32 %d2, %r11;\n"
	"    add.u64 %d3, %d1, %d2;\n"
	"    st.global.u8 [%d3], %r10;\n"
	"DONE:\n"
	"    ret;\n"
	"}\n";

static unsigned calls;

#define CHECK(call) \
	do { \
		CUresult status_ = (call); \
		calls++; \
		if (status_) { \
			const char *name_ = "an unknown error"; \
			cuGetErrorName(status_, &name_); \
			fprintf(stderr, "demo_mandelbrot: %s: %s\n", #call, name_); \
			exit(1); \
		} \
	} while (0)

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static unsigned char on_cpu(unsigned column, unsigned row)
{
	float cx = left + (float)column * step, cy = top + (float)row * step, x = 0, y = 0;
	unsigned count = 0;

	while (count < LIMIT) {
		float xx = x * x, yy = y * y, xy;

		if (xx + yy > 4)
			break;
		xy = x * y;
		x = xx - yy + cx;
		y = xy + xy + cy;
		count++;
	}
	return (unsigned char)count;
}

static void render(CUfunction kernel, CUdeviceptr image, unsigned char *host)
{
	CUstream streams[STREAMS];
	unsigned width = WIDTH, rows = HEIGHT / BANDS, limit = LIMIT;
	float given_left = left, given_top = top, given_step = step;

	for (int s = 0; s < STREAMS; s++)
		CHECK(cuStreamCreate(&streams[s], CU_STREAM_NON_BLOCKING));
	for (unsigned band = 0; band < BANDS; band++) {
		CUstream stream = streams[band % STREAMS];
		unsigned first = band * rows;
		size_t offset = (size_t)first * WIDTH;
		void *parameters[] = { &image, &width, &first, &rows, &given_left, &given_top, &given_step, &limit };

		CHECK(cuLaunchKernel(kernel, (WIDTH + 31) / 32, (rows + 3) / 4, 1, 32, 4, 1, 0, stream, parameters,
				     NULL));
		CHECK(cuMemcpyDtoHAsync_v2(host + offset, image + offset, (size_t)rows * WIDTH, stream));
	}
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cuStreamSynchronize(streams[s]));
		CHECK(cuStreamDestroy_v2(streams[s]));
	}
}

static void show(const unsigned char *host)
{
	static const char shades[] = " .:-=+*#%@";

	for (int row = 0; row < ROWS; row++) {
		for (int column = 0; column < COLUMNS; column++) {
			int count = host[row * HEIGHT / ROWS * WIDTH + column * WIDTH / COLUMNS];

			putchar(count == LIMIT ? ' ' : shades[count > 36 ? 9 : count / 4]);
		}
		putchar('\n');
	}
}

static void save(const char *path, const unsigned char *host)
{
	FILE *file = fopen(path, "wb");

	if (!file || fprintf(file, "P5\n%d %d\n255\n", WIDTH, HEIGHT) < 0 ||
	    fwrite(host, 1, WIDTH * HEIGHT, file) != WIDTH * HEIGHT || fclose(file)) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static unsigned char host[WIDTH * HEIGHT];
	double start = now_ms(), ready, rendered;
	unsigned wrong = 0;
	CUcontext context;
	CUdevice device;
	CUmodule module;
	CUfunction kernel;
	CUdeviceptr image;
	char name[128];

	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	CHECK(cuDeviceGetName(name, sizeof name, device));
	CHECK(cuDevicePrimaryCtxRetain(&context, device));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuModuleLoadData(&module, ptx));
	CHECK(cuModuleGetFunction(&kernel, module, "mandelbrot"));
	CHECK(cuMemAlloc_v2(&image, sizeof host));
	ready = now_ms();
	render(kernel, image, host);
	rendered = now_ms();
	CHECK(cuMemFree_v2(image));
	CHECK(cuModuleUnload(module));
	CHECK(cuDevicePrimaryCtxRelease_v2(device));

	for (unsigned row = 0; row < HEIGHT; row++)
		for (unsigned column = 0; column < WIDTH; column++)
			wrong += host[row * WIDTH + column] != on_cpu(column, row);
	show(host);
	if (argc > 1)
		save(argv[1], host);
	printf("device '%s': %d x %d pixels, %u driver calls, start %.1f ms, picture %.1f ms\n", name, WIDTH, HEIGHT,
	       calls, ready - start, rendered - ready);
	printf("pixels that differ from the CPU's: %u of %d\n", wrong, WIDTH * HEIGHT);
	return wrong != 0;
}
