/* SPDX-License-Identifier: Apache-2.0
 *
 * The software GPU's compute capability: that of no GPU there is. Libraries that bring machine code for each GPU they know find
 * none for this one and hand over their PTX: cuBLAS does that by itself, XLA when its assembler refuses the name.
 */
#ifndef SOFTGPU_COMPUTE_H
#define SOFTGPU_COMPUTE_H

enum { COMPUTE_MAJOR = 13, COMPUTE_MINOR = 0 };

#endif
