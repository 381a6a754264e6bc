/* SPDX-License-Identifier: Apache-2.0
 *
 * For the files that hold handlers (run_*.c). They are compiled for the baseline CPU and, on x86-64, again for
 * AVX2 and FMA with SG_VARIANT set. The Makefile gives them flags of their own: floating point here neither traps nor
 * sets errno, so that loops vectorise.
 */
#ifndef SOFTGPU_RUN_H
#define SOFTGPU_RUN_H

#include <fenv.h>
#include <math.h>

#include "bits.h"
#include "float.h"
#include "half.h"
#include "lanes.h"
#include "tiny.h"

#endif
