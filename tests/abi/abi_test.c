/* SPDX-License-Identifier: Apache-2.0
 *
 * The hidden tables, seen as a runtime sees them, and memory that is there or not. Prints one line for each failed
 * check; exit status says whether there was one.
 */
#define _GNU_SOURCE
#include "../../bitfusion/abi/integrity.c"
#include "../../bitfusion/abi/readable.h"

#include <stdio.h>
#include <unistd.h>

static __thread CUcontext current;
static int failures;

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			failures++; \
		} \
	} while (0)

static int driver_version(void)
{
	return 13000;
}

static int device_count(void)
{
	return 2;
}

static void device_identity(int device, uint8_t uuid[16], uint32_t pci[3])
{
	memset(uuid, device + 1, 16);
	pci[0] = 0;
	pci[1] = 16 + device;
	pci[2] = 3;
}

static CUcontext primary_context(CUdevice device)
{
	return device >= 0 && device < 2 ? (CUcontext)(uintptr_t)(0x1000 + device * 16) : NULL;
}

static CUcontext current_context(void)
{
	return current;
}

static CUresult context_device(CUcontext context, CUdevice *device)
{
	*device = ((uintptr_t)context - 0x1000) / 16;
	return context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static uint64_t context_id(CUcontext context)
{
	return (uintptr_t)context + 7;
}

static uint64_t stream_id(CUcontext context, CUstream stream)
{
	return (uintptr_t)stream + 9;
}

static CUresult load_module(CUmodule *module, const void *image)
{
	*module = (CUmodule)image;
	return CUDA_SUCCESS;
}

const struct abi_host abi_host = { driver_version, device_count, device_identity, primary_context, current_context,
				   context_device, context_id,   stream_id,       load_module };

/* ------------------------------------------------------------------ */

static void check_digest(const char *text, const char *expected)
{
	struct md2 m = { .used = 0 };
	uint8_t digest[BLOCK];
	char hex[2 * BLOCK + 1];

	md2_add(&m, text, strlen(text));
	md2_finish(&m, digest);
	for (int i = 0; i < BLOCK; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	if (strcmp(hex, expected)) {
		printf("MD2(\"%s\") = %s, not %s\n", text, hex, expected);
		failures++;
	}
}

/* The test suite of RFC 1319. */
static void test_md2(void)
{
	check_digest("", "8350e5a3e24c153df2275c9f80692773");
	check_digest("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1");
	check_digest("abc", "da853b0d3f88d99b30283a69e6ded6bb");
	check_digest("message digest", "ab4f496bfb2a530b219ff33031fe06b0");
	check_digest("abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b");
	check_digest("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
		     "da33def2a42df13975352846c30338cd");
}

static const void *const *table(const char *id)
{
	const void *found = "not touched";
	CUuuid uuid;

	memcpy(&uuid, id, sizeof uuid);
	if (abi_get_export_table(&found, &uuid, (void *)getpid)) {
		CHECK(!found);
		return NULL;
	}
	return found;
}

#define CUDART "\x6b\xd5\xfb\x6c\x5b\xf4\xe7\x4a\x89\x87\xd9\x39\x12\xfd\x9d\xf9"
#define STORAGE "\xc6\x93\x33\x6e\x11\x21\xdf\x11\xa8\xc3\x68\xf3\x55\xd8\x95\x93"
#define INTEGRITY "\xd4\x08\x20\x55\xbd\xe6\x70\x4b\x8d\x34\xba\x12\x3c\x66\xe1\xf2"
#define CONTEXT "\x21\x31\x8c\x60\x97\x14\x32\x48\x8c\xa6\x41\xff\x73\x24\xc8\xf2"
#define FUNCTIONS "\x6e\x16\x3f\xbe\xb9\x58\x44\x4d\x83\x5c\xe1\x82\xaf\xf1\x99\x1e"
#define REFUSED "\xda\x91\x51\xd3\x3a\xe6\xcc\x41\xa5\xc0\x4f\x26\xd5\x33\xe3\x28"

/* A driver whose modules have three functions, but for one that is no module. */
CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
	*count = 3;
	return mod ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
	for (unsigned i = 0; i < numFunctions; i++)
		functions[i] = (CUfunction)((char *)mod + i);
	return CUDA_SUCCESS;
}

static void add_up(void *sum, CUfunction function)
{
	*(uintptr_t *)sum = *(uintptr_t *)sum * 10 + (uintptr_t)function;
}

static void test_functions(void)
{
	int (*each)(CUcontext, CUmodule, void (*)(void *, CUfunction), void *) =
		(int (*)(CUcontext, CUmodule, void (*)(void *, CUfunction), void *))table(FUNCTIONS)[7];
	uintptr_t sum = 0;

	CHECK(each(NULL, (CUmodule)4, add_up, &sum) == 1 && sum == 456);
	CHECK(each(NULL, NULL, add_up, &sum) == 0 && sum == 456);
}

static void test_tables(void)
{
	CUresult (*primary)(CUcontext *, CUdevice);
	CUresult (*object)(CUcontext, CUstream, void **);
	CUcontext context;
	void *stream = NULL;

	CHECK(!table(REFUSED));
	CHECK(table(CUDART) && table(CUDART) == table(CUDART));
	CHECK((size_t)table(CUDART)[0] == 13 * sizeof(void *));
	CHECK((size_t)table(CONTEXT)[0] == 64 * sizeof(void *));
	for (int i = 1; i < 64; i++)
		CHECK(table(CONTEXT)[i]);
	primary = (CUresult (*)(CUcontext *, CUdevice))table(CUDART)[2];
	CHECK(!primary(&context, 1) && context == primary_context(1));
	CHECK(primary(&context, 2) == CUDA_ERROR_INVALID_DEVICE);
	object = (CUresult (*)(CUcontext, CUstream, void **))table(CONTEXT)[51];
	CHECK(!object(NULL, (CUstream)32, &stream) && stream);
	CHECK(object(NULL, (CUstream)-1, &stream) == CUDA_ERROR_INVALID_HANDLE);
}

static void test_integrity(void)
{
	CUresult (*check)(uint32_t, uint64_t, uint8_t *) =
		(CUresult (*)(uint32_t, uint64_t, uint8_t *))table(INTEGRITY)[1];
	uint8_t first[16], again[16], later[16];

	CHECK(!check(13002, 1000, first) && !check(13002, 1000, again) && !check(13002, 1001, later));
	CHECK(!memcmp(first, again, 16));
	CHECK(memcmp(first, later, 16));
}

static int destroyed;

static void destroy(CUcontext context, void *key, void *value)
{
	void *found;

	destroyed += (int)(intptr_t)value;
	CHECK(abi_storage_get(&found, context, key)); /* gone before its destructor runs */
}

static void test_storage(void)
{
	CUresult (*put)(CUcontext, void *, void *, abi_storage_destructor) = (void *)table(STORAGE)[0];
	CUresult (*delete)(CUcontext, void *) = (void *)table(STORAGE)[1];
	CUresult (*get)(void **, CUcontext, void *) = (void *)table(STORAGE)[2];
	CUcontext one = primary_context(0), two = primary_context(1);
	void *value = &value;

	CHECK(!table(STORAGE)[3]);
	CHECK(get(&value, NULL, &one) && !value); /* no current context */
	current = one;
	CHECK(!put(NULL, &one, (void *)1, destroy) && !put(two, &one, (void *)2, destroy));
	CHECK(!put(one, &two, (void *)4, NULL) && !put(one, &current, (void *)8, destroy));
	CHECK(!get(&value, NULL, &one) && value == (void *)1);
	CHECK(!get(&value, two, &one) && value == (void *)2);
	CHECK(!put(one, &one, (void *)16, destroy) && !get(&value, one, &one) && value == (void *)16);
	CHECK(!delete(one, &current) && get(&value, one, &current));
	abi_context_storage_clear(one);
	CHECK(destroyed == 16); /* the deleted entry's destructor did not run, nor the other context's */
	CHECK(get(&value, one, &two) && !get(&value, two, &one));
	abi_context_storage_clear(two);
	CHECK(destroyed == 18);
}

static void *churn(void *number)
{
	CUcontext mine = (CUcontext)(0x2000 + 16 * (uintptr_t)number);
	void *value;

	for (uintptr_t i = 0; i < 20000; i++) {
		CHECK(!abi_storage_put(mine, number, (void *)(i + 1), NULL));
		CHECK(!abi_storage_get(&value, mine, number) && value == (void *)(i + 1));
		CHECK(!abi_storage_delete(mine, number));
	}
	return NULL;
}

static void test_threads(void)
{
	pthread_t thread[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, churn, (void *)i);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
}

/* This program, and the C library, as whoever asks for the tables. */
static void test_callers(void)
{
	CHECK(abi_impossible_shape(test_callers) == CUDA_ERROR_INVALID_VALUE);
	CHECK(table(STORAGE) && abi_impossible_shape(getpid) == CUDA_ERROR_INVALID_VALUE);
	CHECK(table(CUDART) && table(CUDART) && abi_impossible_shape(getppid) == (CUresult)9);
	CHECK(abi_impossible_shape(test_callers) == CUDA_ERROR_INVALID_VALUE);
	abi_note_runtime(NULL);
	CHECK(abi_impossible_shape(NULL) == CUDA_ERROR_INVALID_VALUE);
	abi_note_runtime(test_md2);
	CHECK(abi_impossible_shape(test_callers) == (CUresult)9);
}

/* As newer kernels are asked, and older ones. */
static bool both_readable(const char *memory, size_t size)
{
	bool is = readable(memory, size);

	CHECK(is ==
	      readable_by_copy((uintptr_t)memory & ~(uintptr_t)(READABLE_PAGE - 1), (uintptr_t)memory + size - 1));
	return is;
}

static void test_readable(void)
{
	const size_t room = 3 * READABLE_BATCH * READABLE_PAGE;
	char *memory = mmap(NULL, room, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *end = memory + room;

	CHECK(memory != MAP_FAILED && both_readable(memory, room));
	CHECK(both_readable(memory + 1, room - 2) && both_readable(end - 1, 1) && readable(end, 0));
	CHECK(!readable(memory, SIZE_MAX) && !readable(NULL, 1));
	mprotect(end - READABLE_PAGE, READABLE_PAGE, PROT_NONE);
	CHECK(!both_readable(memory, room) && !both_readable(end - READABLE_PAGE - 1, 2));
	CHECK(both_readable(memory, room - READABLE_PAGE) && both_readable(end - READABLE_PAGE - 1, 1));
	munmap(memory + READABLE_PAGE, READABLE_PAGE);
	CHECK(!both_readable(memory, 2 * READABLE_PAGE) && both_readable(memory, READABLE_PAGE));
	munmap(memory, room);
}

int main(void)
{
	test_readable();
	test_callers();
	test_md2();
	test_tables();
	test_functions();
	test_integrity();
	test_storage();
	test_threads();
	return failures != 0;
}
