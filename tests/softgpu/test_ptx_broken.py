# SPDX-License-Identifier: Apache-2.0
"""Code that no assembler would take is refused when it is loaded, with its line and the reason."""

from __future__ import annotations

import pytest
from forms import HEAD
from test_ptx_coverage import kernel

from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.ptx.frontend import read_image
from bitfusion.softgpu.ptx.ir import MAX_MESSAGE, PtxError

REGISTERS = ".reg .u16 h; .reg .f16 e; .reg .b32 r, q; .reg .s32 s; .reg .f32 f; .reg .b64 d; "
REGISTERS += ".reg .f64 g; .reg .pred p;"
INVALID_PTX, UNSUPPORTED_PTX_VERSION = 218, 222


def load(line: str, target: str = "sm_120") -> None:
    head = HEAD.replace("sm_120", target)
    text = f"{head}.visible .entry k() {{\n{REGISTERS}\n{line}\nret;\n}}\n"
    encode_module(read_image(text.encode()))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("add.u32 r, q;", "it has 2 operands, not 3"),
        ("add.u32 r, q, q, q;", "it has 4 operands, not 3"),
        ("mov.u32 r, q, q;", "it has 3 operands, not 2"),
        ("mov.u32 r;", "it has 1 operands, not 2"),
        ("ld.global.u32 r;", "it has 1 operands, not 2"),
        ("st.global.u32 [d], r, q;", "it has 3 operands, not 2"),
        ("add.u32 r, q, f;", "operand 3 is a register of type .f32"),
        ("add.u32 r, d, q;", "operand 2 is a register of type .b64"),
        ("add.u32 r, q, p;", "operand 3 is a register of type .pred"),
        ("add.f32 f, f, s;", "operand 3 is a register of type .s32"),
        ("add.f32 f, f, 1;", "operand 3 is an integer"),
        ("add.u32 r, q, 1.5;", "operand 3 is a float"),
        ("add.f16 e, e, 0f3F800000;", "operand 3 is a float"),
        ("mul.wide.u32 r, q, q;", "operand 1 is a register of type .b32"),
        ("cvt.u32.f32 r, s;", "operand 2 is a register of type .s32"),
        ("setp.lt.s32 r, r, q;", "operand 1 is a register of type .b32"),
        ("selp.u32 r, q, q, r;", "operand 4 is a register of type .b32"),
        ("st.global.u32 [d], f;", "operand 2 is a register of type .f32"),
        ("st.global.u64 [d], r;", "operand 2 is a register of type .b32"),
        ("ld.global.u32 f, [d];", "operand 1 is a register of type .f32"),
        ("add.u32 7, q, q;", "operand 1 is no register"),
        ("ld.global.u32 r, d;", "not an address"),
        ("mov.b32 r, {q, q};", ""),
        ("add.f16x2 r, q, s;", "operand 3 is a register of type .s32"),
        ("ld.global.u32 r, [f];", "operand 2 has its address in a register of type .f32"),
        ("atom.global.add.u32 r, [p], 1;", "operand 2 has its address in a register of type"),
        ("bra NOWHERE;", ""),
        ("bra q;", "unknown label 'q'"),
        ("add.u32 r, q, missing;", "unknown name 'missing'"),
        ("add.u32 r, q, %missing;", "unknown register '%missing'"),
        ("add.foo.u32 r, q, q;", ""),
        ("frobnicate.u32 r, q, q;", ""),
        ("shfl.sync.bfly.b32 r, q;", ""),
        ("atom.global.add.u32 r, [d];", ""),
        ("bar.sync;", ""),
        ("@p mad.lo.s32 r, s, q;", "it has 3 operands, not 4"),
        ("mov.u32 r, 99999999999999999999;", "has more than 64 bits"),
        ("mov.u64 d, 18446744073709551616;", "has more than 64 bits"),
        ("mov.u64 d, 0x10000000000000000;", "has more than 64 bits"),
        ("mov.u64 d, 02000000000000000000000;", "has more than 64 bits"),
        (f"mov.u64 d, 0b1{'0' * 64};", "has more than 64 bits"),
        ("mov.u64 d, %tid.x;", "operand 2 is a register of type .u32"),
        ("mov.u64 d, %laneid;", "operand 2 is a register of type .u32"),
        ("mov.u32 r, %clock64;", "operand 2 is a register of type .u64"),
        ("mov.u32 r, %pm0_64;", "operand 2 is a register of type .u64"),
        ("mov.f32 f, %tid.x;", "operand 2 is a register of type .u32"),
        ("mov.u16 h, %laneid;", "operand 2 is a register of type .u32"),
        ("cvt.u64.u64 d, %tid.x;", "operand 2 is a register of type .u32"),
        ("mov.u32 r, %is_explicit_cluster;", "operand 2 is a register of type .pred"),
        ("mov.u32 r, %envreg32;", "unknown register '%envreg32'"),
        ("mov.u32 r, %pm8;", "unknown register '%pm8'"),
        ("mov.u32 r, %reserved_smem_offset_2;", "unknown register"),
        ("mov.u32 r, %lanemask_all;", "unknown register"),
    ],
)
def test_broken_code_is_refused_with_its_line(line: str, why: str) -> None:
    with pytest.raises(PtxError) as caught:
        load(line)
    assert caught.value.status == INVALID_PTX
    assert str(caught.value).startswith("line 6: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mov.u32 r, 1\n\tmov.u32 q, 2;", "bad operand '1 mov.u32 q' (is a ';' missing there?)"),
        ("mov.u32 r, q\n", "bad operand 'q ret' (is a ';' missing there?)"),
        ("mov.u32 r, 1\n}", "bad operand '1 } ret' (is a ';' missing there?)"),
        ("bra A\nB;", "unknown label 'A B'"),
    ],
)
def test_what_messages_quote_does_not_break_their_line(text: str, message: str) -> None:
    with pytest.raises(PtxError) as caught:
        load(text)
    assert str(caught.value).partition(": ")[2] == message


