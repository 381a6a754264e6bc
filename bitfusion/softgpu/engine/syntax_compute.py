# SPDX-License-Identifier: Apache-2.0
"""Forms of instructions on registers: comparisons, conversions, moves, video."""

from __future__ import annotations

from .ops_convert import NARROW
from .syntax import CHOICES, rows

CHOICES.update({
    "ORDER": "eq|ne|lt|le|gt|ge",
    "ANY": "eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan",
    "UORDER": "eq|ne|lt|le|gt|ge|lo|ls|hi|hs",
    "WHOLE": "rni|rzi|rmi|rpi",
    "ROUND": "rn|rz|rm|rp",
    "NARROW": "|".join(f"{kind}x2" for kind in NARROW),
    "UINT": "u16|u32|u64",
    "SINT": "s16|s32|s64",
    "W": "u32|s32",
})  # fmt: skip


def _comparisons() -> None:
    kinds = (
        ("eq|ne BOOL?", "BITS"), ("ORDER BOOL?", "SINT"), ("UORDER BOOL?", "UINT"),
        ("ANY BOOL? ftz?", "f32"), ("ANY BOOL?", "f64"),
    )  # fmt: skip
    for test, kind in kinds:
        rows("setp", f"{test} {kind}")
        rows("set", f"{test} u32|s32|f32|f16 {kind}", f"{test.replace(' ftz?', '')} bf16 {kind}")
    rows("setp", "ANY BOOL? ftz? f16|f16x2", "ANY BOOL? bf16|bf16x2")
    rows("set", "ANY BOOL? ftz? f16|u16|s16|u32|s32 f16", "ANY BOOL? ftz? f16x2|u32|s32 f16x2")
    rows(
        "set",
        "ANY BOOL? bf16 f16",
        "ANY BOOL? bf16|u16|s16|u32|s32 bf16",
        "ANY BOOL? bf16x2|u32|s32 bf16x2",
    )
    rows("slct", "REGISTER s32", "ftz? REGISTER f32")
    rows("testp", "finite|infinite|number|notanumber|normal|subnormal f32|f64")
    rows("min max", "ftz? NaN? f32", note="of three")
    rows("min max", "ftz? NaN? abs f32", note="of three")


def _moves() -> None:
    rows("mov", "pred|b128", "REGISTER", "v2 REGISTER", "v4 b16|u16|s16|b32|u32|s32|f32")
    rows("selp", "REGISTER")
    rows("lop3", "and|or? b32")
    rows("bfi", "b32|b64")


def _conversions() -> None:
    rows("cvt", "sat? INTEGER8 INTEGER8")
    rows("cvt", "WHOLE ftz? sat? INTEGER8 f32", "WHOLE sat? INTEGER8 f16|bf16|f64")
    rows("cvt", "ROUND ftz? sat? f32 INTEGER8", "ROUND sat? f16|f64 INTEGER8")
    rows("cvt", "ROUND bf16 INTEGER8")
    rows("cvt", "WHOLE? ftz? sat? f32 f32", "WHOLE? sat? f16 f16", "WHOLE? sat? f64 f64")
    rows("cvt", "WHOLE? bf16 bf16")
    rows(
        "cvt",
        "ftz? sat? f32 f16",
        "ROUND? ftz? sat? f32 bf16",
        "sat? f64 f16",
        "ROUND? sat? f64 bf16",
        "ftz? sat? f64 f32",
    )
    rows("cvt", "ROUND ftz? sat? f32 f64", "ROUND ftz? sat? f16 f32", "ROUND sat? f16 f64")
    rows("cvt", "ROUND ftz? bf16 f32", "ROUND? bf16 f16", "ROUND bf16 f64", "ROUND sat? f16 bf16")
    rows("cvt", "f16 bf16")
    rows("cvt", "rn|rz relu? satfinite? f16|bf16 f32")
    rows("cvt", "rn|rz relu? satfinite? f16x2|bf16x2 f32", note="of two")
    rows("cvt", "rna satfinite? tf32 f32", "rn|rz relu? satfinite? tf32 f32")
    rows("cvt", "rn satfinite relu? NARROW f32", note="of two")
    rows("cvt", "rn satfinite relu? NARROW f16x2|bf16x2", "rn relu? f16x2 NARROW")
    rows("cvt", "rz|rp satfinite? ue8m0x2 f32", note="of two")
    rows("cvt", "rz|rp satfinite? ue8m0x2 bf16x2", "rn bf16x2 ue8m0x2")
    rows("cvt", "pack sat u16|s16 s32", note="of two")
    rows("cvt", "pack sat u8|s8|u4|s4|u2|s2 s32 b32", note="of two, and what is below")


def _video() -> None:
    rows("vadd vsub vabsdiff vmin vmax", "W W W sat? add|min|max?")
    rows("vset", "W W ORDER add|min|max?")
    rows("vshl vshr", "W W u32 sat? clamp|wrap add|min|max?")
    rows("vmad", "W W W sat? shr7|shr15?", "W W W po sat? shr7|shr15?")
    for count in "24":
        names = " ".join(
            f"v{name}{count}" for name in ("add", "sub", "absdiff", "min", "max", "avrg")
        )
        rows(names, "W W W sat?", "W W W add")
        rows(f"vset{count}", "W W ORDER add?")


_comparisons()
_moves()
_conversions()
_video()
