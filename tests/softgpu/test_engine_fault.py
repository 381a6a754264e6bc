# SPDX-License-Identifier: Apache-2.0
"""Kernels that go wrong: each gives CUDA's error and a line that says where; nothing hangs."""

from __future__ import annotations

import ctypes
import threading
from typing import Iterator, Tuple

import pytest
from engine import Engine, ImageError, KernelFault, library

from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.ptx.frontend import read_image

HEAD = ".version 8.5\n.target sm_90\n.address_size 64\n"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(threads=2)
    yield made
    made.close()


def entry(body: str, extra: str = "") -> str:
    return f"""{HEAD}{extra}
.visible .entry k(.param .u64 out)
{{
    .reg .pred %p<10>; .reg .b32 %r<40>; .reg .b64 %rd<20>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    {body}
    ret;
}}
"""


def fault_of(
    engine: Engine, body: str, extra: str = "", size: int = 64, blocks: int = 2
) -> KernelFault:
    program = engine.load(entry(body, extra))
    with pytest.raises(KernelFault) as caught:
        program.launch("k", blocks, 40, engine.buffer(size))
    return caught.value


MEMORY = {
    "load past the end": ("ld.global.u32 %r2, [%rd1+64];", 700, "ld.global.u32"),
    "load before the start": ("ld.global.u8 %r2, [%rd1+-1];", 700, "no global memory"),
    "load over the end": ("ld.global.v2.u32 {%r2, %r3}, [%rd1+64];", 700, "8 bytes"),
    "generic load of nothing": ("mov.u64 %rd2, 0; ld.u32 %r2, [%rd2];", 700, "0x0"),
    "store past the end": ("st.global.u64 [%rd1+64], %rd1;", 700, "st.global.u64"),
    "atomic past the end": ("atom.global.add.u32 %r2, [%rd1+64], 1;", 700, "atom.global.add.u32"),
    "unaligned load": ("ld.global.u32 %r2, [%rd1+2];", 716, "not aligned to 4"),
    "unaligned vector": ("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1+8];", 716, "aligned to 16"),
    "unaligned atomic": ("red.global.add.u64 [%rd1+4], %rd1;", 716, "not aligned to 8"),
    "shared without any": ("mov.u32 %r2, 0; ld.shared.u32 %r3, [%r2];", 700, "no shared memory"),
    "unaligned shared": ("mov.u32 %r2, 1; ld.shared.u32 %r3, [%r2];", 716, "shared address 0x1"),
    "local": ("mov.u64 %rd2, 100000; st.local.u32 [%rd2], %r1;", 700, "no local memory"),
    "shared window": (
        "mov.u32 %r2, 4000000; cvt.u64.u32 %rd2, %r2; cvta.shared.u64 %rd3, %rd2;"
        " ld.u32 %r3, [%rd3];",
        700,
        "no memory at",
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_faults(engine: Engine, name: str) -> None:
    body, error, text = MEMORY[name]
    fault = fault_of(engine, body)
    assert fault.error == error
    assert text in fault.text
    assert "kernel 'k', block (" in fault.text


def test_the_thread_is_named(engine: Engine) -> None:
    fault = fault_of(
        engine,
        """
        mul.wide.u32 %rd2, %r1, 4;
        add.u64 %rd3, %rd1, %rd2;
        st.global.u32 [%rd3], %r1;
    """,
        size=80,
    )
    assert "thread (20,0,0)" in fault.text
    assert "PTX line 13" in fault.text


def test_other_lanes_have_no_part_in_a_fault(engine: Engine) -> None:
    """Lanes whose predicate is false may hold any address."""
    program = engine.load(
        entry("""
        setp.lt.u32 %p1, %r1, 4;
        mul.wide.u32 %rd2, %r1, 4;
        add.u64 %rd3, %rd1, %rd2;
        @!%p1 mov.u64 %rd3, 3;
        @%p1 st.global.u32 [%rd3], %r1;
    """)
    )
    out = engine.buffer(16)
    program.launch("k", 1, 40, out)
    assert out.read("I") == (0, 1, 2, 3)


def test_freed_memory(engine: Engine) -> None:
    program = engine.load(entry("ld.global.u32 %r2, [%rd1];"))
    out = engine.buffer(64)
    program.launch("k", 1, 1, out)
    out.free()
    with pytest.raises(KernelFault, match="no global memory"):
        program.launch("k", 1, 1, out)


def test_unknown_instruction_loads_and_faults_when_run(engine: Engine) -> None:
    text = entry("""
        setp.eq.u32 %p1, %r1, 99;
        @%p1 tensormap.replace.b32 %r2, %r1, 7;
        st.global.u32 [%rd1], %r1;
    """)
    out = engine.buffer(64)
    engine.load(text).launch("k", 1, 1, out)
    with pytest.raises(KernelFault) as caught:
        engine.load(text.replace("99", "0")).launch("k", 1, 1, out)
    assert caught.value.error == 715
    assert "tensormap.replace.b32" in caught.value.text
    assert "only single architectures and families have it" in caught.value.text


def test_unknown_function_faults_when_called(engine: Engine) -> None:
    fault = fault_of(
        engine,
        "{ .param .b32 r0; call.uni (r0), cudaDeviceSynchronize; }",
        ".extern .func (.param .b32 r) cudaDeviceSynchronize;",
    )
    assert fault.error == 715
    assert "cudaDeviceSynchronize" in fault.text


@pytest.mark.parametrize("name", ["cudaLaunchDeviceV2", "__cudaCDP2LaunchDeviceV2"])
def test_a_kernel_that_launches_kernels_is_told_so(engine: Engine, name: str) -> None:
    extern = f".extern .func (.param .b32 r) {name};"
    fault = fault_of(engine, f"{{ .param .b32 r0; call.uni (r0), {name}; }}", extern)
    assert f"'{name}': kernels cannot launch kernels on the software GPU" in fault.text


def test_trap(engine: Engine) -> None:
    assert fault_of(engine, "trap;").error == 719


ASSERT = """
.extern .func __assertfail(
    .param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
.global .align 1 .b8 message[6] = {120, 32, 62, 32, 48, 0};
.global .align 1 .b8 file[5] = {97, 46, 99, 117, 0};
.global .align 1 .b8 name[2] = {102, 0};
"""


FAIL = """
        mov.u64 %rd2, message; mov.u64 %rd3, file; mov.u64 %rd4, name;
        {
            .param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4;
            st.param.b64 [p0], %rd2; st.param.b64 [p1], %rd3; st.param.b32 [p2], 12;
            st.param.b64 [p3], %rd4; st.param.b64 [p4], 1;
            call.uni __assertfail, (p0, p1, p2, p3, p4);
        }
"""


def test_assertion(engine: Engine) -> None:
    fault = fault_of(engine, "setp.ne.u32 %p1, %r1, 33; @%p1 ret;" + FAIL, ASSERT, blocks=1)
    assert fault.error == 710
    assert "thread (33,0,0)" in fault.text
    assert engine.assertions() == [
        "a.cu:12: f: block: [0,0,0], thread: [33,0,0] Assertion `x > 0` failed."
    ]
    assert engine.output() == ""


def test_every_thread_whose_assertion_fails_says_so(engine: Engine) -> None:
    """Those of other warps too, and nobody waits for one that spins, or for those that failed."""
    body = "setp.gt.u32 %p1, %r1, 34; LOOP: @%p1 bra LOOP; setp.lt.u32 %p1, %r1, 29; @%p1 ret;"
    fault = fault_of(engine, body + FAIL, ASSERT, blocks=1)
    assert fault.error == 710
    assert "thread (29,0,0)" in fault.text
    threads = [line.split("thread: [")[1].split(",")[0] for line in engine.assertions()]
    assert sorted(threads) == ["29", "30", "31", "32", "33", "34"]
    body = "setp.gt.u32 %p1, %r1, 32; @%p1 bra WAIT;" + FAIL + "WAIT: bar.sync 0;"
    assert fault_of(engine, body, ASSERT, blocks=1).error == 710
    assert len(engine.assertions()) == 33


def test_endless_recursion(engine: Engine) -> None:
    function = """
.func f(.param .b32 n)
{
    .reg .b32 %a<3>;
    ld.param.u32 %a1, [n];
    { .param .b32 p0; st.param.b32 [p0], %a1; call.uni f, (p0); }
    ret;
}
"""
    fault = fault_of(engine, "{ .param .b32 p0; st.param.b32 [p0], %r1; call f, (p0); }", function)
    assert fault.error == 714
    assert "stack" in fault.text


def test_call_of_no_function(engine: Engine) -> None:
    fault = fault_of(engine, "P: .callprototype _ (); mov.u64 %rd2, 4096; call %rd2, (), P;")
    assert fault.error == 718


def test_switch_without_target(engine: Engine) -> None:
    fault = fault_of(engine, "A: TS: .branchtargets A; mov.u32 %r2, 3; brx.idx %r2, TS;")
    assert fault.error == 718


def test_deadlock_at_a_barrier(engine: Engine) -> None:
    fault = fault_of(engine, "setp.lt.u32 %p1, %r1, 5; @%p1 bar.sync 1, 64;")
    assert fault.error == 702
    assert "deadlock" in fault.text


@pytest.mark.parametrize("blocks", [1, 40])
def test_endless_loop_is_cancelled(engine: Engine, blocks: int) -> None:
    program = engine.load(entry("LOOP: add.u32 %r1, %r1, 1; bra LOOP;"))
    cancel = ctypes.c_int(0)
    timer = threading.Timer(0.2, lambda: setattr(cancel, "value", 1))
    timer.start()
    with pytest.raises(KernelFault) as caught:
        program.launch("k", blocks, 64, engine.buffer(8), cancel=cancel)
    assert caught.value.error == 702


def test_launches_go_on_after_a_fault(engine: Engine) -> None:
    program = engine.load(entry("ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd1+4], %r2;"))
    with pytest.raises(KernelFault):
        program.launch("k", 100, 64, engine.buffer(1))
    out = engine.values("I", [5, 0])
    program.launch("k", 100, 64, out)
    assert out.read("I") == (5, 5)


def test_empty_and_large_launches_are_refused(engine: Engine) -> None:
    program = engine.load(entry(""))
    for grid, block in ((0, 1), (1, 0), (1, 1025), (1, (32, 32, 2))):
        with pytest.raises(KernelFault) as caught:
            program.launch("k", grid, block, engine.buffer(8))
        assert caught.value.error == 1


def of_another_version(image: bytes) -> bytes:
    return image[:8] + bytes([image[8] ^ 1]) + image[9:]


def test_damaged_images_are_refused(engine: Engine) -> None:
    image = encode_module(read_image(entry("bar.sync 0;").encode()))
    for bad in (b"", image[:40], image[:-8], b"X" + image[1:], of_another_version(image)):
        with pytest.raises(ImageError):
            engine.load_image(bad)
    assert library().sg_image_version() == int.from_bytes(image[8:16], "little")


def cluster_kernel(directive: str = "") -> str:
    return f"""{HEAD}
.visible .entry k(.param .u64 out)
{directive}
{{
    .reg .b32 %r<4>; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %cluster_nctarank;
    st.global.u32 [%rd1], %r1;
    ret;
}}
"""


@pytest.mark.parametrize("cluster", [(3, 1, 1), (1, 1, 2), (0xFFFFFFFF, 0xFFFFFFFF, 1), (8, 1, 1)])
def test_clusters_that_the_grid_does_not_hold_are_refused(
    engine: Engine, cluster: Tuple[int, int, int]
) -> None:
    out = engine.values("I", [7])
    with pytest.raises(KernelFault) as caught:
        engine.load(cluster_kernel("")).launch("k", 4, 1, out, cluster=cluster)
    assert caught.value.error == 912
    assert "kernel 'k'" in caught.value.text and "cluster" in caught.value.text
    assert out.read("I") == (7,)


@pytest.mark.parametrize(
    ("directive", "cluster", "size"),
    [
        ("", (0, 0, 0), 1),
        ("", (1, 1, 1), 1),
        ("", (2, 1, 1), 2),
        (".reqnctapercluster 1", (1, 1, 1), 1),
        (".reqnctapercluster 2", (0, 0, 0), 2),
        (".reqnctapercluster 4, 1, 1", (0, 0, 0), 4),
    ],
)
def test_sizes_of_clusters(
    engine: Engine, directive: str, cluster: Tuple[int, int, int], size: int
) -> None:
    out = engine.values("I", [7])
    engine.load(cluster_kernel(directive)).launch("k", 4, 1, out, cluster=cluster)
    assert out.read("I") == (size,)
