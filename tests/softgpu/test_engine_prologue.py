# SPDX-License-Identifier: Apache-2.0
"""What all blocks share is computed once: results are those of code in its own order.

One thread runs the blocks, so all of them but the first find its registers.
"""

from __future__ import annotations

import random
from typing import List

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, Machine, Program, machine, zeros

from bitfusion.softgpu.engine.encode import ModuleEncoder
from bitfusion.softgpu.engine.function import FunctionEncoder
from bitfusion.softgpu.ptx.frontend import read_image
from bitfusion.softgpu.ptx.ir import Function

ALONE = Machine(1)


class InOrder(ModuleEncoder):
    """An encoder that moves nothing: what the other one is held against."""

    def _function(self, function: Function, in_order: bool = False) -> FunctionEncoder:
        return super()._function(function, True)


def entry(body: str, parameters: str = ".param .u64 out, .param .u32 n") -> str:
    return f"""{HEAD}.visible .entry k({parameters}) {{
        .reg .b64 o, x, y; .reg .b32 r<32>; .reg .pred p<8>; .reg .b128 w; {body} }}"""


# Where thread and block write: x.
PLACE = """ld.param.u64 o, [out]; mov.u32 r29, %ctaid.x; mov.u32 r30, %ntid.x; mov.u32 r31, %tid.x;
    mad.lo.u32 r31, r29, r30, r31; mul.wide.u32 x, r31, 4; add.u64 x, x, o;"""


def run(body: str, n: int = 5, blocks: int = 7, threads: int = 40) -> numpy.ndarray:
    out = zeros(blocks * threads, "u4")
    ALONE.compile(entry(body)).launch("k", blocks, threads, out, n)
    return out.reshape(blocks, threads)


def prologue(text: str) -> int:
    module = read_image(text.encode())
    return ModuleEncoder(module)._function(module.functions["k"]).prologue


def test_the_start_of_a_kernel_is_moved() -> None:
    """Two parameters, the copy of one, a product, a comparison; not what depends on the block."""
    body = f"""{PLACE} ld.param.u32 r1, [n]; mov.u32 r2, r1; mul.lo.u32 r3, r2, 3;
        mov.u32 r4, %tid.x; setp.lt.u32 p1, r4, r3; selp.u32 r5, r3, r4, p1;
        add.u32 r6, r5, r29; st.global.u32 [x], r6; ret;"""
    assert prologue(entry(body)) == 6  # two ld.param, mov, mul, setp, selp
    wanted = [[(15 if t < 15 else t) + b for t in range(40)] for b in range(7)]
    assert run(body).tolist() == wanted


def test_registers_that_are_written_again_begin_anew_in_each_block() -> None:
    again = f"{PLACE} ld.param.u32 r1, [n]; mov.u32 r2, r1; L: add.u32 r2, r2, 1; "
    again += "setp.lt.u32 p1, r2, 9; @p1 bra L; add.u32 r1, r1, r2; st.global.u32 [x], r1; ret;"
    assert (run(again) == 14).all()
    some = f"""{PLACE} mov.u32 r4, %tid.x; setp.lt.u32 p1, r4, 20; mov.u32 r1, 3;
        @p1 mov.u32 r1, r29; st.global.u32 [x], r1; ret;"""
    assert run(some).tolist() == [[b] * 20 + [3] * 20 for b in range(7)]


def test_a_label_in_front_and_a_loop_around_everything() -> None:
    body = f"""AGAIN: {PLACE} ld.param.u32 r1, [n]; shl.b32 r2, r1, 2; ld.global.u32 r3, [x];
        add.u32 r3, r3, r2; st.global.u32 [x], r3; setp.lt.u32 p1, r3, 100; @p1 bra AGAIN; ret;"""
    assert (run(body) == 100).all()


def test_blocks_have_their_own_special_registers() -> None:
    """Copies are read in every way: as addresses, values, in vectors, by calls and atomics."""
    text = f"""{HEAD}.func (.param .b32 r) twice(.param .b32 a) {{ .reg .b32 v;
        ld.param.b32 v, [a]; add.u32 v, v, v; st.param.b32 [r], v; ret; }}
    .visible .entry k(.param .u64 out) {{ .reg .b64 o, x; .reg .b32 r<9>; .shared .b32 s[32];
        ld.param.u64 o, [out]; mov.u32 r1, %ctaid.x; mov.u32 r2, %ctaid.y; mov.u32 r3, %nctaid.x;
        mov.u32 r8, %laneid; mad.lo.u32 r4, r2, r3, r1; mul.wide.u32 x, r4, 32; add.u64 o, o, x;
        {{ .param .b32 a; .param .b32 r; st.param.b32 [a], r1; call (r), twice, (a);
           ld.param.b32 r5, [r]; }}
        atom.global.add.u32 r6, [o+20], r2; st.global.v4.u32 [o], {{r1, r2, r3, r5}};
        st.shared.b32 [s], r1; ld.shared.b32 r7, [s]; st.global.u32 [o+16], r7; ret; }}"""
    out = zeros(6 * 8, "u4")
    ALONE.compile(text).launch("k", (3, 2), 1, out)
    wanted = [[x, y, 3, 2 * x, x, y, 0, 0] for y in range(2) for x in range(3)]
    assert out.reshape(6, 8).tolist() == wanted


