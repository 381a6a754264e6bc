/* SPDX-License-Identifier: Apache-2.0
 *
 * What the matrix handlers share and is not compiled twice.
 */
#include "matrix.h"

bool sg_matrix_gather(struct sg_warp *w, const struct sg_op *i, uint32_t m)
{
	uint32_t members[SG_LANES];

	memset(members, 0xff, sizeof(members));
	m = sg_warp_gather(w, i, m, members);
	if (m && m != SG_ALL)
		sg_fault(w, i, m, SG_ILLEGAL_INSTRUCTION, "not all 32 threads of the warp take part");
	return m == SG_ALL;
}
