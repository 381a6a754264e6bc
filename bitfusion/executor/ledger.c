/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory that the workers of one session hold, in memory that they share. A slot has one writer at a
 * time; the sums are derived from the slots, so a worker that dies half way leaves nothing that cannot be
 * recomputed.
 *
 * A worker does what a client's bytes make it do, so the server trusts nothing here: it takes no lock, whose links to
 * other locks a worker could have written, and its map cannot lose its file.
 */
#define _GNU_SOURCE
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SLOTS = 4096, LOCK_TIMEOUT_S = 1 };
#define LEDGER_MAGIC 0x3272656764656c42ull

static size_t ledger_size(uint32_t devices, uint32_t slots)
{
	return sizeof(struct bf_ledger_header) + (size_t)devices * slots * sizeof(uint64_t) +
	       slots * sizeof(struct bf_activity);
}

static int anonymous_file(void)
{
#ifdef SYS_memfd_create
	int fd = (int)syscall(SYS_memfd_create, "bitfusion-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0)
		return fd;
#endif
	char path[] = "/dev/shm/bitfusion-XXXXXX";
	int file = mkostemp(path, O_CLOEXEC);
	if (file >= 0)
		unlink(path);
	return file < 0 ? -errno : file;
}

BF_EXPORT int bf_ledger_create(const uint64_t *limits, uint32_t devices, uint32_t slots)
{
	if (devices > BF_MAX_DEVICES || !slots || slots > MAX_SLOTS)
		return -EINVAL;
	int fd = anonymous_file();
	if (fd < 0)
		return fd;
	size_t size = ledger_size(devices, slots);
	struct bf_ledger_header *header = MAP_FAILED;
	if (ftruncate(fd, (off_t)size) == 0) {
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); /* what is no memfd has none */
		header = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (header == MAP_FAILED) {
		int error = errno;
		close(fd);
		return -error;
	}
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&header->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	header->devices = devices;
	header->slots = slots;
	for (uint32_t i = 0; i < devices; i++)
		header->limit[i] = limits[i];
	header->magic = LEDGER_MAGIC;
	munmap(header, size);
	return fd;
}

BF_EXPORT struct bf_ledger *bf_ledger_open(int fd)
{
	struct stat status;
	if (fstat(fd, &status) != 0 || (size_t)status.st_size < sizeof(struct bf_ledger_header))
		return NULL;
	size_t size = (size_t)status.st_size;
	struct bf_ledger_header *header = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (header == MAP_FAILED)
		return NULL;
	struct bf_ledger *ledger = calloc(1, sizeof(*ledger));
	if (!ledger || header->magic != LEDGER_MAGIC || header->devices > BF_MAX_DEVICES ||
	    size < ledger_size(header->devices, header->slots)) {
		free(ledger);
		munmap(header, size);
		return NULL;
	}
	*ledger = (struct bf_ledger){ header, size, header->devices, header->slots };
	return ledger;
}

BF_EXPORT void bf_ledger_close(struct bf_ledger *ledger)
{
	munmap(ledger->header, ledger->size);
	free(ledger);
}

static uint64_t sum_of(struct bf_ledger *ledger, uint32_t device)
{
	uint64_t sum = 0;
	for (uint32_t slot = 0; slot < ledger->slots; slot++)
		sum += *bf_ledger_cell(ledger, slot, device);
	return sum;
}

static void recompute(struct bf_ledger *ledger)
{
	for (uint32_t device = 0; device < ledger->devices; device++)
		ledger->header->sum[device] = sum_of(ledger, device);
}

bool bf_ledger_lock(struct bf_ledger *ledger)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += LOCK_TIMEOUT_S;
	int error = pthread_mutex_timedlock(&ledger->header->lock, &deadline);
	if (error == EOWNERDEAD) {
		pthread_mutex_consistent(&ledger->header->lock);
		recompute(ledger);
	}
	return !error || error == EOWNERDEAD;
}

void bf_ledger_unlock(struct bf_ledger *ledger, bool locked)
{
	if (locked)
		pthread_mutex_unlock(&ledger->header->lock);
}

BF_EXPORT int bf_ledger_reserve(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size)
{
	if (slot >= ledger->slots || device >= ledger->devices)
		return -1;
	bool locked = bf_ledger_lock(ledger);
	uint64_t limit = ledger->header->limit[device], sum = ledger->header->sum[device];
	bool fits = size <= UINT64_MAX - sum && (!limit || (sum <= limit && size <= limit - sum));
	if (fits) {
		*bf_ledger_cell(ledger, slot, device) += size;
		ledger->header->sum[device] += size;
	}
	bf_ledger_unlock(ledger, locked);
	return fits ? 0 : -1;
}

void bf_ledger_take(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size)
{
	if (slot >= ledger->slots || device >= ledger->devices)
		return;
	bool locked = bf_ledger_lock(ledger);
	uint64_t room = UINT64_MAX - ledger->header->sum[device];
	size = size < room ? size : room;
	*bf_ledger_cell(ledger, slot, device) += size;
	ledger->header->sum[device] += size;
	bf_ledger_unlock(ledger, locked);
}

BF_EXPORT void bf_ledger_release(struct bf_ledger *ledger, uint32_t slot, uint32_t device, uint64_t size)
{
	if (slot >= ledger->slots || device >= ledger->devices)
		return;
	bool locked = bf_ledger_lock(ledger);
	_Atomic uint64_t *held = bf_ledger_cell(ledger, slot, device);
	size = size < *held ? size : *held;
	*held -= size;
	ledger->header->sum[device] -= size;
	bf_ledger_unlock(ledger, locked);
}

BF_EXPORT int bf_ledger_used(struct bf_ledger *ledger, int32_t slot, uint64_t *used, uint32_t count)
{
	if (slot >= 0 && (uint32_t)slot >= ledger->slots)
		return -1;
	for (uint32_t i = 0; i < count && i < ledger->devices; i++)
		used[i] = slot < 0 ? sum_of(ledger, i) : *bf_ledger_cell(ledger, (uint32_t)slot, i);
	return 0;
}

BF_EXPORT int bf_ledger_limits(struct bf_ledger *ledger, uint64_t *limits, uint32_t count)
{
	for (uint32_t i = 0; i < count && i < ledger->devices; i++)
		limits[i] = ledger->header->limit[i];
	return (int)ledger->devices;
}

/* The server, of a worker that is gone. One that died half way held the lock: whoever takes it next recomputes. */
BF_EXPORT int bf_ledger_clear(struct bf_ledger *ledger, uint32_t slot)
{
	if (slot >= ledger->slots)
		return -1;
	for (uint32_t device = 0; device < ledger->devices; device++)
		ledger->header->sum[device] -= atomic_exchange(bf_ledger_cell(ledger, slot, device), 0);
	memset(bf_ledger_activity(ledger, slot), 0, sizeof(struct bf_activity));
	return 0;
}
