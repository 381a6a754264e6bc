/* SPDX-License-Identifier: Apache-2.0
 *
 * Device time of one session. A share is kept by a leaky bucket: what the session uses runs in, its share of the
 * time that passes runs out, and while there is more than a little in it the session's workers wait. Fairness
 * between sessions is the server's (fairness.py): it says up to which sum of device time each may go on, and says it
 * again and again, so that nobody waits for a server that is gone.
 */
#include "clock.h"
#include "ledger.h"

enum { MILLION = 1000000 };
static const uint64_t PATIENCE_NS = 10 * 1000000;   /* of debt that nobody waits for */
static const uint64_t RATION_NS = 250 * 1000000ull; /* how long a server's word holds */

BF_EXPORT int bf_ledger_set_share(struct bf_ledger *ledger, uint32_t millionths)
{
	if (millionths > MILLION)
		return -1;
	atomic_store(&ledger->header->share, millionths == MILLION ? 0 : millionths);
	return 0;
}

BF_EXPORT int bf_ledger_busy(struct bf_ledger *ledger, uint64_t *busy, uint32_t count)
{
	for (uint32_t i = 0; i < count && i < ledger->devices; i++)
		busy[i] = atomic_load(&ledger->header->spent[i].busy);
	return (int)ledger->devices;
}

BF_EXPORT int bf_ledger_ration(struct bf_ledger *ledger, const uint64_t *until, uint32_t count)
{
	if (until && count != ledger->devices)
		return -1;
	for (uint32_t i = 0; until && i < count; i++)
		atomic_store(&ledger->header->spent[i].until, until[i]);
	atomic_store(&ledger->header->rationed_at, until ? bf_now_ns() : 0);
	return 0;
}

BF_EXPORT uint64_t bf_ledger_last_call(struct bf_ledger *ledger, uint32_t *waiting)
{
	uint64_t last_at = 0;
	*waiting = 0;
	for (uint32_t slot = 0; slot < ledger->slots; slot++) {
		struct bf_activity *activity = bf_ledger_activity(ledger, slot);
		uint64_t at = atomic_load(&activity->last_at);
		last_at = at > last_at ? at : last_at;
		*waiting += atomic_load(&activity->waiting);
	}
	return last_at;
}

/* ------------------------------------------------------------------ workers */

void bf_ledger_called(struct bf_ledger *ledger, uint32_t slot, uint64_t now)
{
	if (slot < ledger->slots)
		atomic_store_explicit(&bf_ledger_activity(ledger, slot)->last_at, now, memory_order_relaxed);
}

void bf_ledger_waits(struct bf_ledger *ledger, uint32_t slot, int change)
{
	if (slot < ledger->slots)
		atomic_fetch_add(&bf_ledger_activity(ledger, slot)->waiting, (uint32_t)change);
}

static bool rationed(struct bf_ledger *ledger, uint64_t now)
{
	uint64_t at = atomic_load_explicit(&ledger->header->rationed_at, memory_order_relaxed);
	return at && now < at + RATION_NS;
}

bool bf_ledger_paced(struct bf_ledger *ledger, uint64_t now)
{
	return atomic_load_explicit(&ledger->header->share, memory_order_relaxed) || rationed(ledger, now);
}

static uint64_t debt_now(const struct bf_spent *spent, uint32_t share, uint64_t now)
{
	uint64_t passed = now > spent->debt_at ? now - spent->debt_at : 0;
	uint64_t repaid = passed / MILLION * share + passed % MILLION * share / MILLION;
	return spent->debt > repaid ? spent->debt - repaid : 0;
}

void bf_ledger_spend(struct bf_ledger *ledger, uint32_t device, uint64_t busy)
{
	if (device >= ledger->devices)
		return;
	struct bf_spent *spent = &ledger->header->spent[device];
	uint32_t share = atomic_load(&ledger->header->share);
	uint64_t now = bf_now_ns();
	bool locked = bf_ledger_lock(ledger);
	spent->debt = share ? debt_now(spent, share, now) + busy : 0;
	spent->debt_at = now;
	atomic_fetch_add(&spent->busy, busy);
	bf_ledger_unlock(ledger, locked);
}

bool bf_ledger_may_go_on(struct bf_ledger *ledger, uint32_t device)
{
	if (device >= ledger->devices)
		return true;
	struct bf_spent *spent = &ledger->header->spent[device];
	uint32_t share = atomic_load(&ledger->header->share);
	uint64_t now = bf_now_ns();
	if (rationed(ledger, now) && atomic_load(&spent->busy) >= atomic_load(&spent->until))
		return false;
	if (!share)
		return true;
	bool locked = bf_ledger_lock(ledger);
	uint64_t debt = debt_now(spent, share, now);
	bf_ledger_unlock(ledger, locked);
	return debt <= PATIENCE_NS;
}
