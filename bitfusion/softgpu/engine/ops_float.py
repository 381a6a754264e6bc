# SPDX-License-Identifier: Apache-2.0
"""Floating point: f32 and f64."""

from __future__ import annotations

from itertools import product
from typing import List, Tuple

from .semantics import each, lane, rounded, spellings, test

SATURATE = ("", "sat")
FLUSH = ("", "ftz")


def _wrap32(expression: str, ftz: str, sat: str) -> str:
    """The result rules of f32: one NaN, subnormals flushed, clamped to [0, 1]."""
    result = f"sg_nan32({expression})"
    if ftz:
        result = f"sg_ftz({result})"
    return f"sg_sat32({result})" if sat else result


def _inputs(expression: str, ftz: str) -> str:
    if not ftz:
        return expression
    return "".join(f"sg_ftz({c})" if c in "ABC" else c for c in expression)


def name_of(*parts: str) -> str:
    return "_".join(part for part in parts if part)


def _spelled(op: str, rnd: str, *rest: str) -> List[str]:
    """All spellings of arithmetic: ``.rn`` may be left out but of fma; mad is fma."""
    shown = ["", "rn"] if rnd == "rn" else [rnd]
    tail = [[word] for word in rest]
    if op == "fma":
        return spellings(["fma"], [rnd], *tail) + spellings(["mad"], shown, *tail)
    return spellings([op], shown, *tail)


def _rounded_arithmetic() -> None:
    table = (
        ("add", "A + B", 2),
        ("sub", "A - B", 2),
        ("mul", "A * B", 2),
        ("fma", "__builtin_fma{}(A, B, C)", 3),
    )
    for op, expression, count in table:
        for rnd in ("rn", "rm", "rp", "rz"):
            for ftz, sat in product(FLUSH, SATURATE):
                text = _wrap32(_inputs(expression.replace("{}", "f"), ftz), ftz, sat)
                words = _spelled(op, rnd, ftz, sat, "f32")
                rounded(name_of(op, rnd, ftz, sat, "f32"), rnd, _same("f32", count), text, words)
            words = _spelled(op, rnd, "f64")
            text = expression.replace("{}", "")
            rounded(name_of(op, rnd, "f64"), rnd, _same("f64", count), text, words)


def _same(kind: str, sources: int) -> str:
    return " ".join([kind] * (sources + 1))


def _quotient_words(op: str, rnd: str) -> Tuple[List[str], List[str]]:
    """How .f32 may spell the rounding, and all spellings of .f64."""
    words = spellings([op], [rnd], ["f64"])
    if rnd != "rn":
        return [rnd], words
    if op == "div":
        return ["rn", "approx", "full"], [*words, "div.f64"]
    return ["rn", "approx"], words


def _quotients() -> None:
    table = (("div", "A / B", 2), ("rcp", "1 / A", 1), ("sqrt", "__builtin_sqrt{}(A)", 1))
    for rnd in ("rn", "rm", "rp", "rz"):
        for op, expression, count in table:
            shown, words = _quotient_words(op, rnd)
            for ftz in FLUSH:
                text = _wrap32(_inputs(expression.replace("{}", "f"), ftz), ftz, "")
                spelled = spellings([op], shown, [ftz], ["f32"])
                if (op, rnd, ftz) == ("div", "rn", "ftz"):
                    # PTX 1.0 to 1.3 has no .approx, and means div.approx.ftz.f32
                    spelled += ["div.f32", "div.ftz.f32"]
                rounded(name_of(op, rnd, ftz, "f32"), rnd, _same("f32", count), text, spelled)
            text = expression.replace("{}", "")
            rounded(name_of(op, rnd, "f64"), rnd, _same("f64", count), text, words)
    for name, expression, word in (
        ("rsqrt_f64", "1 / __builtin_sqrt(A)", "rsqrt.approx.f64"),
        ("rsqrt_ftz_f64", "1 / __builtin_sqrt(sg_ftz64(A))", "rsqrt.approx.ftz.f64"),
        ("rcp_ftz_f64", "sg_ftz64(1 / sg_ftz64(A))", "rcp.approx.ftz.f64"),
    ):
        each(name, "f64 f64", expression, [word])


