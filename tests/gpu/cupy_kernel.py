# SPDX-License-Identifier: Apache-2.0
"""CuPy: a raw kernel, an elementwise one, a reduction and a sort."""

import cupy

kernel = cupy.RawKernel(
    r"""
extern "C" __global__ void collatz(const int *from, int *steps, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    long long n = from[i];
    int taken = 0;
    while (n != 1) {
        n = n % 2 ? 3 * n + 1 : n / 2;
        taken++;
    }
    steps[i] = taken;
}
""",
    "collatz",
)
numbers = cupy.arange(1, 100001, dtype=cupy.int32)
steps = cupy.empty_like(numbers)
kernel((391,), (256,), (numbers, steps, numbers.size))
print(
    "most steps below 100001: %d, sum %d" % (int(steps.max()), int(steps.astype(cupy.int64).sum()))
)
values = cupy.sin(numbers.astype(cupy.float64)) ** 2
print("mean of squared sines: %.9f" % float(values.mean()))
print("median step count: %d" % int(cupy.sort(steps)[steps.size // 2]))
