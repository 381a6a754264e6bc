/* SPDX-License-Identifier: Apache-2.0
 *
 * One client must not take the memory of the machine. Most of what its worker holds is the driver's (code, graphs,
 * streams), which nobody else can count, so it is the kernel that is asked how much that is. From three quarters of
 * the limit on no more is read while something is on its way out; at the limit whatever makes something fails for
 * lack of memory; and where it grows all the same, an eighth beyond it the session ends.
 */
#include "clock.h"
#include "core.h"
#include "ledger.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 30, SHORT_MS = 1, LONG_MS = 16, STATUS_BYTES = 4096 };
#define LOOK_NS ((uint64_t)5000000) /* a look costs some 10 us */

void bf_host_memory_init(struct bf_session *session)
{
	struct bf_host_memory *memory = &session->host_memory;
	memory->limit = session->options.host_memory;
	memory->status = memory->limit ? open("/proc/self/status", O_RDONLY | O_CLOEXEC) : -1;
	if (memory->limit && memory->status < 0) {
		bf_log(session, "cannot read /proc/self/status: this worker's memory is not limited");
		memory->limit = 0;
	}
}

size_t bf_host_memory_most(struct bf_session *session, size_t most, unsigned part)
{
	uint64_t limit = session->host_memory.limit;
	return limit && limit / part < most ? (size_t)(limit / part) : most;
}

/* ------------------------------------------------------------------ looking */

static uint64_t kib_of(const char *text, const char *name)
{
	const char *line = strstr(text, name);
	return line ? strtoull(line + strlen(name), NULL, 10) : 0;
}

/* Files and what others share with us do not count; a software GPU's memory is the client's own slice. */
static uint64_t own(struct bf_session *session)
{
	char text[STATUS_BYTES];
	ssize_t size = pread(session->host_memory.status, text, sizeof(text) - 1, 0);
	text[size < 0 ? 0 : size] = 0;
	uint64_t bytes = (kib_of(text, "\nRssAnon:") + kib_of(text, "\nVmSwap:")) << 10;
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	if ((session->options.flags & BF_SERVE_SOFTWARE) && session->ledger)
		bf_ledger_used(session->ledger, (int32_t)session->options.slot, used, BF_MAX_DEVICES);
	for (unsigned i = 0; i < BF_MAX_DEVICES; i++)
		bytes -= bytes < used[i] ? bytes : used[i];
	return bytes;
}

static uint64_t look(struct bf_session *session)
{
	struct bf_ledger *ledger = session->ledger;
	uint64_t held = own(session);
	if (ledger && session->options.slot < ledger->slots) {
		atomic_store(&bf_ledger_activity(ledger, session->options.slot)->host_mib, (uint32_t)(held >> 20));
		for (uint32_t slot = 0; slot < ledger->slots; slot++)
			if (slot != session->options.slot)
				held += (uint64_t)bf_ledger_activity(ledger, slot)->host_mib << 20;
	}
	atomic_store(&session->host_memory.held, held);
	return held;
}

uint64_t bf_host_memory_held(struct bf_session *session)
{
	struct bf_host_memory *memory = &session->host_memory;
	uint64_t now = bf_now_ns(), then = atomic_load(&memory->looked_at);
	if (now - then < LOOK_NS || !atomic_compare_exchange_strong(&memory->looked_at, &then, now))
		return atomic_load(&memory->held);
	return look(session);
}

bool bf_host_memory_full(struct bf_session *session, uint64_t more)
{
	uint64_t limit = session->host_memory.limit, held;
	if (!limit)
		return false;
	held = bf_host_memory_held(session);
	return held >= limit || more > limit - held;
}

bool bf_host_memory_over(struct bf_session *session)
{
	uint64_t limit = session->host_memory.limit;
	if (!limit || bf_host_memory_held(session) <= limit + limit / 8)
		return false;
	malloc_trim(0);
	uint64_t held = look(session);
	if (held <= limit + limit / 8)
		return false;
	bf_log(session,
	       "its client makes the session hold %llu MiB of this machine's memory, and %llu are allowed: "
	       "ending it (host_memory in [server])",
	       (unsigned long long)held >> 20, (unsigned long long)limit >> 20);
	return true;
}

/* ------------------------------------------------------------------ waiting */

static bool is_working(struct bf_session *session)
{
	struct bf_waiters *waiters = &session->waiters;
	struct bf_outbox *outbox = &session->outbox;
	pthread_mutex_lock(&waiters->lock);
	bool working = waiters->first || waiters->idle < waiters->threads;
	pthread_mutex_unlock(&waiters->lock);
	pthread_mutex_lock(&outbox->lock);
	working |= outbox->queued > 0;
	pthread_mutex_unlock(&outbox->lock);
	return working || bf_staging_busy(session) || atomic_load(&session->pending_count);
}

/* Work on the device may wait for a command that has not been read, so there is an end to this. */
void bf_host_memory_wait(struct bf_session *session)
{
	struct bf_host_memory *memory = &session->host_memory;
	uint64_t mark = memory->limit / 4 * 3, least = UINT64_MAX, since = bf_now_ns();
	struct timespec pause = { .tv_nsec = SHORT_MS * 1000000L };
	if (bf_host_memory_held(session) <= mark) {
		memory->hopeless = false;
		return;
	}
	while (!memory->hopeless && is_working(session) && !atomic_load(&session->over)) {
		nanosleep(&pause, NULL);
		pause.tv_nsec = pause.tv_nsec < LONG_MS * 1000000L ? 2 * pause.tv_nsec : pause.tv_nsec;
		bf_settle(session);
		malloc_trim(0);
		uint64_t held = look(session), now = bf_now_ns();
		if (held <= mark)
			return;
		if (held < least) {
			least = held - memory->limit / 64;
			since = now;
		}
		memory->hopeless = now - since > PATIENCE_S * (uint64_t)1000000000 || bf_ahead_full(session);
	}
}
