# SPDX-License-Identifier: Apache-2.0
"""Conversions. :mod:`.lower_convert` composes a ``cvt`` of these; they have no mnemonic."""

from __future__ import annotations

from .semantics import each, hand, lane, pair, rounded

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
ROUND_TO_INTEGER = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
LIMITS = {
    "u8": ("0", "255"),
    "s8": ("-128", "127"),
    "u16": ("0", "65535"),
    "s16": ("-32768", "32767"),
    "u32": ("0", "4294967295u"),
    "s32": ("(-2147483647 - 1)", "2147483647"),
    "u64": ("0", "18446744073709551615ull"),
    "s64": ("(-9223372036854775807ll - 1)", "9223372036854775807ll"),
}


def _integers() -> None:
    """``ext_<from>_<type>_<to>``: read a register, cut to a type, extend to another register."""
    for source in (16, 32, 64):
        for t in INTEGERS:
            if int(t[1:]) > source:
                continue
            for target in (16, 32, 64):
                if target == source == int(t[1:]) or int(t[1:]) > target:
                    continue
                lane(f"ext_{source}_{t}_{target}", f"u{target} u{source}", f"({t})A")
    for wide in ("s64", "u64"):
        for t in INTEGERS:
            low, high = LIMITS[t]
            if wide == "u64":
                text = f"A > (u64){high} ? (u64){high} : A"
            elif t == "u64":
                text = "A < 0 ? 0 : A"
            else:
                text = f"A < (s64){low} ? (s64){low} : A > (s64){high} ? (s64){high} : A"
            lane(f"sat_{wide}_{t}", f"u64 {wide}", text)


def _float_to_integer() -> None:
    for f, suffix in (("f32", "f"), ("f64", "")):
        for t in INTEGERS:
            bits = int(t[1:])
            low, high = LIMITS[t]
            target = f"u{max(bits, 32)}"
            # the first value past the top, exact in both formats
            top = f"{2.0 ** (bits - (t[0] == 's')):.1f}{suffix}"
            bottom = f"-{2.0 ** (bits - 1):.1f}{suffix}" if t[0] == "s" else f"0.0{suffix}"
            nan = "0"
            if f == "f64" or bits == 64:
                nan = "0x80000000u" if bits <= 32 else "0x8000000000000000ull"
                if bits < 32:
                    nan = "0"
            for mode, function in ROUND_TO_INTEGER.items():
                value = f"sg_{function}{f[1:]}(A)"
                lane(
                    f"{mode}_{f}_{t}",
                    f"{target} {f}",
                    f"A != A ? ({t}){nan} : {value} >= {top} ? ({t}){high}"
                    f" : {value} <= {bottom} ? ({t}){low} : ({t}){value}",
                )


def _integer_to_float() -> None:
    for t in ("u32", "s32", "u64", "s64"):
        for f in ("f32", "f64"):
            for rnd in ("rn", "rz", "rm", "rp"):
                rounded(f"cvt_{rnd}_{f}_{t}", rnd, f"{f} {t}", f"({f})A")
    for t in ("s64", "u64"):
        for h in ("f16", "bf16"):
            for rnd in ("rn", "rz", "rm", "rp"):
                each(f"cvt_{rnd}_{h}_{t}", f"u16 {t}", f"sg_{t}_to_{h}(A, SG_{rnd.upper()})")


def _floats() -> None:
    lane("cvt_f32_f16", "f32 u16", "sg_f16_to_f32(A)")
    lane("cvt_f32_bf16", "f32 u16", "sg_bf16_to_f32(A)")
    lane("cvt_f64_f32", "f64 f32", "(double)A")
    for rnd in ("rn", "rz", "rm", "rp"):
        rounded(f"cvt_{rnd}_f32_f64", rnd, "f32 f64", "sg_nan32((float)A)")
        for h in ("f16", "bf16"):
            if rnd == "rn":
                lane(f"cvt_rn_{h}_f32", "u16 f32", f"sg_f32_to_{h}(A)")
            else:
                each(f"cvt_{rnd}_{h}_f32", "u16 f32", f"sg_f64_to_{h}(A, SG_{rnd.upper()})")
            each(f"cvt_{rnd}_{h}_f64", "u16 f64", f"sg_f64_to_{h}(A, SG_{rnd.upper()})")
    for mode, function in ROUND_TO_INTEGER.items():
        lane(f"{mode}_f32", "f32 f32", f"sg_nan32(sg_{function}32(A))")
        lane(f"{mode}_f64", "f64 f64", f"sg_{function}64(A)")
    lane("flush_f32", "f32 f32", "sg_ftz(A)")
    lane("flush_f16", "u16 u16", "sg_ftz_f16(A)")
    lane("sat_f32", "f32 f32", "sg_sat32(A)")
    lane("sat_f64", "f64 f64", "A > 0 ? A < 1 ? A : 1 : 0")
    lane("canonical_f32", "f32 f32", "sg_nan32(A)")
    for h in ("f16", "bf16"):
        lane(f"sat_{h}", "u16 u16", f"sg_sat_{h}(A)")
        lane(f"relu_{h}", "u16 u16", f"sg_relu_{h}(A)")
        pair(f"relu_{h}x2", 1, f"sg_relu_{h}(A)")
        lane(f"satfinite_{h}", "u16 u16", f"sg_satfinite_{h}(A)")
        pair(f"satfinite_{h}x2", 1, f"sg_satfinite_{h}(A)")
    for rnd in ("rna", "rn", "rz"):
        lane(f"cvt_{rnd}_tf32", "u32 f32", f"sg_f32_to_tf32_{rnd}(A)")
    lane("satfinite_tf32", "u32 u32", "sg_satfinite_tf32(A)")
    lane("relu_f32", "f32 f32", "sg_relu32(A)")


