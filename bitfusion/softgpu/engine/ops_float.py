# SPDX-License-Identifier: Apache-2.0
"""Floating point: f32, f64, and the half types, which compute in f32 or f64 and round once."""

from __future__ import annotations

from typing import List

from .semantics import each, lane, pair, rounded, spellings, test

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


def _name(*parts: str) -> str:
    return "_".join(part for part in parts if part)


def _rounded_arithmetic() -> None:
    table = (
        ("add", "A + B", 2),
        ("sub", "A - B", 2),
        ("mul", "A * B", 2),
        ("fma", "__builtin_fma{}(A, B, C)", 3),
    )
    for op, expression, count in table:
        for rnd in ("rn", "rm", "rp", "rz"):
            shown = ("rn", "") if rnd == "rn" and op != "fma" else (rnd,)
            for ftz in FLUSH:
                for sat in SATURATE:
                    text = _wrap32(_inputs(expression.replace("{}", "f"), ftz), ftz, sat)
                    words = spellings([op], shown, [ftz], [sat], ["f32"])
                    if op == "fma":
                        words += spellings(
                            ["mad"], ["", "rn"] if rnd == "rn" else [rnd], [ftz], [sat], ["f32"]
                        )
                    rounded(
                        _name(op, rnd, ftz, sat, "f32"),
                        rnd,
                        " ".join(["f32"] * (count + 1)),
                        text,
                        words,
                    )
            words = spellings([op], shown, ["f64"])
            if op == "fma":
                words += spellings(["mad"], ["", "rn"] if rnd == "rn" else [rnd], ["f64"])
            rounded(
                _name(op, rnd, "f64"),
                rnd,
                " ".join(["f64"] * (count + 1)),
                expression.replace("{}", ""),
                words,
            )


def _quotients() -> None:
    for rnd in ("rn", "rm", "rp", "rz"):
        for op, expression, types in (
            ("div", "A / B", 2),
            ("rcp", "1 / A", 1),
            ("sqrt", "__builtin_sqrt{}(A)", 1),
        ):
            for ftz in FLUSH:
                approximate: List[str] = []
                if rnd == "rn":
                    approximate = ["approx", "full"] if op == "div" else ["approx"]
                    if op == "div":
                        approximate.append("")
                words = spellings([op], [rnd, *approximate], [ftz], ["f32"])
                text = _wrap32(_inputs(expression.replace("{}", "f"), ftz), ftz, "")
                rounded(
                    _name(op, rnd, ftz, "f32"), rnd, " ".join(["f32"] * (types + 1)), text, words
                )
            words = spellings([op], [rnd], ["f64"])
            if rnd == "rn":
                words += (
                    ["rcp.approx.ftz.f64"] if op == "rcp" else ["div.f64"] if op == "div" else []
                )
            rounded(
                _name(op, rnd, "f64"),
                rnd,
                " ".join(["f64"] * (types + 1)),
                expression.replace("{}", ""),
                words,
            )
    each(
        "rsqrt_f64",
        "f64 f64",
        "1 / __builtin_sqrt(A)",
        ["rsqrt.approx.f64", "rsqrt.approx.ftz.f64"],
    )


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
                _name(op, ftz, "f32"),
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
                    name = _name(op, ftz, nan, xor.replace(".", "_"), "f32")
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


def _halves() -> None:
    """f16 and bf16, alone and in pairs. ``sg_add_f16`` and so on are in half.h."""
    for t in ("f16", "bf16"):
        to, back = f"sg_{t}_to_f32", f"sg_f32_to_{t}"
        for ftz in FLUSH if t == "f16" else ("",):
            fi = (lambda x: f"sg_ftz_f16({x})") if ftz else (lambda x: x)
            for sat in SATURATE if t == "f16" else ("",):
                for op, sign in (("add", "+"), ("sub", "-"), ("mul", "*")):
                    value = fi(f"{back}({to}({fi('A')}) {sign} {to}({fi('B')}))")
                    value = f"sg_sat_{t}({value})" if sat else value
                    words = spellings([op], ["", "rn"], [ftz], [sat])
                    lane(_name(op, ftz, sat, t), "u16 u16 u16", value, [f"{w}.{t}" for w in words])
                    pair(_name(op, ftz, sat, t + "x2"), 2, value, [f"{w}.{t}x2" for w in words])
                for relu in ("", "relu"):
                    if relu and sat:
                        continue
                    value = fi(f"sg_fma_{t}({fi('A')}, {fi('B')}, {fi('C')})")
                    value = (
                        f"sg_sat_{t}({value})"
                        if sat
                        else f"sg_relu_{t}({value})"
                        if relu
                        else value
                    )
                    words = spellings(["fma"], ["rn"], [ftz], [sat], [relu])
                    lane(
                        _name("fma", ftz, sat, relu, t),
                        "u16 u16 u16 u16",
                        value,
                        [f"{w}.{t}" for w in words],
                    )
                    pair(
                        _name("fma", ftz, sat, relu, t + "x2"),
                        3,
                        value,
                        [f"{w}.{t}x2" for w in words],
                    )
            for op, call in (
                ("neg", "A ^ 0x8000"),
                ("abs", "A & 0x7fff"),
                ("ex2", f"{back}(sg_nan32(exp2f({to}(A))))"),
                ("tanh", f"{back}(sg_nan32(tanhf({to}(A))))"),
            ):
                if ftz and op == "tanh":
                    continue
                approx = ["approx"] if op in ("ex2", "tanh") else [""]
                flushes = [ftz]
                if op == "ex2" and t == "bf16":
                    flushes = ["ftz"]
                value = fi(call.replace("A", fi("A"))) if ftz else call
                words = spellings([op], approx, flushes)
                lane(_name(op, ftz, t), "u16 u16", value, [f"{w}.{t}" for w in words])
                pair(_name(op, ftz, t + "x2"), 1, value, [f"{w}.{t}x2" for w in words])
            for op in ("min", "max"):
                for nan in ("", "NaN"):
                    for xor in ("", "xorsign.abs"):
                        call = f"sg_{op}{'_nan' if nan else ''}{'_xorsign' if xor else ''}32"
                        value = f"{back}({call}({to}({fi('A')}), {to}({fi('B')})))"
                        words = spellings([op], [ftz], [nan], [xor])
                        name = _name(op, ftz, nan, xor.replace(".", "_"), t)
                        lane(name, "u16 u16 u16", value, [f"{w}.{t}" for w in words])
                        pair(name + "x2", 2, value, [f"{w}.{t}x2" for w in words])


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
    _halves()
    _comparisons()
