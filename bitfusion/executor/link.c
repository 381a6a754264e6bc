/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's linker: its inputs and its result.
 */
#include "load.h"

void bf_link_create(struct bf_session *session, struct bf_load_job *work)
{
	struct bf_image *image = work->image;
	CUlinkState state = NULL;
	CUresult status =
		session->driver->cuLinkCreate_v2
			? session->driver->cuLinkCreate_v2(image->option_count, image->option, image->value, &state)
			: CUDA_ERROR_NOT_SUPPORTED;
	uint32_t owner = bf_handle_pack(BF_HANDLE(BF_CONTEXT, work->command.context));
	if (status == CUDA_SUCCESS &&
	    !bf_handle_bind(&session->handles, BF_LINKSTATE, work->load.handle, (uint64_t)(uintptr_t)state, owner))
		status = CUDA_ERROR_OUT_OF_MEMORY;
	if (status == CUDA_SUCCESS) {
		image->handle = work->load.handle;
		bf_image_keep(session, image);
		work->image = NULL;
	}
	bf_load_answer(session, work, image, status, NULL);
}

static CUresult resolve_link(struct bf_session *session, const struct bf_load_job *work, CUlinkState *state)
{
	uint64_t value = 0;
	if (!bf_handle_resolve(&session->handles, BF_LINKSTATE, work->load.handle, &value) || !value)
		return CUDA_ERROR_INVALID_HANDLE;
	*state = (CUlinkState)(uintptr_t)value;
	return CUDA_SUCCESS;
}

/* The logs are those of the link, which its creation named. */
void bf_link_add(struct bf_session *session, struct bf_load_job *work)
{
	struct bf_image *image = work->image, *kept = bf_image_find(session, work->load.handle, false);
	CUlinkState state;
	CUresult status = resolve_link(session, work, &state);
	if (status == CUDA_SUCCESS)
		status = session->driver->cuLinkAddData_v2
				 ? session->driver->cuLinkAddData_v2(state, (CUjitInputType)work->load.input_type,
								     image->data, work->load.bulk_size, work->text,
								     image->option_count, image->option, image->value)
				 : CUDA_ERROR_NOT_SUPPORTED;
	bf_load_answer(session, work, kept ? kept : image, status, NULL);
}

static void send_image(struct bf_session *session, uint32_t request, const uint8_t *image, uint64_t size)
{
	for (uint64_t offset = 0; offset < size;) {
		uint64_t left = size - offset;
		struct bf_data data = { offset, left < BF_STAGING_CHUNK ? left : BF_STAGING_CHUNK };
		struct bf_reply reply = {
			.size = sizeof(reply) + sizeof(data),
			.kind = BF_DATA,
			.request = request,
		};
		bf_send(session, &reply, &data, sizeof(data), image + offset, data.size, NULL);
		offset += data.size;
	}
}

void bf_link_complete(struct bf_session *session, struct bf_load_job *work)
{
	struct bf_image *kept = bf_image_find(session, work->load.handle, false);
	CUlinkState state;
	void *image = NULL;
	size_t size = 0;
	CUresult status = resolve_link(session, work, &state);
	if (status == CUDA_SUCCESS)
		status = session->driver->cuLinkComplete ? session->driver->cuLinkComplete(state, &image, &size)
							 : CUDA_ERROR_NOT_SUPPORTED;
	uint64_t sent = status == CUDA_SUCCESS ? size : 0;
	if (sent)
		send_image(session, work->command.request, image, sent);
	bf_load_answer(session, work, kept ? kept : work->image, status, &sent);
}
