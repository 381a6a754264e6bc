# SPDX-License-Identifier: Apache-2.0
"""Checks one instruction form at a time: a kernel of it alone, many inputs, an exact reference."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy
from machine import array, machine, zeros

from bitfusion.softgpu.ptx.ir import TYPE_BYTES

Reference = Callable[..., Optional[int]]  # None: anything will do
Same = Callable[[int, int], bool]

U8, U16, U32, U64 = 1 << 8, 1 << 16, 1 << 32, 1 << 64
_FLOAT_SPECIALS = {
    "f32": (
        0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40000000,
        0x40490FDB, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001, 0x33800000, 0x4B000000,
        0x4B7FFFFF, 0x5F000000, 0x0A000000, 0x3EAAAAAB, 0x42FE0000, 0x477FE000, 0x477FF000,
    ),
    "f64": (
        0, 1, 0xFFFFFFFFFFFFF, 0x10000000000000, 0x3FEFFFFFFFFFFFFF, 0x3FF0000000000000,
        0x3FF0000000000001, 0x4000000000000000, 0x400921FB54442D18, 0x7FEFFFFFFFFFFFFF,
        0x7FF0000000000000, 0x7FF8000000000000, 0x7FF0000000000001, 0x4340000000000000,
        0x43E0000000000000, 0x3FD5555555555555, 0x380FFFFFFFFFFFFF, 0x47EFFFFFF0000000,
        0x36A0000000000000, 0x3E60000000000000,
    ),
    "f16": (
        0, 1, 2, 0x3FF, 0x400, 0x401, 0x3BFF, 0x3C00, 0x3C01, 0x4000, 0x4248, 0x7BFF, 0x7C00,
        0x7E00, 0x7C01, 0x3555, 0x6400, 0x0C00, 0x1400,
    ),
    "bf16": (
        0, 1, 2, 0x7F, 0x80, 0x81, 0x3F7F, 0x3F80, 0x3F81, 0x4000, 0x4049, 0x7F7F, 0x7F80, 0x7FC0,
        0x7F81, 0x3EAB, 0x4B00, 0x3380,
    ),
}  # fmt: skip


def bits_of(kind: str) -> int:
    return 1 if kind == "pred" else 8 * TYPE_BYTES[kind]


def edges(kind: str, extra: int = 6, seed: int = 7) -> List[int]:
    """Values of a type that find mistakes, and a few more."""
    random_ = random.Random(f"{kind}{seed}")
    size = bits_of(kind)
    if kind == "pred":
        return [0, 1]
    if kind.endswith("x2"):
        halves = edges(kind[:-2], 2)
        return [low | random_.choice(halves) << 16 for low in halves for _ in range(2)]
    if kind in _FLOAT_SPECIALS:
        sign = 1 << (size - 1)
        found = [x | s for x in _FLOAT_SPECIALS[kind] for s in (0, sign)]
        return found + [random_.getrandbits(size) for _ in range(extra)]
    top = 1 << (size - 1)
    found = [0, 1, 2, 3, 7, 31, 32, 33, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2]
    found += [0x55555555555555555555555555555555 % (2 * top), 100, 255 % (2 * top)]
    return sorted(set(found)) + [random_.getrandbits(size) for _ in range(extra)]


def signed(x: int, size: int) -> int:
    return x - (1 << size) if x >> (size - 1) & 1 else x


@dataclass
class Form:
    """One instruction. ``text`` has ``{d}``, ``{a}``, ``{b}``, ``{c}`` for its operands."""

    text: str
    result: str
    sources: Tuple[str, ...]
    reference: Reference
    values: Optional[Sequence[Sequence[int]]] = None
    same: Optional[Same] = None
    limit: int = 700

    def inputs(self) -> List[Tuple[int, ...]]:
        """The product of the edges of all sources, thinned out to ``limit``."""
        columns = self.values or [edges(kind) for kind in self.sources]
        total = 1
        for column in columns:
            total *= len(column)
        if total <= self.limit:
            return list(itertools.product(*columns))
        random_ = random.Random(self.text)
        found = [tuple(random_.choice(column) for column in columns) for _ in range(self.limit)]
        return found + [tuple(column[i % len(column)] for column in columns) for i in range(40)]


_STORAGE = {1: "b8", 2: "b16", 4: "b32", 8: "b64"}
_DTYPES = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


def _storage(kind: str) -> int:
    return 4 if kind == "pred" else TYPE_BYTES[kind]


def _register(kind: str) -> str:
    return kind if kind in ("pred", "f32", "f64") else f"b{max(16, bits_of(kind))}"


def _load(name: str, kind: str, pointer: str) -> List[str]:
    size = _storage(kind)
    if kind == "pred":
        return [f"ld.global.u32 {name}w, [{pointer}];", f"setp.ne.u32 {name}, {name}w, 0;"]
    memory = kind if kind in ("f32", "f64", "u8", "s8") else _STORAGE[size]
    return [f"ld.global.{memory} {name}, [{pointer}];"]


def _kernel(name: str, form: Form) -> str:
    names = "abc"[: len(form.sources)]
    lines = [f".visible .entry {name}(.param .u64 n, .param .u64 d"]
    lines[0] += "".join(f", .param .u64 {x}" for x in names) + ") {"
    lines.append(f".reg .{_register(form.result)} xd; .reg .b64 at, off, i; .reg .b32 t, s, xdw;")
    for x, kind in zip(names, form.sources):
        lines.append(f".reg .{_register(kind)} x{x}; .reg .b32 x{x}w;")
    lines.append(".reg .pred done; .reg .b64 count;")
    lines.append("mov.u32 t, %ctaid.x; mov.u32 s, %ntid.x; mul.wide.u32 i, t, s;")
    lines.append("mov.u32 t, %tid.x; cvt.u64.u32 off, t; add.u64 i, i, off;")
    lines.append("ld.param.u64 count, [n]; setp.ge.u64 done, i, count; @done ret;")
    for x, kind in zip(names, form.sources):
        lines.append(f"ld.param.u64 at, [{x}]; mul.lo.u64 off, i, {_storage(kind)};")
        lines.append("add.u64 at, at, off;")
        lines += _load(f"x{x}", kind, "at")
    operands = {x: f"x{x}" for x in names}
    lines.append(form.text.format(d="xd", **operands) + ";")
    lines.append(f"ld.param.u64 at, [d]; mul.lo.u64 off, i, {_storage(form.result)};")
    lines.append("add.u64 at, at, off;")
    if form.result == "pred":
        lines.append("selp.u32 xdw, 1, 0, xd; st.global.u32 [at], xdw;")
    else:
        size = _storage(form.result)
        memory = form.result if form.result in ("f32", "f64") else _STORAGE[size]
        lines.append(f"st.global.{memory} [at], xd;")
    lines.append("ret; }")
    return "\n".join(lines)


HEAD = ".version 9.0\n.target sm_120\n.address_size 64\n"


def check(forms: Sequence[Form]) -> None:
    """Run every form on all its inputs; shows what differs, form by form."""
    text = HEAD + "\n".join(_kernel(f"k{i}", form) for i, form in enumerate(forms))
    program = machine().compile(text)
    wrong: List[str] = []
    for i, form in enumerate(forms):
        complaint = _differences(form, _run(program, f"k{i}", form))
        if complaint:
            wrong.append(complaint)
    assert not wrong, f"{len(wrong)} of {len(forms)} forms differ:\n" + "\n".join(wrong)


def _run(program: object, name: str, form: Form) -> Dict[Tuple[int, ...], int] | str:
    from machine import DeviceFault, Program

    assert isinstance(program, Program)
    rows = form.inputs()
    columns = [
        array(column, _DTYPES[_storage(kind)]) for column, kind in zip(zip(*rows), form.sources)
    ]
    result = zeros(len(rows), _DTYPES[_storage(form.result)])
    result[:] = numpy.iinfo(result.dtype).max // 3
    try:
        program.launch(name, (len(rows) + 127) // 128, 128, len(rows), result, *columns)
    except DeviceFault as fault:
        return f"{form.text}: {fault}"
    return {row: int(value) for row, value in zip(rows, result)}


def _differences(form: Form, results: Dict[Tuple[int, ...], int] | str) -> str:
    if isinstance(results, str):
        return results
    same = form.same or (lambda got, wanted: got == wanted)
    wrong = []
    for row, got in results.items():
        wanted = form.reference(*row)
        if wanted is None:
            continue
        if form.result != "pred":
            wanted &= (1 << (8 * _storage(form.result))) - 1
        if not same(got, int(wanted)):
            shown = ", ".join(map(hex, row))
            wrong.append(f"({shown}) gave {got:#x}, not {int(wanted):#x}")
    if not wrong:
        return ""
    return f"{form.text}: {len(wrong)} of {len(results)} wrong: " + "; ".join(wrong[:3])
