# SPDX-License-Identifier: Apache-2.0
"""Matrix instructions: which shapes and types there are, and the word that tells a handler.

``SHAPES`` is the truth of what mma, mma.sp and wmma take; :mod:`.lower_matrix` and the coverage
table read it. matrix.h has the word's fields as C.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

from ..ptx.record import dataclass
from .semantics import hand

ELEMENTS = ("f16", "bf16", "tf32", "f64", "s8", "u8", "s4", "u4", "b1", "e4m3", "e5m2")
ELEMENT_BITS = dict(zip(ELEMENTS, (16, 16, 32, 64, 8, 8, 4, 4, 1, 8, 8)))
ACCUMULATORS = ("f16", "f32", "s32", "f64")
ROUNDINGS = ("rn", "rz", "rm", "rp")

_FP8 = [(a, b) for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2")]
_INT8 = [(a, b) for a in ("s8", "u8") for b in ("s8", "u8")]
_INT4 = [(a, b) for a in ("s4", "u4") for b in ("s4", "u4")]
_HALF = [("f16", "f16")]
_SAME = [("f16", "f16"), ("f32", "f32")]
_ANY = [(d, c) for d in ("f16", "f32") for c in ("f16", "f32")]
_F32, _S32, _F64 = [("f32", "f32")], [("s32", "s32")], [("f64", "f64")]


@dataclass(frozen=True)
class Row:
    """Shapes that come with all of these multiplicands and all of these (d, c) types."""

    verb: str  # mma, mma.sp, wmma
    shapes: Tuple[str, ...]
    factors: List[Tuple[str, str]]
    sums: List[Tuple[str, str]]
    options: Tuple[str, ...] = ()  # satfinite, rounding, popc, layouts


def _rows() -> List[Row]:
    square = ("m16n16k16", "m8n32k16", "m32n8k16")
    bits = [("b1", "b1")]
    return [
        Row("mma", ("m8n8k4",), _HALF, [*_SAME, ("f32", "f16")], ("layouts",)),
        Row("mma", ("m16n8k8", "m16n8k16"), _HALF, _SAME),
        Row("mma", ("m16n8k8", "m16n8k16"), [("bf16", "bf16")], _F32),
        Row("mma", ("m16n8k4", "m16n8k8"), [("tf32", "tf32")], _F32),
        Row("mma", ("m16n8k16", "m16n8k32"), _FP8, _SAME),
        Row("mma", ("m8n8k16", "m16n8k16", "m16n8k32"), _INT8, _S32, ("satfinite",)),
        Row("mma", ("m8n8k32", "m16n8k32", "m16n8k64"), _INT4, _S32, ("satfinite",)),
        Row("mma", ("m8n8k128", "m16n8k128", "m16n8k256"), bits, _S32, ("popc",)),
        Row(
            "mma", ("m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"), [("f64", "f64")], _F64,
            ("rounding",),
        ),
        Row("mma.sp", ("m16n8k16", "m16n8k32"), _HALF, _SAME),
        Row("mma.sp", ("m16n8k16", "m16n8k32"), [("bf16", "bf16")], _F32),
        Row("mma.sp", ("m16n8k8", "m16n8k16"), [("tf32", "tf32")], _F32),
        Row("mma.sp", ("m16n8k64",), _FP8, _F32),
        Row("mma.sp", ("m16n8k32", "m16n8k64"), _INT8, _S32, ("satfinite",)),
        Row("mma.sp", ("m16n8k64", "m16n8k128"), _INT4, _S32, ("satfinite",)),
        Row("wmma", square, _HALF, _ANY, ("layouts",)),
        Row("wmma", square, [("bf16", "bf16")], _F32, ("layouts",)),
        Row("wmma", ("m16n16k8",), [("tf32", "tf32")], _F32, ("layouts",)),
        Row(
            "wmma", square, [("s8", "s8"), ("u8", "u8")], _S32, ("layouts", "satfinite"),
        ),
        Row("wmma", ("m8n8k32",), [("s4", "s4"), ("u4", "u4")], _S32, ("satfinite",)),
        Row("wmma", ("m8n8k128",), bits, _S32, ("popc",)),
        Row("wmma", ("m8n8k4",), [("f64", "f64")], _F64, ("layouts", "rounding")),
    ]  # fmt: skip


SHAPES = _rows()


def _index() -> Dict[Tuple[str, ...], Row]:
    return {
        (row.verb, shape, *sums[:1], *factors, *sums[1:]): row
        for row in SHAPES
        for shape in row.shapes
        for factors in row.factors
        for sums in row.sums
    }


FORM_ROWS = _index()  # (verb, shape, d, a, b, c) -> its row


def numbers_of(shape: str) -> Tuple[int, int, int]:
    """``m16n8k32`` -> 16, 8, 32."""
    m, rest = shape[1:].split("n")
    n, k = rest.split("k")
    return int(m), int(n), int(k)


def word(shape: str, types: Tuple[str, str, str, str]) -> int:
    """What matrix.h reads: the shape and the types of d, a, b, c."""
    m, n, k = numbers_of(shape)
    d, a, b, c = types
    sizes = (8, 16, 32).index(m) | (8, 16, 32).index(n) << 2 | (k.bit_length() - 3) << 4
    factors = ELEMENTS.index(a) << 7 | ELEMENTS.index(b) << 11
    return sizes | factors | ACCUMULATORS.index(c) << 15 | ACCUMULATORS.index(d) << 17


SATFINITE, AND, SPARSE, LEGACY = 1 << 19, 1 << 20, 1 << 23, 1 << 26
COLUMN_A, COLUMN_B = 1 << 27, 1 << 28
ROUNDING_SHIFT, SELECTOR_SHIFT, PART_SHIFT = 21, 24, 29
PARTS = ("d", "a", "b", "c")  # which of the matrices a fragment record moves; d and c alike


def fill() -> None:
    hand("mma", check="matrix")
    hand("mma_quarters", check="matrix")
    hand("load_fragment", "- raw from32", check="fragment")
    hand("store_fragment", "- raw from32", check="fragment")
    hand("ldmatrix", "- raw", check="ldmatrix")
    hand("ldmatrix_trans", "- raw", check="ldmatrix")
    hand("stmatrix", "- raw", check="stmatrix")
    hand("stmatrix_trans", "- raw", check="stmatrix")
    hand("movmatrix", "to32 from32")
