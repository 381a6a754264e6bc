/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts of the replaced nvJitLink that the replaced ptxas is made of.
 */
#ifndef NVJITLINK_NVJITLINK_H
#define NVJITLINK_NVJITLINK_H

#include <stddef.h>
#include <stdint.h>

/* nvJitLinkInputType, as documented. */
enum input {
	INPUT_CUBIN = 1,
	INPUT_PTX = 2,
	INPUT_LTOIR = 3,
	INPUT_FATBIN = 4,
	INPUT_OBJECT = 5,
	INPUT_LIBRARY = 6,
	INPUT_ANY = 10
};

struct link;

int nvJitLinkCreate(struct link **handle, uint32_t option_count, const char **options);
int nvJitLinkDestroy(struct link **handle);
int nvJitLinkAddData(struct link *link, int type, const void *data, size_t size, const char *name);
int nvJitLinkGetLinkedCubinSize(struct link *link, size_t *size);
int nvJitLinkGetLinkedCubin(struct link *link, void *cubin);

/* The bytes of a file and one NUL more, malloced; NULL with errno where it cannot be read. */
char *read_file(const char *path, size_t *size);

#endif
