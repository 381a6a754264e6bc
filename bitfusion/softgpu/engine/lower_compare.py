# SPDX-License-Identifier: Apache-2.0
"""setp, set, slct, testp: comparisons into predicates, and what is made of them."""

from __future__ import annotations

from typing import List, Tuple

from ..ptx.ir import TYPE_BYTES, Instruction, Operand, Pair, Sink
from .function import NOWHERE, FunctionEncoder, Unsupported
from .lower import plain, rule

_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_COMBINE = {"and": 1, "or": 2, "xor": 3}


def compare(
    encoder: FunctionEncoder,
    test: str,
    kind: str,
    sources: Tuple[int, int],
    to: Tuple[int, int],
    x: int,
) -> None:
    """Emit one comparison of operands that have the type's width."""
    if kind in ("f32", "f64"):
        name = f"setp_{test}_{kind}"
    else:
        test = _UNSIGNED.get(test, test)
        sign = "s" if kind[0] == "s" and test not in ("eq", "ne") else "u"
        name = f"setp_{test}_{sign}{8 * TYPE_BYTES[kind]}"
    encoder.emit(name, to[0], sources[0], sources[1], to[1], x=x)


def _as_floats(encoder: FunctionEncoder, kind: str, values: List[int], ftz: bool) -> List[int]:
    """Halves as f32, with subnormals flushed where the instruction does."""
    made = []
    for value in values:
        if ftz and kind == "f16":
            flushed = encoder.temporary(2)
            encoder.emit("flush_f16", flushed, value)
            value = flushed
        if kind in ("f16", "bf16") or ftz:
            wide = encoder.temporary(4)
            encoder.emit("flush_f32" if kind == "f32" else f"cvt_f32_{kind}", wide, value)
            value = wide
        made.append(value)
    return made


def _test(
    encoder: FunctionEncoder,
    words: Tuple[str, ...],
    operands: Tuple[Operand, Operand],
    to: Tuple[int, int],
    x: int,
) -> None:
    kind = words[-1]
    if kind.endswith("x2"):
        _test_pairs(encoder, words, operands, to, x)
        return
    values = [encoder.source(item, TYPE_BYTES[kind]) for item in operands]
    ftz = "ftz" in words and kind in ("f16", "f32")
    values = _as_floats(encoder, kind, values, ftz)
    kind = "f32" if kind in ("f16", "bf16") else kind
    compare(encoder, words[0], kind, (values[0], values[1]), to, x)


def _test_pairs(
    encoder: FunctionEncoder,
    words: Tuple[str, ...],
    operands: Tuple[Operand, Operand],
    to: Tuple[int, int],
    x: int,
) -> None:
    """The first predicate is for the low halves, the second for the high ones."""
    wholes = [encoder.source(item, 4) for item in operands]
    for half, target in enumerate(to):
        if target == NOWHERE:
            continue
        parts = []
        for whole in wholes:
            part = encoder.temporary(2)
            encoder.emit(f"part_32_{half}", part, whole)
            parts.append(part)
        ftz = "ftz" in words and words[-1] == "f16x2"
        values = _as_floats(encoder, words[-1][:-2], parts, ftz)
        compare(encoder, words[0], "f32", (values[0], values[1]), (target, NOWHERE), x)


def _combination(
    encoder: FunctionEncoder, words: Tuple[str, ...], operands: Tuple[Operand, ...]
) -> int:
    verb = next((word for word in words if word in _COMBINE), "")
    if not verb:
        return 0
    return _COMBINE[verb] | encoder.truth(operands[2]) << 2


@rule("setp")
def _setp(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = instruction.modifiers
    to, a, b, *rest = instruction.operands
    first, second = (to.first, to.second) if isinstance(to, Pair) else (to, Sink())
    p, q = (
        NOWHERE if isinstance(item, Sink) else encoder.predicate_slot(item)
        for item in (first, second)
    )
    x = _combination(encoder, words, (a, b, *rest))
    _test(encoder, words, (a, b), (p, q), x)


_ONE = {
    "f32": 0x3F800000,
    "f16": 0x3C00,
    "bf16": 0x3F80,
    "u32": 0xFFFFFFFF,
    "s32": 0xFFFFFFFF,
    "u16": 0xFFFF,
    "s16": 0xFFFF,
}


@rule("set")
def _set(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = instruction.modifiers
    to, a, b, *rest = instruction.operands
    made, kind = words[-2], words[-1]
    if made.endswith("x2") or (made in ("u32", "s32") and kind.endswith("x2")):
        _set_pairs(encoder, instruction)
        return
    width = TYPE_BYTES[made]
    p = encoder.temporary_predicate()
    _test(encoder, words, (a, b), (p, NOWHERE), _combination(encoder, words, (a, b, *rest)))
    encoder.emit(
        f"selp_{8 * width}",
        encoder.destination(to, width),
        encoder.constant(_ONE[made], width),
        encoder.constant(0, width),
        p,
    )


def _set_pairs(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = instruction.modifiers
    to, a, b, *rest = instruction.operands
    one = _ONE[words[-2][:-2]] if words[-2].endswith("x2") else 0xFFFF
    p, q = encoder.temporary_predicate(), encoder.temporary_predicate()
    _test(encoder, words, (a, b), (p, q), _combination(encoder, words, (a, b, *rest)))
    halves = []
    for predicate in (p, q):
        half = encoder.temporary(2)
        encoder.emit("selp_16", half, encoder.constant(one, 2), encoder.constant(0, 2), predicate)
        halves.append(half)
    encoder.emit("pack_16_16", encoder.destination(to, 4), *halves)


@rule("slct")
def _slct(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = instruction.modifiers
    to, a, b, c = instruction.operands
    width = TYPE_BYTES[words[-2]]
    value = encoder.source(c, 4)
    if "ftz" in words:
        value = _as_floats(encoder, "f32", [value], True)[0]
    p = encoder.temporary_predicate()
    compare(encoder, "ge", words[-1], (value, encoder.constant(0, 4)), (p, NOWHERE), 0)
    encoder.emit(
        f"selp_{8 * width}",
        encoder.destination(to, width),
        encoder.source(a, width),
        encoder.source(b, width),
        p,
    )


@rule("min", "max")
def _extreme(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Of three floats; two operands have handlers of their own."""
    words = instruction.modifiers
    if len(instruction.operands) != 4 or words[-1] != "f32":
        plain(encoder, instruction)
        return
    to, *sources = instruction.operands
    values = [encoder.source(source, 4) for source in sources]
    if "abs" in words:
        for n, value in enumerate(values):
            values[n] = encoder.temporary(4)
            encoder.emit("abs_f32", values[n], value)
    name = "_".join([instruction.opcode, *(w for w in words if w in ("ftz", "NaN")), "f32_3"])
    encoder.emit(name, encoder.destination(to, 4), *values)


@rule("testp")
def _testp(encoder: FunctionEncoder, instruction: Instruction) -> None:
    word, kind = instruction.modifiers
    to, a = instruction.operands
    if kind not in ("f32", "f64"):
        raise Unsupported(kind)
    encoder.emit(
        f"testp_{word}_{kind}",
        encoder.predicate_slot(to),
        encoder.source(a, TYPE_BYTES[kind]),
        c=NOWHERE,
    )