@pytest.mark.parametrize("version", ["0.0", "1.9", "5.9", "9.10", "10.0"])
def test_versions_that_there_are_not(version: str) -> None:
    text = HEAD.replace(".version 9.0", f".version {version}")
    assert version in text
    with pytest.raises(PtxError) as caught:
        read_image(text.encode())
    assert caught.value.status == UNSUPPORTED_PTX_VERSION


def test_messages_have_an_end() -> None:
    with pytest.raises(PtxError) as caught:
        load(f"call {'f' * 5000};")
    assert str(caught.value).startswith("line 6: unknown name 'ffff")
    assert len(str(caught.value)) <= MAX_MESSAGE
    assert len(str(PtxError("m" * 10**6))) == MAX_MESSAGE
    assert str(PtxError("a\x1b[31m\0b\xe9\r\n c")) == "a?[31m?b? c"


@pytest.mark.parametrize(
    "line",
    [
        "add.u32 r, s, q;",
        "add.f32 f, f, q;",
        "add.f32 f, f, 1.5;",
        "mov.b32 r, f;",
        "mov.b32 f, 0f3F800000;",
        "cvt.u64.u32 d, s;",
        "cvt.s32.s8 s, q;",
        "ld.global.u8 d, [d];",
        "st.global.u8 [d], d;",
        "ld.global.b32 f, [d];",
        "setp.lt.s32 p|_, s, 3;",
        "selp.f32 f, f, 0f00000000, p;",
        "shl.b64 d, d, s;",
        "and.pred p, p, p;",
        "min.f32 f, f, f, f;",
        "mov.u64 d, 0xFFFFFFFFFFFFFFFF;",
        "mov.u64 d, 00000000000000000000000000001;",
        "mov.u16 h, %nctaid.y;",
        "mov.s32 s, %tid.r;",
        "mov.u64 d, %gridid;",
        "mov.u32 r, %gridid;",
        "mov.b64 d, %globaltimer;",
        "cvt.u64.u32 d, %laneid;",
        "cvt.u32.u64 r, %clock64;",
        "mov.u32 r, %envreg31;",
        "mov.u32 r, %reserved_smem_offset_cap;",
    ],
)
def test_types_that_fit(line: str) -> None:
    load(line)


def test_what_single_architectures_have_fails_only_when_it_runs() -> None:
    load("wgmma.fence.sync.aligned;", "sm_90a")
    load("brandnew.sync.aligned;", "sm_121a")
    load("tensormap.replace.tile.global_dim.global.b1024.b32 [d], 0, r;", "sm_90a")


def test_a_broken_instruction_of_many_names_its_line() -> None:
    lines = ["add.u32 r0, r1, r2;"] * 500
    lines[417] = "add.u32 r0, r1, d2;"
    text = kernel(lines)
    wanted = text[: text.index("add.u32 r0, r1, d2;")].count("\n") + 1
    with pytest.raises(PtxError, match=rf"^line {wanted}: 'add.u32': operand 3 is a register"):
        encode_module(read_image(text.encode()))


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (".reqntid 0", "is not a positive number"),
        (".reqntid 32, 0", "is not a positive number"),
        (".maxntid -1", "has 0 numbers"),
        (".maxnreg 4294967296", "is not a positive number"),
        (".minnctapersm 0", "is not a positive number"),
        (".maxntid 1, 1, 1, 1", "has 4 numbers"),
        (".maxnreg", "has 0 numbers"),
        (".reqntid 4 .maxntid 5", "both .maxntid and .reqntid"),
    ],
)
def test_bounds_that_no_kernel_has(bounds: str, why: str) -> None:
    with pytest.raises(PtxError, match=why) as caught:
        read_image(f"{HEAD}.visible .entry k() {bounds} {{ ret; }}".encode())
    assert caught.value.status == INVALID_PTX and str(caught.value).startswith("line 4: ")


def test_words_of_later_versions_fail_only_when_they_run() -> None:
    text = f"{HEAD}.visible .entry k() {{ .reg .b32 r; add.later.u32 r, r, r; ret; }}"
    encode_module(read_image(text.replace(".version 9.0", ".version 9.3").encode()))
    with pytest.raises(PtxError, match="add.later.u32"):
        encode_module(read_image(text.encode()))


@pytest.mark.parametrize("target", ["sm_200", "sm_122", "sm_130a", "foo", "compute_90"])
def test_targets_that_are_not_known(target: str) -> None:
    with pytest.raises(PtxError, match=target) as caught:
        load("ret;", target)
    assert caught.value.status == INVALID_PTX
