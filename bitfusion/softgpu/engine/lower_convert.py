# SPDX-License-Identifier: Apache-2.0
"""cvt, composed of the conversions in the table."""

from __future__ import annotations

from typing import Tuple

from ..ptx.ir import TYPE_BYTES, Instruction, Operand
from .function import FunctionEncoder, Unsupported
from .lower import rule
from .lower_narrow import NARROW_PAIRS, allow, convert_narrow, pack_integers
from .ops_convert import INTEGERS, ROUND_TO_INTEGER

_HALVES = ("f16", "bf16")
FLOATS = ("f16", "bf16", "f32", "f64")
_DIRECTED = ("rn", "rz", "rm", "rp")


@rule("cvt")
def _cvt(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = instruction.modifiers
    operands = instruction.operands
    if words[0] == "pack":
        pack_integers(encoder, words, operands)
        return
    to, source = words[-2], words[-1]
    options = words[:-2]
    if to in NARROW_PAIRS or source in NARROW_PAIRS:
        convert_narrow(encoder, options, (to, source), operands)
    elif to in _PACKED and len(operands) == 3:
        _to_pair(encoder, options, to, operands)
    elif to == "tf32":
        _to_tf32(encoder, options, operands)
    elif to in INTEGERS and source in INTEGERS:
        _integers(encoder, options, (to, source), operands)
    elif to in INTEGERS and source in FLOATS:
        _to_integer(encoder, options, (to, source), operands)
    elif to in FLOATS and source in INTEGERS:
        _from_integer(encoder, options, (to, source), operands)
    elif to in FLOATS and source in FLOATS:
        _floats(encoder, options, (to, source), operands)
    else:
        raise Unsupported(f"cvt to {to} from {source}")


_PACKED = ("f16x2", "bf16x2")


def _finish(encoder: FunctionEncoder, to: Operand, kind: str, value: int, width: int) -> None:
    """Put an integer of ``width`` bytes into the destination, extended as its type says."""
    target = encoder.width(to) or max(TYPE_BYTES[kind], 2)
    d = encoder.destination(to, target)
    if target == width == TYPE_BYTES[kind]:
        encoder.emit(f"mov_{8 * width}", d, value)
    else:
        encoder.emit(f"ext_{8 * width}_{kind}_{8 * target}", d, value)


def _integers(
    encoder: FunctionEncoder,
    options: Tuple[str, ...],
    kinds: Tuple[str, str],
    operands: Tuple[Operand, ...],
) -> None:
    to, source = kinds
    allow(options, ("sat",))
    width = encoder.width(operands[1]) or max(TYPE_BYTES[source], 2)
    if encoder.width(operands[1]) == 0 and TYPE_BYTES[source] < 4:
        width = 4
    value = encoder.source(operands[1], width)
    if "sat" in options:
        wide = encoder.resize(value, width, 8, source)
        made = encoder.temporary(8)
        encoder.emit(f"sat_{'s' if source[0] == 's' else 'u'}64_{to}", made, wide)
        _finish(encoder, operands[0], to, made, 8)
        return
    if TYPE_BYTES[to] > TYPE_BYTES[source]:
        # read the source as its own type first; one record does where the two steps agree
        target = encoder.width(operands[0]) or max(TYPE_BYTES[to], 2)
        if source[0] == "u" or to[0] == "s" or target == TYPE_BYTES[to]:
            d = encoder.destination(operands[0], target)
            encoder.emit(f"ext_{8 * width}_{source}_{8 * target}", d, value)
            return
        value, width = encoder.resize(value, width, 8, source), 8
    _finish(encoder, operands[0], to, value, width)


def as_float(encoder: FunctionEncoder, kind: str, operand: Operand, ftz: bool) -> Tuple[int, str]:
    """A float source as f32 or f64."""
    width = max(encoder.width(operand), TYPE_BYTES[kind])
    value = encoder.resize(encoder.source(operand, width), width, TYPE_BYTES[kind])
    if kind in _HALVES:
        wide = encoder.temporary(4)
        encoder.emit(f"cvt_f32_{kind}", wide, value)
        return wide, "f32"
    if ftz and kind == "f32":
        flushed = encoder.temporary(4)
        encoder.emit("flush_f32", flushed, value)
        return flushed, "f32"
    return value, kind


def _to_integer(
    encoder: FunctionEncoder,
    options: Tuple[str, ...],
    kinds: Tuple[str, str],
    operands: Tuple[Operand, ...],
) -> None:
    to, source = kinds
    allow(options, (*ROUND_TO_INTEGER, "ftz", "sat"))
    mode = next((word for word in options if word in ROUND_TO_INTEGER), "rzi")
    value, kind = as_float(encoder, source, operands[1], "ftz" in options)
    width = max(TYPE_BYTES[to], 4)
    if encoder.width(operands[0]) == width == TYPE_BYTES[to]:
        encoder.emit(f"{mode}_{kind}_{to}", encoder.destination(operands[0], width), value)
        return
    made = encoder.temporary(width)
    encoder.emit(f"{mode}_{kind}_{to}", made, value)
    _finish(encoder, operands[0], to, made, width)


def _from_integer(
    encoder: FunctionEncoder,
    options: Tuple[str, ...],
    kinds: Tuple[str, str],
    operands: Tuple[Operand, ...],
) -> None:
    to, source = kinds
    allow(options, (*_DIRECTED, "ftz", "sat"))
    rounding = next((word for word in options if word in _DIRECTED), "rn")
    width = encoder.width(operands[1]) or max(TYPE_BYTES[source], 4)
    bits = 64 if to in _HALVES or TYPE_BYTES[source] == 8 else 32
    value = encoder.source(operands[1], width)
    if width != bits // 8 or TYPE_BYTES[source] != width:
        value = encoder.resize(value, width, bits // 8, source)
    kind = f"{source[0]}{bits}"
    size = TYPE_BYTES[to]
    made = _float_destination(encoder, operands[0], size)
    encoder.emit(f"cvt_{rounding}_{to}_{kind}", made, value)
    if "sat" in options:
        encoder.emit(f"sat_{to}", made, made)
    _widen(encoder, operands[0], made, size)


def _float_destination(encoder: FunctionEncoder, to: Operand, size: int) -> int:
    return (
        encoder.destination(to, size)
        if encoder.width(to) in (0, size)
        else encoder.temporary(size)
    )


def _widen(encoder: FunctionEncoder, to: Operand, made: int, size: int) -> None:
    """Where the register is wider than the type, the result goes to its low bits."""
    width = encoder.width(to)
    if width not in (0, size):
        encoder.emit(
            f"ext_{8 * size}_u{8 * size}_{8 * width}", encoder.destination(to, width), made
        )


def _floats(
    encoder: FunctionEncoder,
    options: Tuple[str, ...],
    kinds: Tuple[str, str],
    operands: Tuple[Operand, ...],
) -> None:
    to, source = kinds
    allow(options, (*_DIRECTED, *ROUND_TO_INTEGER, "ftz", "sat", "relu", "satfinite"))
    size = TYPE_BYTES[to]
    ftz = "ftz" in options
    value, kind = as_float(encoder, source, operands[1], ftz)
    integral = next((word for word in options if word in ROUND_TO_INTEGER), "")
    if integral:
        rounded = encoder.temporary(TYPE_BYTES[kind])
        encoder.emit(f"{integral}_{kind}", rounded, value)
        value = rounded
    made = _float_destination(encoder, operands[0], size)
    rounding = next((word for word in options if word in _DIRECTED), "rn")
    if to == kind:
        encoder.emit("canonical_f32" if to == "f32" else "mov_64", made, value)
    elif (to, kind) == ("f64", "f32"):
        encoder.emit("cvt_f64_f32", made, value)
    else:
        encoder.emit(f"cvt_{rounding}_{to}_{kind}", made, value)
    if ftz and to == "f32":
        encoder.emit("flush_f32", made, made)
    for word in ("sat", "relu", "satfinite"):
        if word in options:
            encoder.emit(f"{word}_{to}", made, made)
    _widen(encoder, operands[0], made, size)


def _to_pair(
    encoder: FunctionEncoder, options: Tuple[str, ...], to: str, operands: Tuple[Operand, ...]
) -> None:
    """The first source becomes the high half."""
    rounding = next((word for word in options if word in _DIRECTED), "")
    allow(options, ("rn", "rz", "ftz", "relu", "satfinite"))
    halves = []
    for operand in operands[2:0:-1]:
        value, _ = as_float(encoder, "f32", operand, "ftz" in options)
        half = encoder.temporary(2)
        encoder.emit(f"cvt_{rounding}_{to[:-2]}_f32", half, value)
        halves.append(half)
    d = encoder.destination(operands[0], 4)
    encoder.emit("pack_16_16", d, *halves)
    for word in ("relu", "satfinite"):
        if word in options:
            encoder.emit(f"{word}_{to}", d, d)


def _to_tf32(
    encoder: FunctionEncoder, options: Tuple[str, ...], operands: Tuple[Operand, ...]
) -> None:
    allow(options, ("rna", "rn", "rz", "relu", "satfinite"))
    rounding = next(word for word in options if word in ("rna", "rn", "rz"))
    value = encoder.source(operands[1], 4)
    if "relu" in options:
        kept = encoder.temporary(4)
        encoder.emit("relu_f32", kept, value)
        value = kept
    to = encoder.destination(operands[0], 4)
    encoder.emit(f"cvt_{rounding}_tf32", to, value)
    if "satfinite" in options:
        encoder.emit("satfinite_tf32", to, to)
