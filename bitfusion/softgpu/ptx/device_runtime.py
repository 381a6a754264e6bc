# SPDX-License-Identifier: Apache-2.0
"""Functions of CUDA's device runtime, in PTX of our own.

NVIDIA's libcudadevrt.a has them on top of entries into its driver. The grid's barrier is enough
for cooperative launches by other compilers than NVIDIA's (numba calls it by these names); the
rest, which launches kernels from kernels, is not there and fails when it is called.
"""

from __future__ import annotations

from .ir import Module

NAMES = frozenset({"cudaCGGetIntrinsicHandle", "cudaCGSynchronize"})

# The handle of the grid is the address of its workspace, whose second word counts arrivals: the
# first block adds so much that the top bit turns when all others have added one. It is 0 where the
# launch is not cooperative; waiting for that is cudaErrorInvalidValue.
_TEXT = """
.version 7.0
.target sm_70
.address_size 64

.visible .func (.param .b64 result) cudaCGGetIntrinsicHandle(.param .b32 scope)
{
    .reg .b32 %low, %high, %scope;
    .reg .b64 %handle;
    .reg .pred %grid;
    ld.param.b32 %scope, [scope];
    mov.u32 %high, %envreg1;
    mov.u32 %low, %envreg2;
    mov.b64 %handle, {%low, %high};
    setp.eq.u32 %grid, %scope, 1;
    selp.b64 %handle, %handle, 0, %grid;
    st.param.b64 [result], %handle;
    ret;
}

.visible .func (.param .b32 result) cudaCGSynchronize(.param .b64 handle, .param .b32 flags)
{
    .reg .b32 %a, %b, %x, %y, %z, %add, %old, %now;
    .reg .b64 %handle;
    .reg .pred %is, %waits;
    ld.param.b64 %handle, [handle];
    setp.eq.u64 %is, %handle, 0;
    @%is bra invalid;
    barrier.sync 0;
    mov.u32 %x, %tid.x;
    mov.u32 %y, %tid.y;
    mov.u32 %z, %tid.z;
    or.b32 %a, %x, %y;
    or.b32 %a, %a, %z;
    setp.ne.u32 %is, %a, 0;
    @%is bra arrived;
    mov.u32 %x, %nctaid.x;
    mov.u32 %y, %nctaid.y;
    mov.u32 %z, %nctaid.z;
    mul.lo.u32 %a, %x, %y;
    mul.lo.u32 %a, %a, %z;
    sub.u32 %add, 0x80000001, %a;
    mov.u32 %x, %ctaid.x;
    mov.u32 %y, %ctaid.y;
    mov.u32 %z, %ctaid.z;
    or.b32 %b, %x, %y;
    or.b32 %b, %b, %z;
    setp.eq.u32 %is, %b, 0;
    selp.b32 %add, %add, 1, %is;
    fence.acq_rel.gpu;
    atom.add.u32 %old, [%handle+4], %add;
wait:
    ld.acquire.gpu.u32 %now, [%handle+4];
    xor.b32 %now, %now, %old;
    setp.ge.s32 %waits, %now, 0;
    @%waits bra wait;
    fence.acq_rel.gpu;
arrived:
    barrier.sync 0;
    st.param.b32 [result], 0;
    ret;
invalid:
    st.param.b32 [result], 1;
    ret;
}
"""


def module() -> Module:
    from .parser import parse

    return parse(_TEXT.encode("ascii"))