def test_what_changes_is_read_each_time() -> None:
    body = f"{PLACE} mov.u32 r1, %clock; mov.u32 r2, %globaltimer_lo; xor.b32 r1, r1, r2; "
    clocks = run(f"{body} mov.u64 y, %clock64; cvt.u32.u64 r3, y; st.global.u32 [x], r3; ret;")
    assert len(set(clocks[:, 0].tolist())) > 1


def test_the_carry_is_each_thread_s_own() -> None:
    body = f"""{PLACE} ld.param.u32 r1, [n]; add.cc.u32 r2, r1, 0xFFFFFFFF; addc.u32 r3, r1, 0;
        sub.cc.u32 r4, r29, 3; subc.u32 r5, r1, 0; mad.lo.u32 r3, r3, 100, r5;
        st.global.u32 [x], r3; ret;"""
    assert run(body)[:, 0].tolist() == [600 + 5 - (b < 3) for b in range(7)]


def test_an_unknown_instruction_faults_only_where_it_is_reached() -> None:
    body = f"""{PLACE} ld.param.u32 r1, [n]; setp.eq.u32 p1, r1, 5; @p1 bra OVER;
        mul.rn.lo.u32 r2, r1, r1; OVER: st.global.u32 [x], r1; ret;"""
    assert (run(body) == 5).all()
    with pytest.raises(DeviceFault, match=r"mul\.rn\.lo\.u32"):
        run(body, 6)


def random_kernel(random_: random.Random) -> str:
    """Some registers are written once, some often; blocks, threads and parameters go in."""
    verbs = ["add.u32", "sub.u32", "xor.b32", "mul.lo.u32", "and.b32", "min.s32", "shl.b32"]
    specials = ["%tid.x", "%ntid.x", "%ctaid.x", "%nctaid.x", "%laneid", "%ctaid.y", "%warpid"]
    lines: List[str] = [f"mov.u32 r0, {random_.choice(specials)};", "ld.param.u32 r1, [n];"]
    inside = ["r26", "r27", "r28"]  # for what only some threads compute
    for number in range(random_.randrange(10, 40)):
        guard = random_.choice(["", "", "", "@p1 ", "@!p2 "])
        often = f"r{random_.randrange(2, 12)}"
        to = often if guard or random_.random() < 0.5 else f"r{12 + number % 14}"
        a, b = (f"r{random_.randrange(26)}" for _ in range(2))
        kind = random_.random()
        if kind < 0.15:
            lines.append(f"{guard}mov.u32 {to}, {random_.choice(specials)};")
        elif kind < 0.25:
            lines.append(f"{guard}ld.param.u32 {to}, [n];")
        elif kind < 0.4:
            lines.append(f"{guard}setp.lt.u32 p{random_.choice('1234')}, {a}, {b};")
        elif kind < 0.5 and inside:
            own = inside.pop()
            lines.append(f"@p{random_.choice('1234')} bra L{number}; add.u32 {own}, {a}, r1;")
            lines.append(f"xor.b32 {often}, {b}, {own}; L{number}:")
        else:
            lines.append(f"{guard}{random_.choice(verbs)} {to}, {a}, {b};")
    lines += [f"xor.b32 r0, r0, r{k}; mul.lo.u32 r0, r0, 77;" for k in range(1, 26)]
    # what a block leaves uninitialised may be another one's: each begins by writing everything
    begin = " ".join(f"mov.b32 r{k}, r31;" for k in range(2, 12))
    begin += " ".join(f"setp.gt.u32 p{k}, r31, {7 * k};" for k in range(1, 5))
    return entry(f"{PLACE} {begin} {' '.join(lines)} st.global.u32 [x], r0; ret;")


def defined(text: str) -> str:
    """The same without reading what was never written in this block: 0 is written first."""
    module = read_image(text.encode())
    function = module.functions["k"]
    seen = {name for name, kind in function.registers.items() if kind == "b64"}
    unwritten = []
    for one in function.body or []:
        for operand in one.operands[1:]:
            name = getattr(operand, "name", "")
            if name in function.registers and name not in seen:
                unwritten.append(name)
        if one.predicate is not None or "bra" in one.opcode:
            continue
        seen.add(getattr(one.operands[0], "name", "") if one.operands else "")
    return text.replace("ld.param.u64 o", " ".join(
        f"mov.b32 {name}, 0;" for name in dict.fromkeys(unwritten) if name[:1] == "r"
    ) + " ld.param.u64 o", 1)  # fmt: skip


def test_random_kernels_give_what_they_give_in_order() -> None:
    random_ = random.Random(11)
    moved = 0
    for _ in range(60):
        text = defined(random_kernel(random_))
        module = read_image(text.encode())
        results = []
        for encoder in (ModuleEncoder, InOrder):
            out = zeros(7 * 40, "u4")
            Program(ALONE, encoder(module).encode()).launch("k", 7, 40, out, 21)
            results.append(out)
        moved += prologue(text)
        assert (results[0] == results[1]).all(), text
    assert moved > 300  # it is moved code that was compared


def test_several_threads_and_clusters() -> None:
    body = (
        f"{PLACE} ld.param.u32 r1, [n]; mad.lo.u32 r2, r1, 1000, r31; st.global.u32 [x], r2; ret;"
    )
    out = zeros(512 * 64, "u4")
    for cluster in ((0, 0, 0), (4, 1, 1)):
        out[:] = 0
        machine().compile(entry(body)).launch("k", 512, 64, out, 9, cluster=cluster)
        assert (out == numpy.arange(512 * 64) + 9000).all()
