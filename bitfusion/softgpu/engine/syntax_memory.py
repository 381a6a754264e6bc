# SPDX-License-Identifier: Apache-2.0
"""Forms of instructions on memory: loads, stores, atomics, copies, addresses, textures."""

from __future__ import annotations

from .syntax import CHOICES, rows

CHOICES.update({
    "READABLE": "const|global|local|param|param::entry|param::func|SHARED",
    "WRITABLE": "global|local|param|param::func|SHARED",
    "ATOMIC": "global|SHARED",
    "HALF": "f16|bf16",
    "PAIR": "f16x2|bf16x2",
    "VECTOR": "v2|v4",
    "NARROW32": "b8|b16|b32|u8|u16|u32|s8|s16|s32|f32",
    "MMIO": CHOICES["SMALL"] + "|b128",
    "GEOMETRY": "1d|2d|3d|a1d|a2d",
    "CUBE": "cube|acube",
    "OUTSIDE": "trap|clamp|zero",
})  # fmt: skip
for _name in ("READABLE", "WRITABLE", "ATOMIC"):
    CHOICES[_name] = CHOICES[_name].replace("SHARED", CHOICES["SHARED"])


def _accesses() -> None:
    tails = ("VECTOR? SMALL", "v8 NARROW32", "b128")
    CHOICES["HELD"] = "global|local|" + CHOICES["SHARED"]
    for tail in tails:
        rows(
            "ld",
            f"weak? READABLE? ca|cg|cs|lu|cv? nc? EVICT1? EVICT2? HINT? SIZE? {tail}",
            f"volatile HELD? SIZE? {tail}",
            f"relaxed|acquire SCOPE HELD? EVICT1? EVICT2? HINT? SIZE? {tail}",
        )
        rows(
            "st",
            f"weak? WRITABLE? wb|cg|cs|wt? EVICT1? EVICT2? HINT? {tail}",
            f"volatile HELD? {tail}",
            f"relaxed|release SCOPE HELD? EVICT1? EVICT2? HINT? {tail}",
        )
    rows("ld", "mmio relaxed sys global? MMIO")
    rows("st", "mmio relaxed sys global? MMIO")
    rows("ldu", "global? VECTOR? SMALL", "global? b128")
    rows("st", "async weak? shared::cluster? TOLD VECTOR? b32|b64|u32|u64|s32|s64|f32|f64")
    rows("st", "async mmio? release gpu|sys global? SMALL")
    rows("st", "bulk weak? shared::cta?")


def _atomics() -> None:
    for opcode, order in (("atom", "SEM?"), ("red", "relaxed|release?")):
        head = f"{order} SCOPE? ATOMIC?"
        rows(
            opcode,
            f"{head} and|or|xor HINT? b32|b64",
            f"{head} add HINT? u32|s32|u64|f32|f64",
            f"{head} inc|dec HINT? u32",
            f"{head} min|max HINT? u32|s32|u64|s64",
            f"{head} add noftz HINT? f16|bf16|f16x2|bf16x2",
            f"{order} SCOPE? global? add HINT? VECTOR f32",
            f"{order} SCOPE? global? add|min|max noftz HINT? v2|v4|v8 HALF",
            f"{order} SCOPE? global? add|min|max noftz HINT? VECTOR PAIR",
        )
    head = "SEM? SCOPE? ATOMIC?"
    rows(
        "atom",
        f"{head} exch HINT? b32|b64|b128",
        f"{head} cas HINT? b32|b64",
        f"{head} cas b16|b128",
    )
    told = "async relaxed cluster shared::cluster? TOLD"
    rows("red", f"{told} inc|dec u32", f"{told} min|max u32|s32", f"{told} and|or|xor b32")
    rows(
        "red",
        f"{told} add u32|s32|u64|s64",
        "async mmio? release gpu|sys global? add u32|s32|u64|s64",
    )


def _multicast() -> None:
    order = "weak|relaxed|acquire? SCOPE? global?"
    for verb, rest in (("ld_reduce", "add|min|max"), ("st", "")):
        head = f"{verb} {order.replace('acquire', 'release') if verb == 'st' else order}"
        add = "add" if rest else ""
        rows("multimem", f"{head} {rest} v2|v4|v8 HALF", f"{head} {rest} VECTOR? PAIR")
        rows("multimem", f"{head} {add} VECTOR? f32", f"{head} {add} f64")
        rows("multimem", f"{head} {rest} v4|v8 e5m2|e4m3", f"{head} {rest} v2|v4|v8 e5m2x2|e4m3x2")
        rows("multimem", f"{head} {rest} VECTOR? e5m2x4|e4m3x4", f"{head} {rest} u32|s32|u64")
        rows("multimem", f"{head} {rest and 'min|max'} s64")
        rows("multimem", f"{head} {rest and 'and|or|xor'} b32|b64")
    head = f"ld_reduce {order} add"
    rows("multimem", f"{head} acc::f32 v2|v4|v8 HALF", f"{head} acc::f32 VECTOR? PAIR")
    rows("multimem", f"{head} acc::f16 v4|v8 e5m2|e4m3", f"{head} acc::f16 v2|v4|v8 e5m2x2|e4m3x2")
    rows("multimem", f"{head} acc::f16 VECTOR? e5m2x4|e4m3x4")
    head = "red relaxed|release? SCOPE? global?"
    rows("multimem", f"{head} add|min|max v2|v4|v8 HALF", f"{head} add|min|max VECTOR PAIR")
    rows("multimem", f"{head} add PAIR", f"{head} add VECTOR? f32", f"{head} add f64")
    rows("multimem", f"{head} add|min|max u32|s32|u64", f"{head} min|max s64")
    rows("multimem", f"{head} and|or|xor b32|b64")


