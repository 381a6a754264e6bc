// SPDX-License-Identifier: Apache-2.0
// Compiled to tiny.fatbin (zstd; PTX for 75, 90 and 120a, machine code for sm_90) and, with
// --compress-mode=speed, to tiny-lz4.fatbin (PTX for 90).
extern "C" __global__ void tiny(int *out) { out[threadIdx.x] = 7; }
