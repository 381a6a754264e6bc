# SPDX-License-Identifier: Apache-2.0
"""f16 and bf16, alone and in pairs; sums of halves and f32. The functions are in half.h."""

from __future__ import annotations

from typing import List, Sequence

from ..ptx.record import dataclass
from .ops_float import FLUSH, SATURATE, name_of
from .semantics import lane, pair, rounded, spellings


@dataclass(frozen=True)
class _Half:
    """A type, and whether its subnormals are flushed."""

    name: str
    ftz: str = ""

    def flushed(self, text: str) -> str:
        return f"sg_ftz_f16({text})" if self.ftz else text

    def single(self, operand: str) -> str:
        return f"sg_{self.name}_to_f32({self.flushed(operand)})"

    def half(self, text: str) -> str:
        return f"sg_f32_to_{self.name}({text})"

    def finished(self, text: str, sat: str = "", relu: str = "") -> str:
        if sat:
            return f"sg_sat_{self.name}({text})"
        return f"sg_relu_{self.name}({text})" if relu else text

    def define(self, parts: Sequence[str], count: int, text: str, words: List[str]) -> None:
        """A handler for one half and one for two, under all spellings."""
        alone = name_of(*parts, self.name)
        lane(alone, " ".join(["u16"] * (count + 1)), text, [f"{w}.{self.name}" for w in words])
        pair(alone + "x2", count, text, [f"{w}.{self.name}x2" for w in words])


_ALL = (_Half("f16"), _Half("f16", "ftz"), _Half("bf16"))


def _arithmetic() -> None:
    for h in _ALL:
        for sat in SATURATE if h.name == "f16" else ("",):
            for op, sign in (("add", "+"), ("sub", "-"), ("mul", "*")):
                text = h.flushed(h.half(f"{h.single('A')} {sign} {h.single('B')}"))
                words = spellings([op], ["", "rn"], [h.ftz], [sat])
                h.define((op, h.ftz, sat), 2, h.finished(text, sat), words)
            for relu in ("", "relu") if not sat else ("",):
                operands = ", ".join(map(h.flushed, "ABC"))
                text = h.finished(h.flushed(f"sg_fma_{h.name}({operands})"), sat, relu)
                words = spellings(["fma"], ["rn"], [h.ftz], [sat], [relu])
                h.define(("fma", h.ftz, sat, relu), 3, text, words)
                if not h.ftz:
                    outside = " || ".join(f"{x} == SG_OUTSIDE" for x in "ABC")
                    words = spellings(["fma"], ["rn"], ["oob"], [sat], [relu])
                    text = f"({outside}) ? 0 : {text}"
                    h.define(("fma_oob", sat, relu), 3, text, words)


def _functions() -> None:
    for h in _ALL:
        for op, text in (("neg", "A ^ 0x8000"), ("abs", "A & 0x7fff")):
            flushed = h.flushed(text.replace("A", h.flushed("A")))
            h.define((op, h.ftz), 1, flushed, spellings([op], [h.ftz]))
        for op in ("ex2", "tanh"):
            if h.ftz and op == "tanh":
                continue
            call = "exp2f" if op == "ex2" else "tanhf"
            text = h.flushed(h.half(f"sg_nan32({call}({h.single('A')}))"))
            flush = "ftz" if op == "ex2" and h.name == "bf16" else h.ftz
            h.define((op, h.ftz), 1, text, spellings([op], ["approx"], [flush]))


def _extremes() -> None:
    for h in _ALL:
        for op in ("min", "max"):
            for nan in ("", "NaN"):
                for xor in ("", "xorsign.abs"):
                    call = f"sg_{op}{'_nan' if nan else ''}{'_xorsign' if xor else ''}32"
                    text = h.half(f"{call}({h.single('A')}, {h.single('B')})")
                    if xor:  # an f32 made of a NaN does not have its sign
                        a, b = h.single("A"), h.single("B")
                        none = f"{a} != {a} {'||' if nan else '&&'} {b} != {b}"
                        sign = f"({none} ? 0 : (A ^ B) & 0x8000)"
                        text = f"({text} & 0x7fff) | {sign}"
                    parts = (op, h.ftz, nan, xor.replace(".", "_"))
                    h.define(parts, 2, text, spellings([op], [h.ftz], [nan], [xor]))


def _with_singles() -> None:
    """``add.f32.f16``: halves that are added to, or multiplied into, an f32."""
    for t in ("f16", "bf16"):
        a, b = f"sg_{t}_to_f32(A)", f"sg_{t}_to_f32(B)"
        for rnd in ("rn", "rz", "rm", "rp"):
            for sat in SATURATE:
                for op, text in (("add", f"{a} + B"), ("sub", f"{a} - B")):
                    shown = ["", "rn"] if rnd == "rn" else [rnd]
                    words = spellings([op], shown, [sat], ["f32"], [t])
                    name = name_of(op, rnd, sat, "f32", t)
                    rounded(name, rnd, "f32 u16 f32", _single(text, sat), words)
                words = spellings(["fma"], [rnd], [sat], ["f32"], [t])
                text = _single(f"__builtin_fmaf({a}, {b}, C)", sat)
                rounded(name_of("fma", rnd, sat, "f32", t), rnd, "f32 u16 u16 f32", text, words)


def _single(text: str, sat: str) -> str:
    return f"sg_sat32(sg_nan32({text}))" if sat else f"sg_nan32({text})"


def _pairs_of_singles() -> None:
    """f32x2: two f32 in 64 bits."""
    table = (
        ("add", "{a} + {b}", 2),
        ("sub", "{a} - {b}", 2),
        ("mul", "{a} * {b}", 2),
        ("fma", "__builtin_fmaf({a}, {b}, {c})", 3),
    )
    for op, text, count in table:
        for rnd in ("rn", "rz", "rm", "rp"):
            shown = ["", "rn"] if rnd == "rn" and op != "fma" else [rnd]
            for ftz in FLUSH:
                sources = {x.lower(): f"sg_ftz({x})" if ftz else x for x in "ABC"}
                value = f"sg_nan32({text.format(**sources)})"
                value = f"sg_ftz({value})" if ftz else value
                words = spellings([op], shown, [ftz], ["f32x2"])
                pair(name_of(op, rnd, ftz, "f32x2"), count, value, words, "f32", rnd)


def fill() -> None:
    _arithmetic()
    _functions()
    _extremes()
    _with_singles()
    _pairs_of_singles()
