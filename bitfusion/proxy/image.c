/* SPDX-License-Identifier: Apache-2.0
 *
 * Code images. CUDA passes them without a size, so it is found from their own headers; which of a fat binary's
 * parts is used is the server's driver's business.
 */
#define _GNU_SOURCE
#include "code_size.h"
#include "proxy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARCHIVE_MAGIC "!<arch>\n"

static const char too_large[] = "the code is too large";

static CUresult refuse(struct bf_image *image, const char *problem)
{
	*image = (struct bf_image){ .problem = problem };
	return CUDA_ERROR_INVALID_IMAGE;
}

/* What a program points to, or the wrapper around it. */
static CUresult measure(const void *pointer, struct bf_image *image)
{
	bool text;

	*image = (struct bf_image){ .data = pointer };
	image->size = code_size(pointer, &text);
	if (text)
		image->size++;
	if (!image->size)
		return refuse(image, CODE_IS_UNKNOWN);
	if (image->size > BF_MAX_IMAGE)
		return refuse(image, too_large);
	return code_is_there(pointer, image->size, text) ? CUDA_SUCCESS : refuse(image, CODE_IS_BEYOND);
}

static CUresult measure_wrapped(const void *pointer, struct bf_image *image)
{
	struct code_wrapper wrapper;

	if (code_begins(pointer, WRAPPER_MAGIC)) {
		memcpy(&wrapper, pointer, sizeof wrapper);
		pointer = wrapper.data;
	}
	return pointer ? measure(pointer, image) : refuse(image, CODE_IS_UNKNOWN);
}

/* The sizes, then the parts, each at a multiple of 8. */
static CUresult join(const struct bf_image *parts, uint32_t count, struct bf_image *image)
{
	uint64_t size = 8 * (uint64_t)count, at = size;
	uint8_t *memory;

	for (uint32_t i = 0; i < count && size <= BF_MAX_IMAGE; i++)
		size += BF_PAD8(parts[i].size);
	if (size > BF_MAX_IMAGE)
		return refuse(image, too_large);
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(memory + 8 * (size_t)i, &parts[i].size, 8);
		memcpy(memory + at, parts[i].data, parts[i].size);
		at += BF_PAD8(parts[i].size);
	}
	*image = (struct bf_image){
		.data = memory, .size = size, .mapping = memory, .mapping_size = size, .input_count = count - 1
	};
	return CUDA_SUCCESS;
}

/* A driver that has no use for the linked code links the inputs. */
static CUresult gather(const struct code_wrapper *wrapper, struct bf_image *image)
{
	uint32_t count = 1;
	struct bf_image *parts;
	CUresult status;

	while (count <= BF_MAX_LOAD_INPUTS && wrapper->inputs[count - 1])
		count++;
	if (count > BF_MAX_LOAD_INPUTS)
		return refuse(image, "the code is of too many parts");
	parts = calloc(count, sizeof *parts);
	if (!parts)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = wrapper->data ? measure(wrapper->data, &parts[0]) : refuse(&parts[0], CODE_IS_UNKNOWN);
	for (uint32_t i = 1; i < count && !status; i++) {
		status = measure_wrapped(wrapper->inputs[i - 1], &parts[i]);
		parts[0].problem = parts[i].problem;
	}
	status = status ? refuse(image, parts[0].problem) : join(parts, count, image);
	free(parts);
	return status;
}

CUresult bf_image_of(const void *pointer, struct bf_image *image)
{
	struct code_wrapper wrapper;

	if (!pointer)
		return CUDA_ERROR_INVALID_VALUE;
	if (code_begins(pointer, WRAPPER_MAGIC)) {
		memcpy(&wrapper, pointer, sizeof wrapper);
		if (wrapper.version == WRAPPER_LINKED && wrapper.inputs && wrapper.inputs[0])
			return gather(&wrapper, image);
	}
	return measure_wrapped(pointer, image);
}

/* The mapping is longer than the file, so that text ends in a NUL. */
CUresult bf_image_of_file(const char *path, struct bf_image *image)
{
	CUresult status = CUDA_ERROR_FILE_NOT_FOUND;
	struct stat file;
	void *memory;
	size_t room;
	int fd;

	*image = (struct bf_image){ 0 };
	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return status;
	if (fstat(fd, &file) || !S_ISREG(file.st_mode))
		goto out;
	if (file.st_size <= 0) {
		status = CUDA_ERROR_INVALID_VALUE;
		goto out;
	}
	if ((uint64_t)file.st_size >= BF_MAX_IMAGE) {
		status = refuse(image, too_large);
		goto out;
	}
	room = (size_t)file.st_size + 8; /* a NUL, and four bytes to look at */
	memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		status = CUDA_ERROR_OUT_OF_MEMORY;
		goto out;
	}
	for (off_t done = 0; done < file.st_size;) {
		ssize_t got = pread(fd, (char *)memory + done, file.st_size - done, done);

		if (got <= 0) {
			munmap(memory, room);
			goto out;
		}
		done += got;
	}
	*image = (struct bf_image){
		.data = memory, .size = (uint64_t)file.st_size, .mapping = memory, .mapping_size = room
	};
	/* Only text needs the NUL: the rest says how long it is. */
	if (!code_begins(memory, FATBIN_MAGIC) && !code_is_elf(memory) && memcmp(memory, ARCHIVE_MAGIC, 8) != 0)
		image->size++;
	status = CUDA_SUCCESS;
out:
	close(fd);
	return status;
}

/* Nobody on the other side could tell: what is missing there is the memory behind it. */
CUresult bf_image_of_code_file(const char *path, struct bf_image *image)
{
	CUresult status = bf_image_of_file(path, image);

	if (status == CUDA_ERROR_INVALID_VALUE)
		return refuse(image, CODE_IS_UNKNOWN);
	if (status || code_is_whole(image->data, image->size))
		return status;
	bf_image_close(image);
	return refuse(image, CODE_IS_CUT);
}

void bf_image_close(struct bf_image *image)
{
	if (image->mapping)
		munmap(image->mapping, image->mapping_size);
	image->mapping = NULL;
}