NARROW = {"e4m3": 8, "e5m2": 8, "e3m2": 6, "e2m3": 6, "e2m1": 4}


def _narrow() -> None:
    """Pairs of fp8, fp6 and fp4; the first of two sources goes to the high part."""
    for t, bits in NARROW.items():
        high = 8 if bits > 4 else 4
        low_mask, part = (1 << high) - 1, f"(A >> {high})"
        codes = f"(sg_f32_to_{t}({{a}}) << {high} | sg_f32_to_{t}({{b}}))"
        for relu in ("", "relu"):
            single = "sg_relu32" if relu else ""
            suffix = "_relu" if relu else ""
            text = codes.format(a=f"{single}(A)", b=f"{single}(B)")
            lane(f"cvt_{t}x2_f32{suffix}", "u16 f32 f32", text)
            for h in ("f16", "bf16"):
                wide = f"{single}(sg_{h}_to_f32((u16)({{}})))"
                text = codes.format(a=wide.format("A >> 16"), b=wide.format("A"))
                lane(f"cvt_{t}x2_{h}x2{suffix}", "u16 u32", text)
            half = f"sg_f32_to_f16({single}(sg_{t}_to_f32({{}})))"
            text = f"(u32){half.format(part)} << 16 | {half.format(f'A & {low_mask}')}"
            lane(f"cvt_f16x2_{t}x2{suffix}", "u32 u16", text)


def _scales() -> None:
    """ue8m0: an exponent alone, of a magnitude."""
    for rnd in ("rz", "rp"):
        for finite in ("", "satfinite"):
            code = f"sg_f32_to_ue8m0({{}}, {int(rnd == 'rp')}, {int(bool(finite))})"
            name = f"cvt_{rnd}{'_' * bool(finite)}{finite}_ue8m0x2"
            lane(f"{name}_f32", "u16 f32 f32", f"{code.format('A')} << 8 | {code.format('B')}")
            high, low = (f"sg_bf16_to_f32((u16)({x}))" for x in ("A >> 16", "A"))
            text = f"{code.format(high)} << 8 | {code.format(low)}"
            lane(f"{name}_bf16x2", "u16 u32", text)
    text = "sg_ue8m0_to_bf16(A >> 8) << 16 | sg_ue8m0_to_bf16(A & 255)"
    lane("cvt_bf16x2_ue8m0x2", "u32 u16", text)
    for kind in ("u2", "s2", "u4", "s4", "u8", "s8", "u16", "s16"):
        text = f"sg_pack_clamped(A, B, C, {kind[1:]}, {int(kind[0] == 's')})"
        lane(f"pack_{kind}", "u32 s32 s32 u32", text)


def _packing() -> None:
    """mov between a wide register and the parts in a vector."""
    lane("pack_16_16", "u32 u16 u16", "(u32)B << 16 | A")
    lane("pack_32_32", "u64 u32 u32", "(u64)B << 32 | A")
    lane("part_32_0", "u16 u32", "A")
    lane("part_32_1", "u16 u32", "A >> 16")
    lane("part_64_0", "u32 u64", "A")
    lane("part_64_1", "u32 u64", "A >> 32")
    for k in range(4):
        lane(f"part_64_16_{k}", "u16 u64", f"A >> {16 * k}")
    hand("mov_128", "to128 from128")
    hand("pack_64_64", "to128 from64 from64")
    hand("part_128_0", "to64 from128")
    hand("part_128_1", "to64 from128")


def fill() -> None:
    _integers()
    _float_to_integer()
    _integer_to_float()
    _floats()
    _narrow()
    _scales()
    _packing()
