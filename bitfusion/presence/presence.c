/* SPDX-License-Identifier: Apache-2.0
 *
 * Lets /dev/nvidiactl and /dev/nvidia0 … seem to exist in a program that has remote or software GPUs. Some programs ask for
 * them before they load the driver: JAX does not try its CUDA part where it finds neither. The launcher preloads this
 * library on machines without the real ones, and says in BITFUSION_DEVICES how many GPUs there are. Only questions are
 * answered; the files cannot be opened. A name that really exists is left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { NVIDIA_MAJOR = 195, CONTROL_MINOR = 255, MOST = 64 };

static const char prefix[] = "/dev/nvidia";

/* The minor number of a device file that the program's GPUs would have, or -1. */
static int minor_of(const char *path)
{
	const char *count = getenv("BITFUSION_DEVICES"), *rest = path + sizeof prefix - 1;
	char *end;
	unsigned long number;

	if (!count || strncmp(path, prefix, sizeof prefix - 1))
		return -1;
	if (!strcmp(rest, "ctl"))
		return CONTROL_MINOR;
	if (*rest < '0' || *rest > '9' || (rest[0] == '0' && rest[1]))
		return -1;
	number = strtoul(rest, &end, 10);
	return *end || number >= MOST || number >= strtoul(count, NULL, 10) ? -1 : (int)number;
}

/* Did a question fail only because the file is not there, and would it be? errno is the caller's again if so. */
static int pretended(long status, const char *path, int before)
{
	int minor;

	if (status >= 0 || errno != ENOENT || !path)
		return -1;
	minor = minor_of(path);
	if (minor >= 0)
		errno = before;
	return minor;
}

static int ask(int folder, const char *path, struct stat *out, int flags)
{
	int before = errno, minor;
	long status = syscall(SYS_newfstatat, folder, path, out, flags);

	minor = pretended(status, path, before);
	if (minor < 0)
		return (int)status;
	memset(out, 0, sizeof *out);
	out->st_mode = S_IFCHR | 0666;
	out->st_nlink = 1;
	out->st_rdev = makedev(NVIDIA_MAJOR, minor);
	out->st_blksize = 4096;
	return 0;
}

/* Read and write are allowed, as on the real files; nobody executes them. */
static int answer_access(long status, const char *path, int mode, int before)
{
	if (pretended(status, path, before) < 0)
		return (int)status;
	if (!(mode & X_OK))
		return 0;
	errno = EACCES;
	return -1;
}

/* On 64-bit machines the kernel's structure, stat and stat64 are one. */
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one stat");

EXPORT int stat(const char *path, struct stat *out)
{
	return ask(AT_FDCWD, path, out, 0);
}

EXPORT int lstat(const char *path, struct stat *out)
{
	return ask(AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}

EXPORT int fstatat(int folder, const char *path, struct stat *out, int flags)
{
	return ask(folder, path, out, flags);
}

EXPORT int stat64(const char *path, struct stat64 *out)
{
	return ask(AT_FDCWD, path, (struct stat *)out, 0);
}

EXPORT int lstat64(const char *path, struct stat64 *out)
{
	return ask(AT_FDCWD, path, (struct stat *)out, AT_SYMLINK_NOFOLLOW);
}

EXPORT int fstatat64(int folder, const char *path, struct stat64 *out, int flags)
{
	return ask(folder, path, (struct stat *)out, flags);
}

/* What programs call that were built against glibc before 2.33; the version of the structure is always this machine's. */
EXPORT int __xstat(int version, const char *path, struct stat *out)
{
	return ask(AT_FDCWD, path, out, 0);
}

EXPORT int __lxstat(int version, const char *path, struct stat *out)
{
	return ask(AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}

EXPORT int __xstat64(int version, const char *path, struct stat64 *out)
{
	return ask(AT_FDCWD, path, (struct stat *)out, 0);
}

EXPORT int __lxstat64(int version, const char *path, struct stat64 *out)
{
	return ask(AT_FDCWD, path, (struct stat *)out, AT_SYMLINK_NOFOLLOW);
}

EXPORT int access(const char *path, int mode)
{
	int before = errno;

	return answer_access(syscall(SYS_faccessat, AT_FDCWD, path, mode), path, mode, before);
}

EXPORT int faccessat(int folder, const char *path, int mode, int flags)
{
	int (*real)(int, const char *, int, int);
	int before = errno;

	*(void **)&real = dlsym(RTLD_NEXT, "faccessat");
	if (!real) {
		errno = ENOSYS;
		return -1;
	}
	return answer_access(real(folder, path, mode, flags), path, mode, before);
}
