# SPDX-License-Identifier: Apache-2.0
"""Adds two vectors: CUDA's driver API by ctypes, the kernel as PTX."""

import ctypes

PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry add(.param .u64 pa, .param .u64 pb, .param .u32 pn)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [pa];
    ld.param.u64 %rd2, [pb];
    ld.param.u32 %r1, [pn];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p ret;
    mul.wide.u32 %rd3, %r5, 4;
    add.u64 %rd4, %rd1, %rd3;
    add.u64 %rd5, %rd2, %rd3;
    ld.global.f32 %f1, [%rd4];
    ld.global.f32 %f2, [%rd5];
    add.f32 %f1, %f1, %f2;
    st.global.f32 [%rd4], %f1;
    ret;
}
"""
N = 1000
cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    status = getattr(cuda, name)(*arguments)
    assert status == 0, f"{name} answered {status}"


def upload(values):
    data, pointer = (ctypes.c_float * N)(*values), ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(4 * N))
    call("cuMemcpyHtoD_v2", pointer, data, ctypes.c_size_t(4 * N))
    return pointer


context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
name = ctypes.create_string_buffer(100)
call("cuInit", 0)
call("cuDeviceGetName", name, 100, 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
call("cuCtxSetCurrent", context)
call("cuModuleLoadData", ctypes.byref(module), PTX)
call("cuModuleGetFunction", ctypes.byref(function), module, b"add")
a, b, n = upload(range(N)), upload(2 * i for i in range(N)), ctypes.c_uint32(N)
parameters = (ctypes.c_void_p * 3)(*[ctypes.addressof(each) for each in (a, b, n)])
call("cuLaunchKernel", function, (N + 127) // 128, 1, 1, 128, 1, 1, 0, None, parameters, None)
result = (ctypes.c_float * N)()
call("cuMemcpyDtoH_v2", result, a, ctypes.c_size_t(4 * N))
assert list(result) == [3.0 * i for i in range(N)]
print(f"{N} sums on {name.value.decode()}: right")
