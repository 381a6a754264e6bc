/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads of code under way (module.c, link.c).
 */
#ifndef BITFUSION_EXECUTOR_LOAD_H
#define BITFUSION_EXECUTOR_LOAD_H

#include "core.h"

enum { MAX_OPTIONS = 64, MAX_LOG = 256 << 10, LOGS = 2 };

/* What the driver may still look at after the call: a preserved image, a link's logs. By handle. */
struct bf_image {
	struct bf_image *next;
	uint64_t handle;
	uint8_t *data;
	struct bf_wrapper wrapper;
	char *log[LOGS];
	uint32_t capacity[LOGS];
	unsigned option_count, library_option_count;
	CUjit_option option[MAX_OPTIONS + 1];
	void *value[MAX_OPTIONS + 1];
	CUlibraryOption library_option[MAX_OPTIONS];
	void *library_value[MAX_OPTIONS];
	bool preserved;
};

struct bf_load_job {
	struct bf_job job;
	struct bf_command command;
	struct bf_load load;
	struct bf_image *image;
	struct bf_use use; /* of the link that is added to or completed */
	char *text;
	CUresult status; /* known before the driver is asked */
};

void bf_image_keep(struct bf_session *session, struct bf_image *image);
struct bf_image *bf_image_find(struct bf_session *session, uint64_t handle, bool take);
/* Both logs of the image, then perhaps a number. */
void bf_load_answer(struct bf_session *session, const struct bf_load_job *work, const struct bf_image *image,
		    CUresult status, const uint64_t *number);

void bf_link_create(struct bf_session *session, struct bf_load_job *work);
void bf_link_add(struct bf_session *session, struct bf_load_job *work);
void bf_link_complete(struct bf_session *session, struct bf_load_job *work);

#endif
