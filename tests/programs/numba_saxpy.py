# SPDX-License-Identifier: Apache-2.0
"""An ordinary numba-cuda program: arrays, streams, shared memory, atomics, a device function."""

import numpy as np
from numba import cuda, float32


@cuda.jit
def saxpy(a, x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = a * x[i] + y[i]


@cuda.jit(device=True)
def square(value):
    return value * value


@cuda.jit
def sum_of_squares(x, total):
    part = cuda.shared.array(128, float32)
    lane = cuda.threadIdx.x
    i = cuda.grid(1)
    part[lane] = square(x[i]) if i < x.size else 0
    cuda.syncthreads()
    half = 64
    while half > 0:
        if lane < half:
            part[lane] += part[lane + half]
        cuda.syncthreads()
        half //= 2
    if lane == 0:
        cuda.atomic.add(total, 0, part[0])


def main():
    count = 10000
    x = (np.arange(count) % 17).astype(np.float32)
    y = np.ones(count, np.float32)
    stream = cuda.stream()
    device_x = cuda.to_device(x, stream)
    device_y = cuda.to_device(y, stream)
    saxpy[(count + 127) // 128, 128, stream](np.float32(2), device_x, device_y)
    total = cuda.to_device(np.zeros(1, np.float64), stream)
    sum_of_squares[(count + 127) // 128, 128, stream](device_x, total)
    result = device_y.copy_to_host(stream=stream)
    stream.synchronize()
    assert (result == 2 * x + y).all()
    print("saxpy", result[:5], float(result.sum()))
    print(
        "sum of squares", float(total.copy_to_host()[0]), float((x.astype(np.float64) ** 2).sum())
    )


main()
