# SPDX-License-Identifier: Apache-2.0
"""cvt to and from pairs of narrow floats (fp8, fp6, fp4, ue8m0), and cvt.pack."""

from __future__ import annotations

from typing import Sequence, Tuple

from ..ptx.ir import Operand
from .function import Broken, FunctionEncoder, Unsupported
from .ops_convert import NARROW

NARROW_PAIRS = tuple(f"{kind}x2" for kind in (*NARROW, "ue8m0"))


def allow(options: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse what would otherwise be passed over: it may change the result."""
    for word in options:
        if word not in allowed:
            raise Unsupported(f"cvt with '.{word}'")


def convert_narrow(
    encoder: FunctionEncoder,
    options: Tuple[str, ...],
    kinds: Tuple[str, str],
    operands: Tuple[Operand, ...],
) -> None:
    """Either type is a narrow pair. The first of two sources becomes the high part."""
    to, source = kinds
    if "ue8m0x2" in kinds:
        name = _scale(options, to, source)
    elif to in NARROW_PAIRS:
        allow(options, ("rn", "relu", "satfinite"))
        if "satfinite" not in options or "rn" not in options:
            raise Unsupported("a narrow conversion that may overflow")
        name = f"cvt_{to}_{source}" + ("_relu" if "relu" in options else "")
    else:
        allow(options, ("rn", "relu"))
        name = f"cvt_{to}_{source}" + ("_relu" if "relu" in options else "")
    widths = {"f32": 4, "f16x2": 4, "bf16x2": 4}
    wanted = 2 if source == "f32" else 1
    if len(operands) != 1 + wanted:
        raise Broken("another number of operands")
    sources = [encoder.source(item, widths.get(source, 2)) for item in operands[1:]]
    encoder.emit_all(name, [encoder.destination(operands[0], widths.get(to, 2)), *sources])


def _scale(options: Tuple[str, ...], to: str, source: str) -> str:
    if source == "ue8m0x2":
        allow(options, ("rn",))
        return f"cvt_{to}_ue8m0x2"
    allow(options, ("rz", "rp", "satfinite"))
    rounding = next(word for word in options if word in ("rz", "rp"))
    finite = "_satfinite" if "satfinite" in options else ""
    return f"cvt_{rounding}{finite}_ue8m0x2_{source}"


def pack_integers(
    encoder: FunctionEncoder, words: Tuple[str, ...], operands: Tuple[Operand, ...]
) -> None:
    """cvt.pack: two integers, clamped, below what the third source has."""
    kind, rest = words[2], words[3:]
    narrow = kind not in ("u16", "s16")
    if words[:2] != ("pack", "sat") or rest != (("s32", "b32") if narrow else ("s32",)):
        raise Unsupported("another form of cvt.pack")
    sources = [encoder.source(item, 4) for item in operands[1:]]
    if len(sources) != 2 + narrow:
        raise Broken("another number of operands")
    third = sources[2] if narrow else encoder.constant(0, 4)
    to = encoder.destination(operands[0], 4)
    encoder.emit(f"pack_{kind}", to, sources[0], sources[1], third)
