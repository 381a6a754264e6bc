# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic, logic and bit instructions."""

from __future__ import annotations

from .semantics import carry, each, hand, lane, pair

WIDTHS = (16, 32, 64)


def _arithmetic() -> None:
    for n in WIDTHS:
        u, s = f"u{n}", f"s{n}"
        wide = "u32" if n == 16 else u  # u16 * u16 would overflow int
        packed = {"add": "+", "sub": "-"}
        for name, sign in packed.items():
            lane(f"{name}_{n}", f"{u} {u} {u}", f"A {sign} B", [f"{name}.{u}", f"{name}.{s}"])
        lane(f"mul_{n}", f"{u} {u} {u}", f"({wide})A * B", [f"mul.lo.{u}", f"mul.lo.{s}"])
        lane(f"mad_{n}", f"{u} {u} {u} {u}", f"({wide})A * B + C", [f"mad.lo.{u}", f"mad.lo.{s}"])
        lane(f"neg_{n}", f"{u} {u}", "-A", [f"neg.{s}"])
        lane(f"abs_{n}", f"{u} {s}", f"A < 0 ? -({u})A : ({u})A", [f"abs.{s}"])
        for t in (u, s):
            lane(f"min_{t}", f"{t} {t} {t}", "A < B ? A : B", [f"min.{t}"])
            lane(f"max_{t}", f"{t} {t} {t}", "A > B ? A : B", [f"max.{t}"])
            lane(
                f"sad_{t}",
                f"{u} {t} {t} {u}",
                f"C + (A < B ? ({u})B - ({u})A : ({u})A - ({u})B)",
                [f"sad.{t}"],
            )
        lane(f"cnot_{n}", f"{u} {u}", "A == 0", [f"cnot.b{n}"])
    pair("add_16x2", 2, "A + B", ["add.u16x2", "add.s16x2"])
    lane("add_sat_s32", "s32 s32 s32", "SG_SAT32((int64_t)A + B)", ["add.sat.s32"])
    lane("sub_sat_s32", "s32 s32 s32", "SG_SAT32((int64_t)A - B)", ["sub.sat.s32"])


def _division() -> None:
    for n in WIDTHS:
        u, s = f"u{n}", f"s{n}"
        zero = "~0ull" if n == 64 else f"({u})~0u"
        each(f"div_{u}", f"{u} {u} {u}", f"B ? A / B : {zero}", [f"div.{u}"])
        each(f"rem_{u}", f"{u} {u} {u}", "B ? A % B : A", [f"rem.{u}"])
        each(
            f"div_{s}",
            f"{u} {s} {s}",
            f"B == 0 ? {zero} : B == -1 ? -({u})A : ({u})(A / B)",
            [f"div.{s}"],
        )
        each(
            f"rem_{s}",
            f"{u} {s} {s}",
            f"B == 0 ? ({u})A : B == -1 ? 0 : ({u})(A % B)",
            [f"rem.{s}"],
        )


def _extremes() -> None:
    """min and max with .relu, and of pairs."""
    for name in ("min", "max"):
        sign = "<" if name == "min" else ">"
        relu = f"(A {sign} B ? A : B) > 0 ? (A {sign} B ? A : B) : 0"
        lane(f"{name}_relu_s32", "s32 s32 s32", relu, [f"{name}.relu.s32"])
        for t in ("u16", "s16"):
            pair(f"{name}_{t}x2", 2, f"A {sign} B ? A : B", [f"{name}.{t}x2"], t)
        pair(f"{name}_relu_s16x2", 2, relu, [f"{name}.relu.s16x2"], "s16")


def _products() -> None:
    for t, double in (("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")):
        n = int(t[1:])
        high = f"({double})A * B >> {n}"
        lane(f"mul_hi_{t}", f"{t} {t} {t}", high, [f"mul.hi.{t}"])
        lane(f"mul_wide_{t}", f"{double} {t} {t}", f"({double})A * B", [f"mul.wide.{t}"])
        u, du = f"u{n}", f"u{2 * n}"
        lane(f"mad_hi_{t}", f"{u} {t} {t} {u}", f"({u})({high}) + C", [f"mad.hi.{t}"])
        lane(
            f"mad_wide_{t}",
            f"{du} {t} {t} {du}",
            f"({du})(({double})A * B) + C",
            [f"mad.wide.{t}"],
        )
    for t, double in (("u64", "unsigned __int128"), ("s64", "__int128")):
        high = f"(u64)(({double})A * B >> 64)"
        each(f"mul_hi_{t}", f"u64 {t} {t}", high, [f"mul.hi.{t}"])
        each(f"mad_hi_{t}", f"u64 {t} {t} u64", f"{high} + C", [f"mad.hi.{t}"])
    lane(
        "mad_hi_sat_s32",
        "s32 s32 s32 s32",
        "SG_SAT32(((int64_t)A * B >> 32) + C)",
        ["mad.hi.sat.s32"],
    )


