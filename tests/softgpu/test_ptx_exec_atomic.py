# SPDX-License-Identifier: Apache-2.0
"""Atomics: what one does, and that many at once lose nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import Callable, Dict, List, Tuple

import numpy
import pytest
import softfloat
from forms import HEAD, bits_of, edges, signed
from machine import array, machine, zeros
from softfloat import FORMATS

_DTYPES = {16: "u2", 32: "u4", 64: "u8"}
Operation = Callable[[int, int], int]


def _float_add(name: str) -> Operation:
    f = FORMATS[name]
    return lambda old, b: softfloat.add(f, old, b)


def _pair_add(name: str) -> Operation:
    f = FORMATS[name]

    def add(old: int, b: int) -> int:
        low = softfloat.add(f, old & 0xFFFF, b & 0xFFFF)
        return low | softfloat.add(f, old >> 16, b >> 16) << 16

    return add


def _chosen(kind: str, largest: bool) -> Operation:
    size = bits_of(kind)

    def value(x: int) -> int:
        return signed(x, size) if kind[0] == "s" else x

    return lambda old, b: max(old, b, key=value) if largest else min(old, b, key=value)


OPERATIONS: Dict[str, Tuple[str, Operation]] = {
    "exch.b32": ("b32", lambda old, b: b),
    "exch.b64": ("b64", lambda old, b: b),
    "inc.u32": ("u32", lambda old, b: 0 if old >= b else old + 1),
    "dec.u32": ("u32", lambda old, b: b if old == 0 or old > b else old - 1),
    "add.f32": ("f32", _float_add("f32")),
    "add.f64": ("f64", _float_add("f64")),
    "add.noftz.f16": ("f16", _float_add("f16")),
    "add.noftz.bf16": ("bf16", _float_add("bf16")),
    "add.noftz.f16x2": ("f16x2", _pair_add("f16")),
    "add.noftz.bf16x2": ("bf16x2", _pair_add("bf16")),
}
for _kind in ("u32", "s32", "u64"):
    OPERATIONS[f"add.{_kind}"] = (_kind, lambda old, b: old + b)
for _kind in ("u32", "s32", "u64", "s64"):
    OPERATIONS[f"min.{_kind}"] = (_kind, _chosen(_kind, False))
    OPERATIONS[f"max.{_kind}"] = (_kind, _chosen(_kind, True))
for _kind in ("b32", "b64"):
    OPERATIONS[f"and.{_kind}"] = (_kind, lambda old, b: old & b)
    OPERATIONS[f"or.{_kind}"] = (_kind, lambda old, b: old | b)
    OPERATIONS[f"xor.{_kind}"] = (_kind, lambda old, b: old ^ b)

SPACES = ("global", "shared", "", "sys")


def _program(operation: str, kind: str, space: str, red: bool) -> str:
    """Each thread has its own cell; out gets the cell afterwards, old what the atomic gave."""
    size = bits_of(kind)
    register = {"f32": "f32", "f64": "f64"}.get(kind, f"b{size}")
    memory = register if register[0] == "f" else f"b{size}"
    words = {"global": ".global", "shared": ".shared", "": "", "sys": ".relaxed.sys.global"}[space]
    if space == "shared":
        place = "mov.u64 z, s; mov.u32 i, %tid.x; mul.wide.u32 y, i, 8; add.u64 z, z, y;"
    else:
        place = "mov.u64 z, x;"
    load = ".shared" if space == "shared" else ".global"
    action = f"atom{words}.{operation} v, [z], b;"
    if red:
        action = f"red{words}.{operation} [z], b; mov.b{size} v, a;"
        if register[0] == "f":
            action = action.replace(f"mov.b{size}", f"mov.{register}")
    bytes_ = size // 8
    return f"""{HEAD}.visible .entry k(.param .u64 cell, .param .u64 in, .param .u64 old,
    .param .u32 num) {{ .shared .align 8 .b8 s[2048]; .reg .{register} a, b, v;
    .reg .b32 t, q, n, i;
    .reg .b64 x, y, z, w; .reg .pred p; mov.u32 t, %ctaid.x; mov.u32 q, %ntid.x;
    mov.u32 i, %tid.x; mad.lo.u32 t, t, q, i; ld.param.u32 n, [num]; setp.ge.u32 p, t, n; @p ret;
    mul.wide.u32 w, t, {bytes_}; ld.param.u64 x, [cell]; add.u64 x, x, w; ld.param.u64 y, [in];
    add.u64 y, y, w; ld.global.{memory} a, [x]; ld.global.{memory} b, [y]; {place}
    st{load}.{memory} [z], a; {action} ld{load}.{memory} a, [z]; st.global.{memory} [x], a;
    ld.param.u64 y, [old]; add.u64 y, y, w; st.global.{memory} [y], v; ret; }}"""


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_one_at_a_time(operation: str, space: str) -> None:
    kind, reference = OPERATIONS[operation]
    size = bits_of(kind)
    values = edges(kind, 3)
    pairs = [(a, b) for a in values for b in values][:: max(1, len(values) ** 2 // 400)]
    for red in (False, True):
        if red and operation.startswith("exch"):
            continue
        program = machine().compile(_program(operation, kind, space, red))
        cells = array([a for a, _ in pairs], _DTYPES[size])
        inputs = array([b for _, b in pairs], _DTYPES[size])
        old = zeros(len(pairs), _DTYPES[size])
        program.launch("k", (len(pairs) + 63) // 64, 64, cells, inputs, old, len(pairs))
        flushes = operation == "add.f32" and space != "shared"
        for (a, b), after, before in zip(pairs, cells.tolist(), old.tolist()):
            wanted = reference(a, b) & ((1 << size) - 1)
            if flushes:
                wanted = _flushed(reference(_flushed(a), _flushed(b)) & ((1 << size) - 1))
            if kind == "f64" and FORMATS[kind].is_nan(wanted) and FORMATS[kind].is_nan(after):
                continue
            assert (after, before) == (wanted, a), f"red={red}: {a:#x} {operation} {b:#x}"


def _flushed(bits: int) -> int:
    return bits & 1 << 31 if FORMATS["f32"].is_subnormal(bits) else bits


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("space", ["global", "shared", ""])
def test_compare_and_swap(size: int, space: str) -> None:
    dot = f".{space}" if space else ""
    where = ".shared" if space == "shared" else ".global"
    place = "mov.u64 z, s; mul.wide.u32 y, t, 8; add.u64 z, z, y;" if space == "shared" else ""
    program = machine().compile(
        f"""{HEAD}.visible .entry k(.param .u64 cell, .param .u64 compare, .param .u64 old) {{
        .shared .align 8 .b8 s[512]; .reg .b{size} a, b, c, v; .reg .b32 t; .reg .b64 x, y, z, w;
        mov.u32 t, %tid.x; mul.wide.u32 w, t, {size // 8}; ld.param.u64 x, [cell];
        add.u64 x, x, w; ld.param.u64 y, [compare]; add.u64 y, y, w; ld.global.b{size} a, [x];
        ld.global.b{size} b, [y]; mov.u64 z, x; {place} st{where}.b{size} [z], a;
        mov.b{size} c, 77; atom{dot}.cas.b{size} v, [z], b, c; ld{where}.b{size} a, [z];
        st.global.b{size} [x], a; ld.param.u64 y, [old]; add.u64 y, y, w;
        st.global.b{size} [y], v; ret; }}"""
    )
    top = (1 << size) - 1
    pairs = [(0, 0), (1, 2), (top, top), (top, top >> 1), (5, 5), (top >> 1, top)]
    cells, compared = (array(column, _DTYPES[size]) for column in zip(*pairs))
    old = zeros(len(pairs), _DTYPES[size])
    program.launch("k", 1, len(pairs), cells, compared, old)
    assert old.tolist() == [a for a, _ in pairs]
    assert cells.tolist() == [77 if a == b else a for a, b in pairs]


def test_128_bits() -> None:
    program = machine().compile(
        HEAD
        + """.visible .entry k(.param .u64 cell, .param .u64 old) { .reg .b128 a, b, c;
        .reg .b64 x, y, l, h; ld.param.u64 x, [cell]; ld.param.u64 y, [old];
        mov.u64 l, 1; mov.u64 h, 2; mov.b128 b, {l, h}; mov.u64 l, 30; mov.b128 c, {l, h};
        atom.global.cas.b128 a, [x], b, c; mov.b128 {l, h}, a; st.global.v2.u64 [y], {l, h};
        atom.global.cas.b128 a, [x], b, c; mov.b128 {l, h}, a; st.global.v2.u64 [y+16], {l, h};
        atom.global.exch.b128 a, [x], b; mov.b128 {l, h}, a; st.global.v2.u64 [y+32], {l, h};
        ret; }"""
    )
    cell, old = array([1, 2], "u8"), zeros(6, "u8")
    program.launch("k", 1, 1, cell, old)
    assert old.tolist() == [1, 2, 30, 2, 30, 2]
    assert cell.tolist() == [1, 2]


def test_vectors_of_floats() -> None:
    program = machine().compile(
        HEAD
        + """.visible .entry k(.param .u64 cell) { .reg .f32 a, b; .reg .b64 x;
        ld.param.u64 x, [cell]; mov.f32 a, 1.5; mov.f32 b, 2.0;
        atom.global.add.v2.f32 {a, b}, [x], {a, b}; red.global.add.v2.f32 [x+8], {a, b}; ret; }"""
    )
    cell = array([1, 2, 10, 20], "f4")
    program.launch("k", 1, 1, cell)
    assert cell.tolist() == [2.5, 4.0, 11.0, 22.0]


@pytest.mark.parametrize(
    ("form", "registers", "dtype", "function"),
    [
        ("global.v4.f32.add", "{e0, e1, e2, e3}", "f4", numpy.add),
        ("global.v2.f16x2.add.noftz", "{a0, a1}", "f2", numpy.add),
        ("v8.f16.global.max.noftz", "{h0, h1, h2, h3, h4, h5, h6, h7}", "f2", numpy.maximum),
        ("add.noftz.f16x2.global", "a0", "f2", numpy.add),
        ("global.v4.f16x2.min.noftz", "{a0, a1, a2, a3}", "f2", numpy.minimum),
    ],
)
def test_words_in_another_order(
    form: str, registers: str, dtype: str, function: Callable[..., numpy.ndarray]
) -> None:
    """As the assembler takes them: the operation behind the type, the space at the end."""
    names = registers.strip("{}").split(", ")
    size = {"e": 4, "a": 4, "h": 2}[names[0][0]]
    loads = "".join(f"ld.global.b{8 * size} {x}, [y+{n * size}];" for n, x in enumerate(names))
    stores = "".join(f"st.global.b{8 * size} [z+{n * size}], {x};" for n, x in enumerate(names))
    program = machine().compile(
        f"""{HEAD}.visible .entry k(.param .u64 cell, .param .u64 in, .param .u64 old) {{
        .reg .b64 x, y, z; .reg .b32 e<4>, a<4>; .reg .b16 h<8>; ld.param.u64 x, [cell];
        ld.param.u64 y, [in]; ld.param.u64 z, [old]; {loads}
        red.{form} [x+16], {registers}; atom.{form} {registers}, [x], {registers};
        {stores} ret; }}"""
    )
    count = len(names) * size // numpy.dtype(dtype).itemsize
    start = numpy.arange(16) % 7 - 3.0
    cell = array(numpy.resize(start, 32 // numpy.dtype(dtype).itemsize), dtype)
    given, old = array(numpy.arange(count) / 2 - 1, dtype), zeros(count, dtype)
    before = cell.copy()
    program.launch("k", 1, 1, cell, given, old)
    half = len(cell) // 2
    wanted = before.copy()
    for at in (0, half):
        wanted[at : at + count] = function(before[at : at + count], given)
    assert cell.tolist() == wanted.tolist() and old.tolist() == before[:count].tolist()


# ---------------------------------------------------------------- many at once

BLOCKS, THREADS = 24, 96
COUNT = BLOCKS * THREADS


def _contend(action: str, cell: numpy.ndarray, register: str = "b32") -> numpy.ndarray:
    """Every thread does ``action`` on one cell at ``[x]``; ``i`` is its number, ``v`` is kept."""
    size = bits_of(register)
    program = machine().compile(
        f"""{HEAD}.visible .entry k(.param .u64 cell, .param .u64 old) {{ .reg .b32 i, q, t;
        .reg .{register} v, u; .reg .b64 x, y, w; .reg .pred p; mov.u32 i, %ctaid.x;
        mov.u32 q, %ntid.x; mov.u32 t, %tid.x; mad.lo.u32 i, i, q, t; ld.param.u64 x, [cell];
        {action} ld.param.u64 y, [old]; mul.wide.u32 w, i, {size // 8}; add.u64 y, y, w;
        st.global.b{size} [y], v; ret; }}"""
    )
    old = zeros(COUNT, _DTYPES[size])
    program.launch("k", BLOCKS, THREADS, cell, old)
    return old


def test_each_addition_counts_and_sees_its_own_sum() -> None:
    cell = array([5], "u4")
    old = _contend("atom.global.add.u32 v, [x], 3;", cell)
    assert cell.tolist() == [5 + 3 * COUNT]
    assert sorted(old.tolist()) == [5 + 3 * n for n in range(COUNT)]
    wide = array([0], "u8")
    old = _contend("atom.add.release.gpu.u64 v, [x], 1;", wide, "b64")
    assert sorted(old.tolist()) == list(range(COUNT))


def test_inc_and_dec_under_contention() -> None:
    cell = array([0], "u4")
    _contend("atom.global.inc.u32 v, [x], 6;", cell)
    assert cell.tolist() == [COUNT % 7]
    cell = array([3], "u4")
    _contend("red.global.add.u32 [x], 0; atom.global.dec.u32 v, [x], 4;", cell)
    assert cell.tolist() == [(3 - COUNT) % 5]


def test_min_max_and_bits_under_contention() -> None:
    cell = array([1 << 20], "u4")
    _contend("atom.global.min.u32 v, [x], i;", cell)
    assert cell.tolist() == [0]
    cell = array([0], "u4")
    _contend("atom.global.max.s32 v, [x], i;", cell)
    assert cell.tolist() == [COUNT - 1]
    cell = array([0], "u4")
    _contend("and.b32 q, i, 31; shl.b32 q, 1, q; red.global.or.b32 [x], q; mov.u32 v, 0;", cell)
    assert cell.tolist() == [0xFFFFFFFF]


def test_exchange_passes_every_value_on() -> None:
    cell = array([1 << 20], "u4")
    old = _contend("atom.global.exch.b32 v, [x], i;", cell)
    assert sorted([*old.tolist(), *cell.tolist()]) == [*range(COUNT), 1 << 20]


def test_compare_and_swap_loops_make_progress() -> None:
    cell = array([0], "u4")
    _contend(
        """ld.volatile.global.u32 u, [x];
        AGAIN: add.u32 q, u, 7; atom.global.cas.b32 v, [x], u, q; setp.ne.u32 p, v, u;
        mov.u32 u, v; @p bra AGAIN;""",
        cell,
    )
    assert cell.tolist() == [7 * COUNT]


def test_float_additions_lose_nothing() -> None:
    cell = array([0], "f4")
    _contend("mov.f32 u, 0f3F800000; atom.global.add.f32 v, [x], u;", cell, "f32")
    assert cell.tolist() == [float(COUNT)]
    wide = array([0], "f8")
    _contend("mov.f64 u, 0.5; red.global.add.f64 [x], u; mov.f64 v, u;", wide, "f64")
    assert wide.tolist() == [COUNT / 2]
    half = array([0], "u2")
    _contend("mov.b16 u, 0x3C00; atom.global.add.noftz.f16 v, [x], u;", half, "b16")
    assert softfloat.F16.value(int(half[0])) == Fraction(2048)  # where adding 1 stops to count


def test_shared_memory_counts_within_a_block() -> None:
    program = machine().compile(
        HEAD
        + """.visible .entry k(.param .u64 out) { .shared .u32 bins[8]; .reg .b32 t, b, r;
        .reg .b64 x, y; .reg .pred p; mov.u32 t, %tid.x; and.b32 b, t, 7; shl.b32 b, b, 2;
        mov.u32 r, bins; add.u32 b, b, r; setp.lt.u32 p, t, 8; @p st.shared.u32 [b], 0;
        bar.sync 0; atom.shared.add.u32 r, [b], t; bar.sync 0; @!p ret; ld.shared.u32 r, [b];
        ld.param.u64 x, [out]; mov.u32 b, %ctaid.x; mad.lo.u32 t, b, 8, t; mul.wide.u32 y, t, 4;
        add.u64 x, x, y; st.global.u32 [x], r; ret; }"""
    )
    out = zeros(8 * 5, "u4")
    program.launch("k", 5, 200, out)
    wanted: List[int] = [sum(range(n, 200, 8)) for n in range(8)]
    assert out.tolist() == wanted * 5