def _functions() -> None:
    table = (
        ("sin", "sinf(A)"),
        ("cos", "cosf(A)"),
        ("ex2", "exp2f(A)"),
        ("lg2", "log2f(A)"),
        ("rsqrt", "(float)(1 / __builtin_sqrt((double)A))"),
    )
    for op, expression in table:
        for ftz in FLUSH:
            text = _wrap32(
                _inputs(expression.replace("f(A)", "f<A>"), ftz)
                .replace("<", "(")
                .replace(">", ")"),
                ftz,
                "",
            )
            each(
                name_of(op, ftz, "f32"),
                "f32 f32",
                text,
                spellings(
                    [
                        op,
                    ],
                    ["approx"],
                    [ftz],
                    ["f32"],
                ),
            )
    each("tanh_f32", "f32 f32", "sg_nan32(tanhf(A))", ["tanh.approx.f32"])


def _signs_and_extremes() -> None:
    for n in (32, 64):
        u, f = f"u{n}", f"f{n}"
        sign = "0x80000000u" if n == 32 else "0x8000000000000000ull"
        lane(f"neg_{f}", f"{u} {u}", f"A ^ {sign}", [f"neg.{f}"])
        lane(f"abs_{f}", f"{u} {u}", f"A & ~{sign}", [f"abs.{f}"])
        lane(f"copysign_{f}", f"{u} {u} {u}", f"(A & {sign}) | (B & ~{sign})", [f"copysign.{f}"])
        for op in ("min", "max"):
            lane(f"{op}_{f}", f"{f} {f} {f}", f"sg_{op}{n}(A, B)", [f"{op}.{f}"])
    lane("neg_ftz_f32", "f32 f32", "sg_ftz(-A)", ["neg.ftz.f32"])
    lane("abs_ftz_f32", "f32 f32", "sg_ftz(__builtin_fabsf(A))", ["abs.ftz.f32"])
    for op in ("min", "max"):
        for ftz in FLUSH:
            for nan in ("", "NaN"):
                for xor in ("", "xorsign.abs"):
                    name = name_of(op, ftz, nan, xor.replace(".", "_"), "f32")
                    call = f"sg_{op}{'_nan' if nan else ''}{'_xorsign' if xor else ''}32"
                    words = spellings([op], [ftz], [nan], [xor], ["f32"])
                    if name != f"{op}_f32":
                        lane(name, "f32 f32 f32", _inputs(f"{call}(A, B)", ftz), words)
                    if not xor:
                        lane(
                            name + "_3",
                            "f32 f32 f32 f32",
                            _inputs(f"{call}({call}(A, B), C)", ftz),
                        )
    for f in ("f32", "f64"):
        bits = f[1:]
        for kind in ("finite", "infinite", "number", "notanumber", "normal", "subnormal"):
            test(f"testp_{kind}_{f}", f"u{bits}", f"sg_{kind}{bits}(A)")


def _comparisons() -> None:
    ordered = {
        "eq": "A == B",
        "ne": "A < B || A > B",
        "lt": "A < B",
        "le": "A <= B",
        "gt": "A > B",
        "ge": "A >= B",
    }
    for name, text in ordered.items():
        for t in ("f32", "f64"):
            test(f"setp_{name}_{t}", f"{t} {t}", text)
            test(
                f"setp_{name}u_{t}",
                f"{t} {t}",
                f"!(A == A && B == B) || {text}" if name == "ne" else f"!({_opposite(name)})",
            )
        for bits in ("16", "32", "64"):
            for sign in "us" if name not in ("eq", "ne") else "u":
                plain = "A != B" if name == "ne" else text
                test(f"setp_{name}_{sign}{bits}", f"{sign}{bits} {sign}{bits}", plain)
    for t in ("f32", "f64"):
        test(f"setp_num_{t}", f"{t} {t}", "A == A && B == B")
        test(f"setp_nan_{t}", f"{t} {t}", "!(A == A && B == B)")


def _opposite(name: str) -> str:
    """The ordered comparison that is false exactly where the unordered one is true."""
    return {
        "eq": "A < B || A > B",
        "lt": "A >= B",
        "le": "A > B",
        "gt": "A <= B",
        "ge": "A < B",
    }.get(name, "")


def fill() -> None:
    _rounded_arithmetic()
    _quotients()
    _functions()
    _signs_and_extremes()
    _comparisons()
