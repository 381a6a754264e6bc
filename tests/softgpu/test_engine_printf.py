# SPDX-License-Identifier: Apache-2.0
"""vprintf: C's formats over packed arguments; and the heap of device-side malloc."""

from __future__ import annotations

import struct
from typing import Any, Iterator, List

import pytest
from engine import Engine, KernelFault

HEAD = ".version 8.5\n.target sm_90\n.address_size 64\n"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(threads=1, heap=1 << 16, printf=1 << 16)
    yield made
    made.close()


PRINT = """
.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.visible .entry k(.param .u64 format, .param .u64 arguments, .param .u64 out)
{
    .reg .b32 %r<4>; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [format];
    ld.param.u64 %rd2, [arguments];
    {
        .param .b64 p0; .param .b64 p1; .param .b32 r0;
        st.param.b64 [p0], %rd1; st.param.b64 [p1], %rd2;
        call.uni (r0), vprintf, (p0, p1);
        ld.param.b32 %r1, [r0];
    }
    ld.param.u64 %rd3, [out];
    st.global.u32 [%rd3], %r1;
    ret;
}
"""


def show(engine: Engine, text: str, layout: str = "", *values: Any) -> str:
    program = engine.load(HEAD + PRINT)
    format_ = engine.buffer(text.encode() + b"\0")
    arguments = engine.buffer(struct.pack(layout, *values) + bytes(8))
    out = engine.buffer(4)
    program.launch("k", 1, 1, format_, arguments, out)
    shown = engine.output()
    assert out.read("i") == (len(shown.encode()),)
    return shown


CASES: List[Any] = [
    ("%d|%i|%u|%x|%X|%o", "iiIIII", (-5, 7, 4000000000, 255, 255, 8)),
    ("%5d|%-5d|%05d|%+d|% d", "iiiii", (42, 42, 42, 42, 42)),
    ("%.3d|%8.3d|%#x|%#o", "iiII", (5, 5, 255, 8)),
    ("%f|%e|%g|%.2f|%10.3f|%-10.1f|", "dddddd", (1.5, 12345.678, 0.0001, 3.14159, 2.5, 9.96)),
    ("%G|%E|%a", "ddd", (1e20, 1e-5, 0.5)),
    ("%f %f %f", "ddd", (float("inf"), float("-inf"), 0.0)),
    ("%c%c%c", "iii", (72, 105, 33)),
    ("100%% of %d%%", "i", (3,)),
    ("no arguments", "", ()),
]


@pytest.mark.parametrize("text, layout, values", CASES, ids=[case[0] for case in CASES])
def test_like_c(engine: Engine, text: str, layout: str, values: Any) -> None:
    import ctypes

    made = ctypes.create_string_buffer(400)
    kinds = {"d": ctypes.c_double, "i": ctypes.c_int, "I": ctypes.c_uint}
    converted = [kinds[k](v) for k, v in zip(layout, values)]
    ctypes.CDLL(None).snprintf(made, ctypes.c_size_t(400), text.encode(), *converted)
    assert show(engine, text, "@" + layout, *values) == made.value.decode()


def test_long_arguments_are_aligned(engine: Engine) -> None:
    shown = show(
        engine, "%d %lld %hd %llx %lu %p", "@iqiQQQ", 1, -(1 << 40), 3, 1 << 63, 5, 0x1234
    )
    assert shown == f"1 {-(1 << 40)} 3 {1 << 63:x} 5 0x1234"


def test_stars(engine: Engine) -> None:
    assert (
        show(engine, "[%*d][%-*d][%.*f]", "@iiiiid", 5, 1, 5, 2, 2, 1.239)
        == "[    1][2    ][1.24]"
    )
    assert show(engine, "[%*d]", "@ii", -4, 7) == "[7   ]"


def test_strings(engine: Engine) -> None:
    text = engine.buffer("grüß\0".encode())
    assert show(engine, "<%s|%.2s|%8s|%-8s>", "@4Q", *[text.address] * 4) == (
        "<grüß|gr|  grüß|grüß  >"
    )
    assert show(engine, "%s", "@Q", 0) == "(null)"
    endless = engine.buffer(b"abc")
    assert show(engine, "%s", "@Q", endless.address) == "abc"


