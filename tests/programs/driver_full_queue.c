/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream takes only so much work: who adds more waits, alone. The rest of the program goes on, and here it is what
 * the stream waits for.
 */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { LAUNCHES = 4000, FEWEST = 500, UPLOAD = 16 << 10, MOST_IDLE = 100 };

static CUcontext context;
static CUfunction work;
static CUstream held, free_stream;
static CUdeviceptr flag, counter, target;
static unsigned char bytes[UPLOAD];
static _Atomic unsigned added;

static void *launch_many(void *unused)
{
	unsigned rounds = 1;
	void *parameters[] = { &counter, &rounds };

	CHECK(cuCtxSetCurrent(context));
	for (; added < LAUNCHES; added++)
		CHECK(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, held, parameters, NULL));
	return unused;
}

static void *upload_many(void *unused)
{
	CHECK(cuCtxSetCurrent(context));
	for (; added < LAUNCHES; added++)
		CHECK(cuMemcpyHtoDAsync_v2(target, bytes, sizeof bytes, held));
	return unused;
}

static void *record_many(void *unused)
{
	CUevent event;

	CHECK(cuCtxSetCurrent(context));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	for (; added < LAUNCHES; added++)
		CHECK(cuEventRecord(event, held));
	CHECK(cuEventDestroy_v2(event));
	return unused;
}

/* Until the thread has made no progress for a while; for long where that is few, as it may not have run. */
static unsigned count_added(unsigned fewest)
{
	unsigned before, now = added;

	for (int idle = 0; idle < (now < fewest ? MOST_IDLE : 1) && now < LAUNCHES;
	     idle = now == before ? idle + 1 : 0) {
		before = now;
		usleep(200000);
		now = added;
	}
	return now;
}

static void fill_queue(const char *what, CUfunction until, void *(*add)(void *))
{
	void *parameters[] = { &flag };
	unsigned one = 1, most, fewest = add == upload_many ? 1 : FEWEST;
	pthread_t thread;

	added = 0;
	CHECK(cuMemsetD32_v2(flag, 0, 1));
	CHECK(cuCtxSynchronize());
	CHECK(cuLaunchKernel(until, 1, 1, 1, 1, 1, 1, 0, held, parameters, NULL));
	pthread_create(&thread, NULL, add, NULL);
	most = count_added(fewest);
	printf("%s: had to wait: %s\n", what, most < LAUNCHES ? "yes" : "no");
	if (most < fewest)
		printf("after no more than %u\n", most);
	CHECK(cuMemcpyHtoDAsync_v2(flag, &one, sizeof one, free_stream));
	CHECK(cuStreamSynchronize(free_stream));
	pthread_join(thread, NULL);
	CHECK(cuStreamSynchronize(held));
}

int main(void)
{
	CUmodule code;
	CUfunction until;
	unsigned ran;

	context = open_device();
	CHECK(cuModuleLoadData(&code, PTX_HEADER PTX_UNTIL PTX_WORK));
	until = get_function(code, "until");
	work = get_function(code, "work");
	CHECK(cuMemAlloc_v2(&flag, sizeof(unsigned)));
	CHECK(cuMemAlloc_v2(&counter, sizeof(unsigned)));
	CHECK(cuMemAlloc_v2(&target, UPLOAD));
	CHECK(cuMemsetD32_v2(counter, 0, 1));
	CHECK(cuStreamCreate(&held, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&free_stream, CU_STREAM_NON_BLOCKING));
	fill_queue("launches", until, launch_many);
	CHECK(cuMemcpyDtoH_v2(&ran, counter, sizeof ran));
	printf("all of them ran: %s\n", ran == LAUNCHES ? "yes" : "no");
	fill_queue("uploads", until, upload_many);
	fill_queue("records", until, record_many);
	return 0;
}
