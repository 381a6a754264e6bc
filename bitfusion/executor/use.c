/* SPDX-License-Identifier: Apache-2.0
 *
 * Code and streams that calls beside the issue thread work with. A program may end them meanwhile, which is its mistake,
 * but the driver must not find itself without them in the middle of a call: what is given back waits until nobody uses
 * it.
 */
#include "core.h"

void bf_uses_init(struct bf_session *session)
{
	pthread_mutex_init(&session->uses.lock, NULL);
	pthread_cond_init(&session->uses.ended, NULL);
}

/* The module, library, link or stream that a handle is or comes from, else 0. */
static uint64_t origin_of(struct bf_handles *handles, uint64_t number)
{
	while (BF_IS_HANDLE(number)) {
		unsigned kind = BF_HANDLE_KIND(number);
		if (kind == BF_MODULE || kind == BF_LIBRARY || kind == BF_LINKSTATE || kind == BF_STREAM)
			return number;
		if (kind != BF_FUNCTION && kind != BF_KERNEL)
			return 0;
		struct bf_entry *entry = bf_handle_entry(handles, kind, BF_HANDLE_INDEX(number));
		if (!entry || !atomic_load_explicit(&entry->value, memory_order_acquire))
			return 0;
		number = bf_handle_unpack(entry->owner);
	}
	return 0;
}

void bf_use_begin(struct bf_session *session, struct bf_use *use, uint32_t context, uint64_t number)
{
	struct bf_uses *uses = &session->uses;
	use->context = context;
	use->number = origin_of(&session->handles, number);
	pthread_mutex_lock(&uses->lock);
	use->next = uses->first;
	uses->first = use;
	pthread_mutex_unlock(&uses->lock);
}

void bf_use_end(struct bf_session *session, struct bf_use *use)
{
	struct bf_uses *uses = &session->uses;
	pthread_mutex_lock(&uses->lock);
	struct bf_use **link = &uses->first;
	while (*link != use)
		link = &(*link)->next;
	*link = use->next;
	pthread_cond_broadcast(&uses->ended);
	pthread_mutex_unlock(&uses->lock);
}

static bool used(const struct bf_uses *uses, uint64_t number)
{
	for (const struct bf_use *use = uses->first; use; use = use->next) {
		if (use->number == number || BF_HANDLE(BF_CONTEXT, use->context) == number)
			return true;
	}
	return false;
}

void bf_use_wait(struct bf_session *session, uint64_t number)
{
	struct bf_uses *uses = &session->uses;
	pthread_mutex_lock(&uses->lock);
	while (used(uses, number))
		pthread_cond_wait(&uses->ended, &uses->lock);
	pthread_mutex_unlock(&uses->lock);
}
