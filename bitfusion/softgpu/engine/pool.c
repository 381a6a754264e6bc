/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that run blocks. A block that does not end within its slice is put aside and others go on, so that blocks
 * may wait for each other: all blocks of a cooperative launch, and as many of another one as memory allows.
 */
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

struct sg_pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct sg_run *runs; /* a ring; the next to be served */
	unsigned count, idle;
	bool ending;
	pthread_t threads[];
};

/* Under the run's lock: a cluster (mostly of one block) to run next, or NULL. */
static struct sg_cluster *take(struct sg_run *run)
{
	const bool new_left = run->next_cluster < run->clusters && run->resident < run->resident_limit;
	struct sg_cluster *cluster = run->parked;

	if (atomic_load(&run->stop) || (!cluster && !new_left))
		return NULL;
	if (cluster && !(new_left && run->take_new)) {
		run->parked = cluster->next;
		run->take_new = true;
		return cluster;
	}
	run->take_new = false;
	cluster = run->spare;
	if (cluster)
		run->spare = cluster->next;
	else
		cluster = sg_cluster_new(run);
	if (!cluster)
		return NULL;
	run->resident++;
	sg_cluster_start(cluster, run->next_cluster++);
	return cluster;
}

bool sg_run_withdraw(struct sg_run *run, uint32_t first[3])
{
	bool left;

	pthread_mutex_lock(&run->lock);
	/* all blocks of a cooperative launch have to run: they wait for each other */
	left = run->next_cluster < run->clusters && !run->launch->cooperative;
	if (left) {
		sg_cluster_place(run, run->next_cluster++, first);
		run->done_clusters++;
	}
	pthread_mutex_unlock(&run->lock);
	return left;
}

static void park(struct sg_run *run, struct sg_cluster *cluster)
{
	cluster->next = NULL;
	if (run->parked)
		run->parked_tail->next = cluster;
	else
		run->parked = cluster;
	run->parked_tail = cluster;
}

static void put(struct sg_run *run, struct sg_cluster *cluster, enum sg_outcome outcome)
{
	if (outcome == SG_YIELDED) {
		park(run, cluster);
		return;
	}
	cluster->next = run->spare;
	run->spare = cluster;
	run->resident--;
	run->done_clusters += outcome == SG_DONE;
}

static bool over(const struct sg_run *run)
{
	return run->done_clusters == run->clusters || atomic_load(&run->stop);
}

static void no_memory(struct sg_run *run)
{
	if (run->fault.error)
		return;
	run->fault.error = 2;
	strcpy(run->fault.text, "no memory for the registers of a block");
	atomic_store(&run->stop, SG_STOPPED);
}

/* Runs blocks of this launch until there are none to take; for a pool's thread, at most a slice. */
static void work_on(struct sg_run *run, bool owner)
{
	uint64_t until = owner ? UINT64_MAX : sg_now_ns() + 5000000;

	pthread_mutex_lock(&run->lock);
	run->workers++;
	while (!over(run)) {
		struct sg_cluster *cluster = take(run);
		const bool alone = run->resident <= 1;
		enum sg_outcome outcome;

		if (!cluster) {
			if (run->next_cluster < run->clusters && !run->resident)
				no_memory(run);
			break;
		}
		pthread_mutex_unlock(&run->lock);
		outcome = sg_run_cancelled(run) ? SG_FAULTED : sg_cluster_run(cluster);
		if (outcome == SG_YIELDED && !alone)
			sched_yield();
		pthread_mutex_lock(&run->lock);
		put(run, cluster, outcome);
		if (!owner && sg_now_ns() > until)
			break;
	}
	run->workers--;
	pthread_cond_broadcast(&run->finished);
	pthread_mutex_unlock(&run->lock);
}