def test_hostile_formats(engine: Engine) -> None:
    assert show(engine, "%d%", "@i", 1) == "1"
    assert show(engine, "%y%d", "@i", 1) == "%y1"
    assert len(show(engine, "%99999999d", "@i", 1)) == 400
    assert len(show(engine, "%.99999999f", "@d", 1.0)) == 402
    assert show(engine, "%n%d", "@i", 4) == "%n4"


def test_format_that_is_nowhere(engine: Engine) -> None:
    program = engine.load(HEAD + PRINT)
    with pytest.raises(KernelFault, match="printf"):
        program.launch("k", 1, 1, 64, 0, engine.buffer(4))


def test_full_buffer_answers_minus_one(engine: Engine) -> None:
    program = engine.load(HEAD + PRINT)
    format_ = engine.buffer(b"x" * 1000 + b"\0")
    out = engine.buffer(4)
    program.launch("k", 100, 1, format_, engine.buffer(8), out)
    assert out.read("i") == (-1,)
    assert len(engine.output()) == 65000


def test_every_lane_and_block_prints_once(engine: Engine) -> None:
    text = """
.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.global .align 1 .b8 fmt[7] = {37, 100, 46, 37, 100, 10, 0};
.visible .entry k()
{
    .local .align 8 .b8 depot[8];
    .reg .b32 %r<4>; .reg .b64 %rd<4>;
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;
    mov.u64 %rd1, depot;
    cvta.local.u64 %rd2, %rd1;
    st.local.v2.u32 [%rd1], {%r1, %r2};
    mov.u64 %rd3, fmt;
    {
        .param .b64 p0; .param .b64 p1; .param .b32 r0;
        st.param.b64 [p0], %rd3; st.param.b64 [p1], %rd2;
        call.uni (r0), vprintf, (p0, p1);
    }
    ret;
}
"""
    engine.load(HEAD + text).launch("k", 9, 40)
    shown = engine.output().split()
    assert sorted(shown) == sorted(f"{b}.{t}" for b in range(9) for t in range(40))


HEAP = """
.extern .func (.param .b64 r) malloc(.param .b64 n);
.extern .func free(.param .b64 p);
.visible .entry k(.param .u64 out, .param .u64 size, .param .u32 release)
{
    .reg .b32 %r<4>; .reg .b64 %rd<8>; .reg .pred %p<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [size];
    mov.u32 %r1, %tid.x;
    mad.lo.u32 %r1, %ctaid.x, %ntid.x, %r1;
    mad.wide.u32 %rd3, %r1, 8, %rd1;
    {
        .param .b64 p0; .param .b64 r0;
        st.param.b64 [p0], %rd2;
        call.uni (r0), malloc, (p0);
        ld.param.b64 %rd4, [r0];
    }
    st.global.u64 [%rd3], %rd4;
    setp.eq.u64 %p1, %rd4, 0;
    @%p1 ret;
    st.u32 [%rd4], %r1;
    ld.param.u32 %r2, [release];
    setp.eq.u32 %p1, %r2, 0;
    @%p1 ret;
    {
        .param .b64 p0;
        st.param.b64 [p0], %rd4;
        call.uni free, (p0);
    }
    ret;
}
"""


def test_malloc(engine: Engine) -> None:
    program = engine.load(HEAD + HEAP)
    out = engine.buffer(8 * 80)
    for _ in range(100):
        program.launch("k", 2, 40, out, 100, 1)
    program.launch("k", 2, 40, out, 100, 0)
    addresses = sorted(out.read("Q"))
    assert all(b - a >= 100 and a % 16 == 0 for a, b in zip(addresses, addresses[1:]))
    program.launch("k", 1, 1, out, 1 << 20, 0)
    assert out.read("Q")[0] == 0


def test_free_of_something_else(engine: Engine) -> None:
    text = HEAP.replace("call.uni (r0), malloc, (p0);", "").replace(
        "ld.param.b64 %rd4, [r0];", "mov.u64 %rd4, %rd1;"
    )
    with pytest.raises(KernelFault, match="free of"):
        engine.load(HEAD + text).launch("k", 1, 1, engine.buffer(64), 1, 1)
