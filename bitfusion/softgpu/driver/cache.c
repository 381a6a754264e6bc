/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled images on disk, as ../ptx/cache.h has them: found by their key, and read if nobody else could have written
 * them.
 */
#include "cache.h"
#include "blake2b.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int cache_file(char path[PATH_MAX], const uint8_t *digest, const char *suffix)
{
	const char *folder = getenv("BITFUSION_CACHE"), *home = getenv("HOME"), *xdg = getenv("XDG_CACHE_HOME");
	char name[2 * SG_CACHE_NAME_BYTES + 8];
	for (int i = 0; i < SG_CACHE_NAME_BYTES; i++)
		snprintf(name + 2 * i, 3, "%02x", digest[i]);
	snprintf(name + 2 * SG_CACHE_NAME_BYTES, 8, "%s", suffix);
	if (folder)
		return *folder && strcmp(folder, "off") && snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
	if (xdg && *xdg == '/')
		return snprintf(path, PATH_MAX, "%s/bitfusion/ptx/%s", xdg, name) < PATH_MAX;
	return home && *home == '/' && snprintf(path, PATH_MAX, "%s/.cache/bitfusion/ptx/%s", home, name) < PATH_MAX;
}

static int read_file(int fd, void *bytes, size_t size)
{
	char *at = bytes;
	while (size) {
		ssize_t got = read(fd, at, size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return 0;
		at += got;
		size -= (size_t)got;
	}
	return 1;
}

/* Whoever else could write to the file could say what a kernel does. */
static int is_ours(const struct stat *status)
{
	return S_ISREG(status->st_mode) && status->st_uid == geteuid() && !(status->st_mode & (S_IWGRP | S_IWOTH));
}

static int header_fits(const struct sg_cache_header *header, const struct sg_cache_key *key, uint64_t file_size)
{
	return !memcmp(header->magic, SG_CACHE_MAGIC, 8) && !memcmp(&header->key, key, sizeof *key) &&
	       file_size >= sizeof *header && header->image_size == file_size - sizeof *header;
}

static int digest_fits(const struct sg_cache_header *header, const void *image)
{
	uint8_t digest[BLAKE2B_DIGEST];
	struct blake2b hash;
	blake2b_start(&hash);
	blake2b_add(&hash, image, header->image_size);
	blake2b_finish(&hash, digest);
	return !memcmp(digest, header->image_digest, sizeof digest);
}

int cache_find(const struct sg_cache_key *key, void **image, size_t *size)
{
	char path[PATH_MAX];
	struct sg_cache_header header;
	struct stat status;
	int fd = cache_file(path, key->digest, SG_CACHE_SUFFIX)
			 ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
			 : -1,
	    found = 0;
	if (fd < 0)
		return 0;
	if (fstat(fd, &status) || !is_ours(&status) || !read_file(fd, &header, sizeof header))
		goto out;
	if (!header_fits(&header, key, (uint64_t)status.st_size))
		goto out;
	*image = malloc(header.image_size);
	found = *image && read_file(fd, *image, header.image_size) && digest_fits(&header, *image);
	if (found) {
		*size = header.image_size;
		futimens(fd, NULL);
	} else {
		free(*image);
		*image = NULL;
	}
out:
	close(fd);
	return found;
}

struct sg_cache_key cache_key(const struct helper_item *items, unsigned count, int link)
{
	struct sg_cache_key key = { .version = sg_image_version() };
	struct blake2b hash;
	blake2b_start(&hash);
	blake2b_add(&hash, &key.version, sizeof key.version);
	for (unsigned i = 0; i < count; i++) {
		if (link) {
			blake2b_add(&hash, &items[i].size, sizeof items[i].size);
			blake2b_add(&hash, &items[i].type, sizeof items[i].type);
		}
		blake2b_add(&hash, items[i].bytes, items[i].size);
	}
	blake2b_finish(&hash, key.digest);
	return key;
}

/* ------------------------------------------------------------------ was it enough last time? */

/* Says that the last run of a program of this name found its first code in the cache. */
static int marker_file(char path[PATH_MAX])
{
	const uint64_t version = sg_image_version();
	uint8_t digest[BLAKE2B_DIGEST];
	struct blake2b hash;
	blake2b_start(&hash);
	blake2b_add(&hash, &version, sizeof version);
	blake2b_add(&hash, program_invocation_short_name, strlen(program_invocation_short_name));
	blake2b_finish(&hash, digest);
	return cache_file(path, digest, SG_CACHE_MARKER);
}

/* The first code of a process decides. */
void cache_mark(int found)
{
	static atomic_flag marked = ATOMIC_FLAG_INIT;
	char path[PATH_MAX];
	if (atomic_flag_test_and_set(&marked) || !marker_file(path))
		return;
	if (!found) {
		unlink(path);
		return;
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return;
	futimens(fd, NULL);
	close(fd);
}

int cache_was_enough(void)
{
	char path[PATH_MAX];
	return marker_file(path) && !access(path, F_OK);
}