def _addresses() -> None:
    rows(
        "cvta", "to? const|global|local|shared|shared::cta|shared::cluster|param|param::entry u64"
    )
    rows("isspacep", "const|global|local|shared|shared::cta|shared::cluster|param|param::entry")
    rows("mapa getctarank", "shared::cluster? SIZES")
    rows("prefetch", "global|local? L1|L2", "global? L2::evict_last|L2::evict_normal")
    rows("prefetch", "const|param? tensormap")
    rows("prefetchu", "L1")
    rows("applypriority", "global? L2::evict_normal")
    rows("discard", "global? L2")
    first = "L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged"
    second = "L2::evict_first|L2::evict_unchanged"
    rows(
        "createpolicy", f"range global? {first} {second}? b64", f"fractional {first} {second}? b64"
    )
    rows("createpolicy", "cvt L2 b64")
    rows("alloca stacksave stackrestore", "SIZES")


def _copies() -> None:
    rows("cp", "async ca|cg MINE global HINT? SIZE?", "async commit_group|wait_group|wait_all")
    rows("cp", "async mbarrier arrive noinc? MINE? b64")
    rows("cp", "async bulk commit_group", "async bulk wait_group read?")
    rows("cp", "async bulk shared::cta global TOLD HINT?")
    rows("cp", "async bulk shared::cluster global TOLD multicast::cluster? HINT?")
    rows("cp", "async bulk shared::cluster shared::cta TOLD")
    rows("cp", "async bulk global shared::cta bulk_group HINT? cp_mask?")
    rows("cp", "async bulk prefetch L2 global HINT?")
    _reductions()
    rank = "1d|2d|3d|4d|5d"
    for to in ("shared::cta", "shared::cluster"):
        head, more = (
            "async bulk tensor",
            "TOLD HINT?" if to == "shared::cta" else "TOLD multicast::cluster? HINT?",
        )
        rows(
            "cp",
            f"{head} {rank} {to} global tile? {more}",
            f"{head} 3d|4d|5d {to} global im2col {more}",
        )
        rows("cp", f"{head} 2d {to} global tile::gather4 {more}")
    for head, verb in (("async", ""), ("reduce async", "add|min|max|inc|dec|and|or|xor")):
        head, tail = f"{head} bulk tensor", f"global shared::cta {verb}"
        rows("cp", f"{head} {rank} {tail} tile? bulk_group HINT?")
        rows("cp", f"{head} 3d|4d|5d {tail} im2col_no_offs bulk_group HINT?")
    rows("cp", "async bulk tensor 2d global shared::cta tile::scatter4 bulk_group HINT?")
    rows("cp", f"async bulk prefetch tensor {rank} L2 global tile? HINT?")
    rows("cp", "async bulk prefetch tensor 3d|4d|5d L2 global im2col HINT?")
    rows("cp", "async bulk prefetch tensor 2d L2 global tile::gather4 HINT?")
    rows(
        "tensormap",
        "cp_fenceproxy global shared::cta tensormap::generic release SCOPE sync aligned",
    )


def _reductions() -> None:
    head = "reduce async bulk global shared::cta bulk_group HINT?"
    rows(
        "cp",
        f"{head} and|or|xor b32|b64",
        f"{head} add u32|s32|u64|f32|f64",
        f"{head} inc|dec u32",
    )
    rows("cp", f"{head} min|max u32|s32|u64|s64|f16|bf16", f"{head} add noftz f16|bf16")
    head = "reduce async bulk shared::cluster shared::cta TOLD"
    rows("cp", f"{head} and|or|xor b32", f"{head} add u32|s32|u64", f"{head} inc|dec u32")
    rows("cp", f"{head} min|max u32|s32")


def _textures() -> None:
    tails = ("v4 u32|s32|f32|f16", "v2 f16x2")
    for tail in tails:
        rows(
            "tex", f"base|level|grad? GEOMETRY {tail} s32|f32", f"base|level|grad? CUBE {tail} f32"
        )
    rows("tld4", "r|g|b|a 2d|a2d|CUBE v4 u32|s32|f32 f32".replace("CUBE", CHOICES["CUBE"]))
    sizes = "width|height|depth"
    asked = "channel_data_type|channel_order"
    rows("txq", f"{sizes}|{asked}|normalized_coords|array_size|num_mipmap_levels|num_samples b32")
    rows(
        "txq",
        "filter_mode|addr_mode_0|addr_mode_1|addr_mode_2|force_unnormalized_coords b32",
        f"level {sizes} b32",
    )
    rows("suq", f"{sizes}|{asked}|array_size|memory_layout b32")
    rows("istypep", "texref|samplerref|surfref")
    rows(
        "suld",
        "b GEOMETRY ca|cg|cs|cv? VECTOR? b8|b16|b32 OUTSIDE",
        "b GEOMETRY ca|cg|cs|cv? v2? b64 OUTSIDE",
    )
    rows(
        "sust",
        "b GEOMETRY wb|cg|cs|wt? VECTOR? b8|b16|b32 OUTSIDE",
        "b GEOMETRY wb|cg|cs|wt? v2? b64 OUTSIDE",
    )
    rows("sust", "p GEOMETRY wb|cg|cs|wt? VECTOR? WORD OUTSIDE")
    rows(
        "sured", "b add 1d|2d|3d u32|s32|u64 OUTSIDE", "b min|max 1d|2d|3d u32|s32|u64|s64 OUTSIDE"
    )
    rows("sured", "b and|or 1d|2d|3d b32 OUTSIDE")
    rows("sured", "p add|min|max|and|or 1d|2d|3d b32 OUTSIDE", "p min|max 1d|2d|3d b64 OUTSIDE")


_accesses()
_atomics()
_multicast()
_addresses()
_copies()
_textures()