static bool has_work(struct sg_run *run)
{
	bool work;

	pthread_mutex_lock(&run->lock);
	work = !over(run) &&
	       (run->parked || (run->next_cluster < run->clusters && run->resident < run->resident_limit));
	if (work)
		run->workers++; /* holds the run until work_on has counted itself */
	pthread_mutex_unlock(&run->lock);
	return work;
}

static void let_go(struct sg_run *run)
{
	pthread_mutex_lock(&run->lock);
	run->workers--;
	pthread_cond_broadcast(&run->finished);
	pthread_mutex_unlock(&run->lock);
}

/* Under the pool's lock: a launch with blocks to run, held; the ring moves on so that launches take turns. */
static struct sg_run *find_run(struct sg_pool *pool)
{
	struct sg_run *run = pool->runs;

	if (!run)
		return NULL;
	do {
		struct sg_run *next = run->next;

		if (has_work(run)) {
			pool->runs = next;
			return run;
		}
		run = next;
	} while (run != pool->runs);
	return NULL;
}

static void *thread_main(void *argument)
{
	struct sg_pool *pool = argument;

	pthread_mutex_lock(&pool->lock);
	while (!pool->ending) {
		struct sg_run *run = find_run(pool);

		if (!run) {
			pool->idle++;
			pthread_cond_wait(&pool->work, &pool->lock);
			pool->idle--;
			continue;
		}
		pthread_mutex_unlock(&pool->lock);
		work_on(run, false);
		let_go(run);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

struct sg_pool *sg_pool_create(unsigned threads)
{
	struct sg_pool *pool;

	if (!threads) {
		const long cpus = sysconf(_SC_NPROCESSORS_ONLN);

		threads = cpus > 1 ? (unsigned)cpus - 1 : 0; /* the caller's thread is one more */
	}
	pool = calloc(1, sizeof(*pool) + threads * sizeof(pthread_t));
	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	while (pool->count < threads && !pthread_create(&pool->threads[pool->count], NULL, thread_main, pool))
		pool->count++;
	return pool;
}

void sg_pool_destroy(struct sg_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned k = 0; k < pool->count; k++)
		pthread_join(pool->threads[k], NULL);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->work);
	free(pool);
}

static void enlist(struct sg_pool *pool, struct sg_run *run)
{
	pthread_mutex_lock(&pool->lock);
	if (pool->runs) {
		run->next = pool->runs;
		run->previous = pool->runs->previous;
		run->previous->next = run;
		run->next->previous = run;
	} else {
		run->next = run->previous = run;
	}
	pool->runs = run;
	if (run->clusters > 2)
		pthread_cond_broadcast(&pool->work);
	else
		pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

static void delist(struct sg_pool *pool, struct sg_run *run)
{
	pthread_mutex_lock(&pool->lock);
	if (pool->runs == run)
		pool->runs = run->next == run ? NULL : run->next;
	run->next->previous = run->previous;
	run->previous->next = run->next;
	pthread_mutex_unlock(&pool->lock);
}

int sg_launch(struct sg_pool *pool, const struct sg_launch *launch, struct sg_fault *fault)
{
	struct sg_run run;
	const bool shared = pool->count;

	*fault = (struct sg_fault){ 0 };
	if (!sg_run_prepare(&run, launch, fault))
		return fault->error;
	if (shared && run.clusters > 1)
		enlist(pool, &run);
	for (;;) {
		work_on(&run, true);
		pthread_mutex_lock(&run.lock);
		while (!over(&run) && !run.parked && run.workers)
			pthread_cond_wait(&run.finished, &run.lock);
		const bool ended = over(&run);

		pthread_mutex_unlock(&run.lock);
		if (ended)
			break;
	}
	if (shared && run.clusters > 1)
		delist(pool, &run);
	pthread_mutex_lock(&run.lock);
	while (run.workers)
		pthread_cond_wait(&run.finished, &run.lock);
	pthread_mutex_unlock(&run.lock);
	*fault = run.fault;
	sg_run_release(&run);
	return fault->error;
}
