# SPDX-License-Identifier: Apache-2.0
"""An ordinary cuda.core program: NVRTC compiles C++ to PTX and, by way of a linker, to a cubin."""

import numpy as np
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

SOURCE = r"""
template <typename T>
__global__ void axpy(T a, const T *x, T *y, size_t count)
{
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        y[i] = a * x[i] + y[i];
}
"""


def run(device, stream, kind):
    options = ProgramOptions(std="c++17", arch="sm_" + device.arch)
    module = Program(SOURCE, "c++", options=options).compile(
        kind, name_expressions=("axpy<float>",)
    )
    kernel = module.get_kernel("axpy<float>")
    count = 5000
    x = (np.arange(count) % 13).astype(np.float32)
    y = np.full(count, 3, np.float32)
    buffers = [device.allocate(x.nbytes, stream=stream) for _ in (x, y)]
    from cuda.bindings import driver

    for buffer, array in zip(buffers, (x, y)):
        driver.cuMemcpyHtoD(int(buffer.handle), array.ctypes.data, array.nbytes)
    config = LaunchConfig(grid=20, block=128)
    launch(stream, config, kernel, np.float32(1.5), buffers[0], buffers[1], np.uint64(count))
    stream.sync()
    result = np.empty_like(y)
    driver.cuMemcpyDtoH(result.ctypes.data, int(buffers[1].handle), result.nbytes)
    assert (result == 1.5 * x + y).all()
    print(kind, result[:4], float(result.sum()))
    for buffer in buffers:
        buffer.close(stream)


def main():
    device = Device()
    device.set_current()
    stream = device.create_stream()
    print("compute capability", device.compute_capability)
    for kind in ("ptx", "cubin"):
        run(device, stream, kind)
    stream.close()


main()
