/* SPDX-License-Identifier: Apache-2.0
 *
 * Damages fat binaries and PTX text at random and loads them, as files and as inputs of the linker:
 * fuzz_driver FOLDER SEED COUNT FILE…. Every answer has to be one of the driver's own about code, and good code has to
 * load afterwards. Prints how many were refused and how many loaded.
 */
#include "cuda.h"
#include "fuzz_damage.h"

static long refused, loaded;

static void check(CUresult result, const char *what)
{
	const char *name = "?";

	if (!result)
		return;
	cuGetErrorName(result, &name);
	printf("%s: %s\n", what, name);
	exit(1);
}

/* What the driver says of code that is not good; a compiler that ended or was lost for words is no answer. */
static int told(CUresult result, const char *what)
{
	switch ((int)result) {
	case CUDA_SUCCESS: return 0;
	case CUDA_ERROR_INVALID_IMAGE:
	case CUDA_ERROR_INVALID_PTX:
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
	case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
	case CUDA_ERROR_INVALID_SOURCE:
	case CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND:
	case CUDA_ERROR_NOT_FOUND:
	case CUDA_ERROR_OUT_OF_MEMORY: return 1; /* a variable of a GiB is no damage that one can see */
	}
	check(result, what);
	return 1;
}

static void count(CUresult result, const CUmodule *made, const char *what)
{
	unsigned functions = 0;
	CUfunction found[64];

	if (told(result, what)) {
		refused++;
		return;
	}
	const CUmodule module = *made;

	loaded++;
	check(cuModuleGetFunctionCount(&functions, module), "counting functions");
	if (functions > 64)
		functions = 64;
	result = functions ? cuModuleEnumerateFunctions(found, functions, module) : CUDA_SUCCESS;
	for (unsigned k = 0; !told(result, "listing functions") && k < functions; k++) {
		int size;

		told(cuFuncLoad(found[k]), "loading a function");
		told(cuFuncGetAttribute(&size, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, found[k]), "asking a function");
	}
	check(cuModuleUnload(module), "unloading");
}

static void load_file(const char *path, const unsigned char *bytes, size_t size)
{
	FILE *file = fopen(path, "wb");
	CUmodule module;

	if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
		exit(2);
	count(cuModuleLoad(&module, path), &module, "loading a file");
}

static void link(CUjitInputType type, unsigned char *bytes, size_t size)
{
	CUlinkState linker;
	CUmodule module;
	void *made;
	size_t length;

	check(cuLinkCreate_v2(0, NULL, NULL, &linker), "starting the linker");
	if (told(cuLinkAddData_v2(linker, type, bytes, size, "damaged", 0, NULL, NULL), "adding to the linker") ||
	    told(cuLinkComplete(linker, &made, &length), "linking"))
		refused++;
	else
		count(cuModuleLoadData(&module, made), &module, "loading what was linked");
	check(cuLinkDestroy(linker), "ending the linker");
}

int main(int number, char **words)
{
	char path[4096];
	CUcontext context;

	if (number < 5)
		return 2;
	snprintf(path, sizeof path, "%s/damaged", words[1]);
	seed_random(words[2]);
	check(cuInit(0), "starting");
	check(cuDevicePrimaryCtxRetain(&context, 0), "the context");
	check(cuCtxSetCurrent(context), "the context");
	for (int k = 4; k < number; k++) {
		size_t size, cut;
		unsigned char *good = read_file(words[k], &size);
		const CUjitInputType type = memchr(good, 0, size) ? CU_JIT_INPUT_FATBINARY : CU_JIT_INPUT_PTX;

		for (long turn = strtol(words[3], NULL, 0); turn > 0; turn--) {
			unsigned char *bad = damaged(good, size, &cut);

			if (next_random() % 2)
				load_file(path, bad, cut);
			else
				link(type, bad, cut);
			free(bad);
		}
		const long before = loaded;
		load_file(path, good, size);
		if (loaded != before + 1) {
			printf("%s itself was refused\n", words[k]);
			return 1;
		}
		free(good);
	}
	printf("refused %ld loaded %ld\n", refused, loaded);
	return 0;
}
