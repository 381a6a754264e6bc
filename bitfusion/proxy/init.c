/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of the library in a process: nothing at load, cuInit, the end.
 */
#define _GNU_SOURCE
#include "proxy.h"

_Atomic int bf_state = BF_NEW;

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

CUresult bf_state_error(void)
{
	switch (atomic_load(&bf_state)) {
	case BF_READY: return bf_self.in_callback ? CUDA_ERROR_NOT_PERMITTED : CUDA_SUCCESS;
	case BF_LOST: bf_connection_settle(); return CUDA_ERROR_DEVICE_UNAVAILABLE;
	case BF_ENDED: return CUDA_ERROR_DEINITIALIZED;
	default: return CUDA_ERROR_NOT_INITIALIZED;
	}
}

static void before_fork(void)
{
	pthread_mutex_lock(&init_lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&init_lock);
}

/* The connection stays the parent's: the child only closes its copy of the descriptor, so that the server
 * notices when the parent ends. Locks of the queue may be held by threads that do not exist here; no call
 * gets as far as them in this state. */
static void after_fork_in_child(void)
{
	int state = atomic_load(&bf_state);

	if (state == BF_READY || state == BF_LOST) {
		atomic_store(&bf_state, BF_FORKED);
		bf_connection_leave();
	}
	pthread_mutex_unlock(&init_lock);
}

static void watch(void)
{
	if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child))
		bf_debug("cannot watch for fork, ignoring");
}

static void watch_fork(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch);
}

static CUresult start(void)
{
	CUresult status = bf_connect();

	if (!status)
		status = bf_devices_load();
	if (!status)
		status = bf_contexts_open();
	return status;
}

BF_EXPORT CUresult cuInit(unsigned int Flags)
{
	CUresult status = CUDA_SUCCESS;
	int state = atomic_load_explicit(&bf_state, memory_order_acquire);

	if (Flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (state != BF_NEW)
		return state == BF_READY ? CUDA_SUCCESS : bf_state_error();
	watch_fork();
	pthread_mutex_lock(&init_lock);
	if (atomic_load(&bf_state) == BF_NEW) {
		status = start();
		if (!status)
			atomic_store_explicit(&bf_state, BF_READY, memory_order_release);
	}
	pthread_mutex_unlock(&init_lock);
	return status ? status : bf_check();
}

/* Static destructors and atexit handlers of the program ran before this: they may still have made calls. */
static __attribute__((destructor)) void end(void)
{
	int ready = BF_READY;

	/* first: that the server then closes the connection is no loss */
	if (atomic_compare_exchange_strong(&bf_state, &ready, BF_ENDED))
		bf_queue_goodbye();
}