def _products_of_24_bits() -> None:
    for t, cut in (
        ("u32", "(u64)(A & 0xffffff) * (B & 0xffffff)"),
        ("s32", "((int64_t)((s32)((u32)A << 8) >> 8) * ((s32)((u32)B << 8) >> 8))"),
    ):
        lane(f"mul24_lo_{t}", f"u32 {t} {t}", cut, [f"mul24.lo.{t}"])
        lane(f"mul24_hi_{t}", f"u32 {t} {t}", f"{cut} >> 16", [f"mul24.hi.{t}"])
        lane(f"mad24_lo_{t}", f"u32 {t} {t} u32", f"(u32)({cut}) + C", [f"mad24.lo.{t}"])
        lane(f"mad24_hi_{t}", f"u32 {t} {t} u32", f"(u32)({cut} >> 16) + C", [f"mad24.hi.{t}"])
        if t == "s32":
            lane(
                "mad24_hi_sat_s32",
                "s32 s32 s32 s32",
                f"SG_SAT32(({cut} >> 16) + C)",
                ["mad24.hi.sat.s32"],
            )


def _dot_products() -> None:
    for a in ("u32", "s32"):
        for b in ("u32", "s32"):
            kinds = "u32 u32 u32 u32"
            ca, cb = ("(s8)" if a == "s32" else "(u8)"), ("(s8)" if b == "s32" else "(u8)")
            terms = " + ".join(f"(u32)({ca}(A >> {k}) * {cb}(B >> {k}))" for k in (0, 8, 16, 24))
            lane(f"dp4a_{a}_{b}", kinds, f"C + {terms}", [f"dp4a.{a}.{b}"])
            ha = "(s16)" if a == "s32" else "(u16)"
            for part, base in (("lo", 0), ("hi", 16)):
                terms = " + ".join(
                    f"(u32)({ha}(A >> {16 * k}) * {cb}(B >> {base + 8 * k}))" for k in (0, 1)
                )
                lane(f"dp2a_{part}_{a}_{b}", kinds, f"C + {terms}", [f"dp2a.{part}.{a}.{b}"])


def _logic() -> None:
    for n in WIDTHS:
        u = f"u{n}"
        for name, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
            lane(f"{name}_{n}", f"{u} {u} {u}", f"A {sign} B", [f"{name}.b{n}"])
        lane(f"not_{n}", f"{u} {u}", "~A", [f"not.b{n}"])
        lane(f"mov_{n}", f"{u} {u}", "A")
        top = n - 1
        amount = f"(B & {top})" if n > 16 else "(B & 15)"
        lane(
            f"shl_{n}",
            f"{u} {u} u32",
            f"B > {top} ? 0 : ({'u32' if n == 16 else u})A << {amount}",
            [f"shl.b{n}"],
        )
        lane(
            f"shr_{u}",
            f"{u} {u} u32",
            f"B > {top} ? 0 : A >> {amount}",
            [f"shr.u{n}", f"shr.b{n}"],
        )
        lane(f"shr_s{n}", f"s{n} s{n} u32", f"A >> (B > {top} ? {top} : B)", [f"shr.s{n}"])
    # lop3's table has 256 rows: the encoder rewrites the common ones, this computes any
    lane(
        "lop3",
        "u32 u32 u32 u32",
        "((i->x & 1 ? ~A & ~B & ~C : 0) | (i->x & 2 ? ~A & ~B & C : 0)"
        " | (i->x & 4 ? ~A & B & ~C : 0) | (i->x & 8 ? ~A & B & C : 0)"
        " | (i->x & 16 ? A & ~B & ~C : 0) | (i->x & 32 ? A & ~B & C : 0)"
        " | (i->x & 64 ? A & B & ~C : 0) | (i->x & 128 ? A & B & C : 0))",
    )


