/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_FORMAT_H
#define BITFUSION_FORMAT_H

#include "cuda.h"

/* Bytes of one channel of an array; 0 where they are shared between texels, or not known. */
static inline unsigned bf_format_bytes(CUarray_format format)
{
	switch ((int)format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8: return 1;
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF: return 2;
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT: return 4;
	default: return 0;
	}
}

#endif
