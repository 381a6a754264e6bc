/* SPDX-License-Identifier: Apache-2.0
 *
 * The first fault of a launch stops it; the text says where it happened.
 */
#include <stdio.h>
#include <time.h>

#include "internal.h"

uint64_t sg_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void note(struct sg_warp *w, const struct sg_op *i, uint32_t lanes, int error, const char *format,
		 va_list arguments)
{
	struct sg_block *block = w->block;
	struct sg_run *run = block->run;
	const struct sg_image *image = run->image;
	const uint32_t lane = lanes ? sg_lowest(lanes) : 0;
	const uint32_t *tid = (const uint32_t *)w->base[SG_AREA_WARP];
	char what[200];

	vsnprintf(what, sizeof(what), format, arguments);
	if (i < image->ops || i >= image->ops + image->op_count)
		i = w->groups[0].pc; /* a part that a handler made of its record, which it left there */
	const size_t record = (size_t)(i - image->ops);
	w->groups[0].pc = i;
	pthread_mutex_lock(&run->lock);
	if (!run->fault.error) {
		run->fault.error = error;
		snprintf(run->fault.text, sizeof(run->fault.text),
			 "kernel '%.80s', block (%u,%u,%u), thread (%u,%u,%u), PTX line %u: '%.110s': %.110s",
			 run->launch->kernel->name, block->index[0], block->index[1], block->index[2], tid[lane],
			 tid[SG_LANES + lane], tid[2 * SG_LANES + lane], image->lines[record],
			 image->strings + image->texts[record], what);
	}
	pthread_mutex_unlock(&run->lock);
}

const struct sg_op *sg_fault(struct sg_warp *w, const struct sg_op *i, uint32_t lanes, int error, const char *format,
			     ...)
{
	va_list arguments;

	va_start(arguments, format);
	note(w, i, lanes, error, format, arguments);
	va_end(arguments);
	atomic_store(&w->block->run->stop, SG_STOPPED);
	return NULL;
}

void sg_fault_at_leisure(struct sg_warp *w, const struct sg_op *i, uint32_t lanes, int error, const char *format, ...)
{
	va_list arguments;
	int going = SG_GOING;

	va_start(arguments, format);
	note(w, i, lanes, error, format, arguments);
	va_end(arguments);
	atomic_compare_exchange_strong(&w->block->run->stop, &going, SG_LAST_SLICE);
}