def _bits() -> None:
    for n, suffix in ((32, ""), (64, "ll")):
        u, s = f"u{n}", f"s{n}"
        each(f"popc_{n}", f"u32 {u}", f"__builtin_popcount{suffix}(A)", [f"popc.b{n}"])
        each(f"clz_{n}", f"u32 {u}", f"A ? __builtin_clz{suffix}(A) : {n}", [f"clz.b{n}"])
        each(f"brev_{n}", f"{u} {u}", f"sg_reverse{n}(A)", [f"brev.b{n}"])
        for t in (u, s):
            value = "A" if t == u else f"(A < 0 ? ~({u})A : ({u})A)"
            each(
                f"bfind_{t}",
                f"u32 {t}",
                f"{value} ? (u32)({n - 1} - __builtin_clz{suffix}({value})) : ~0u",
                [f"bfind.{t}"],
            )
            each(
                f"bfind_shift_{t}",
                f"u32 {t}",
                f"{value} ? (u32)__builtin_clz{suffix}({value}) : ~0u",
                [f"bfind.shiftamt.{t}"],
            )
            each(f"bfe_{t}", f"{u} {u} u32 u32", f"sg_bfe_{t}(A, B, C)", [f"bfe.{t}"])
        hand(f"bfi_{n}", f"to{n} from{n} from{n} from32", check="length")


def _masks_and_shifts() -> None:
    for mode in ("clamp", "wrap"):
        each(f"bmsk_{mode}", "u32 u32 u32", f"sg_bmsk_{mode}(A, B)", [f"bmsk.{mode}.b32"])
        for t in ("u32", "s32"):
            each(
                f"szext_{mode}_{t}",
                "u32 u32 u32",
                f"sg_szext_{t}(A, {'B & 31' if mode == 'wrap' else 'B > 31 ? 32 : B'})",
                [f"szext.{mode}.{t}"],
            )
        amount = "C & 31" if mode == "wrap" else "C > 32 ? 32 : C"
        lane(
            f"shf_l_{mode}",
            "u32 u32 u32 u32",
            f"(((u64)B << 32 | A) << ({amount})) >> 32",
            [f"shf.l.{mode}.b32"],
        )
        lane(
            f"shf_r_{mode}",
            "u32 u32 u32 u32",
            f"((u64)B << 32 | A) >> ({amount})",
            [f"shf.r.{mode}.b32"],
        )
    each("fns", "u32 u32 u32 s32", "sg_fns(A, B, C)", ["fns.b32"])
    each("prmt", "u32 u32 u32 u32", "sg_prmt(A, B, C)", ["prmt.b32"])
    for mode in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
        each(f"prmt_{mode}", "u32 u32 u32 u32", f"sg_prmt_{mode}(A, B, C)", [f"prmt.b32.{mode}"])


def _carries() -> None:
    for n in (32, 64):
        u = f"u{n}"
        both = (f"u{n}", f"s{n}")
        add = "const {u} s = A + B; r = s + {cin}; {out}"
        plain = "OUT = s < A; OUT |= r < s"
        for name, cin, flag in (
            ("add.cc", "0", True),
            ("addc", "IN", False),
            ("addc.cc", "IN", True),
        ):
            body = add.format(u=u, cin=f"({u}){cin}", out=plain if flag else "")
            carry(f"{name.replace('.', '_')}_{n}", u, body, [f"{name}.{t}" for t in both], 2)
        sub = "const {u} s = A - B; r = s - {cin}; {out}"
        plain = "OUT = A < B; OUT |= s < r"
        for name, cin, flag in (
            ("sub.cc", "0", True),
            ("subc", "IN", False),
            ("subc.cc", "IN", True),
        ):
            body = sub.format(u=u, cin=f"({u}){cin}", out=plain if flag else "")
            carry(f"{name.replace('.', '_')}_{n}", u, body, [f"{name}.{t}" for t in both], 2)


def _carried_products() -> None:
    for n in (32, 64):
        u = f"u{n}"
        both = (f"u{n}", f"s{n}")
        for part in ("lo", "hi"):
            for t in both:
                if part == "lo":
                    product = "A * B"
                else:
                    wide = {
                        "u32": "u64",
                        "s32": "s64",
                        "u64": "unsigned __int128",
                        "s64": "__int128",
                    }[t]
                    product = f"({u})(({wide})({t})A * ({t})B >> {n})"
                for name, cin, flag in (
                    ("mad.{}.cc", "0", True),
                    ("madc.{}", "IN", False),
                    ("madc.{}.cc", "IN", True),
                ):
                    body = f"const {u} p = {product}; const {u} s = p + C; r = s + ({u}){cin}; "
                    body += "OUT = s < p; OUT |= r < s" if flag else ""
                    mnemonic = f"{name.format(part)}.{t}"
                    carry(mnemonic.replace(".", "_"), u, body, [mnemonic])


def _video() -> None:
    kinds = "to32 from32 from32 from32"
    hand("video", kinds)
    hand("video_lanes", kinds)


def fill() -> None:
    _arithmetic()
    _division()
    _extremes()
    _products()
    _products_of_24_bits()
    _dot_products()
    _logic()
    _bits()
    _masks_and_shifts()
    _carries()
    _carried_products()
    _video()
