# SPDX-License-Identifier: Apache-2.0
"""What is not a function of one lane: memory, control, barriers, exchange, predicates."""

from __future__ import annotations

from .semantics import hand

LOADS = (
    "u8_16",
    "u8_32",
    "u8_64",
    "s8_16",
    "s8_32",
    "s8_64",
    "u16_16",
    "u16_32",
    "u16_64",
    "s16_32",
    "s16_64",
    "u32_32",
    "u32_64",
    "s32_64",
    "u64_64",
)
STORES = ("8_16", "8_32", "8_64", "16_16", "16_32", "16_64", "32_32", "32_64", "64_64")
ATOMICS_32 = (
    "and",
    "or",
    "xor",
    "exch",
    "cas",
    "add",
    "inc",
    "dec",
    "min_u",
    "max_u",
    "min_s",
    "max_s",
)

# For whole warps; known: what the addresses look like was found out by an earlier record.
WHOLE = (
    "global",
    "shared",
    "shared_wide",
    "global_known",
    "shared_known",
    "shared_wide_known",
)
WHOLE_LOADS = (
    "u8_16",
    "u8_32",
    "s8_16",
    "s8_32",
    "u16_16",
    "u16_32",
    "s16_32",
    "u32_32",
    "u64_64",
)
WHOLE_STORES = ("8_16", "8_32", "16_16", "16_32", "32_32", "64_64")


def _memory() -> None:
    for kind in LOADS:
        width = kind.split("_")[1]
        hand(f"ld_{kind}", f"to{width} raw", check="memory")
        hand(f"ldparam_{kind}", f"to{width}", check="param")
        hand(f"ldv_{kind}", "- raw", check=f"vload{width}")
    for kind in STORES:
        width = kind.split("_")[1]
        hand(f"st_{kind}", f"from{width} raw", check="memory")
        hand(f"stv_{kind}", "- raw", check=f"vstore{width}")
    for kind in WHOLE_LOADS:
        for space in WHOLE:
            hand(f"ld_{space}_{kind}", f"to{kind[-2:]} raw raw", check="memory")
    for kind in WHOLE_STORES:
        for space in WHOLE:
            hand(f"st_{space}_{kind}", f"from{kind[-2:]} raw raw", check="memory")
    hand("ld_128", "to128 raw", check="memory")
    hand("st_128", "from128 raw", check="memory")
    hand("fence", "", ())
    hand("isspacep", "to_pred from64 raw", check="window")
    hand("prefetch", "")
    hand("copy_async", "raw raw raw raw", check="copy")


def _atomics() -> None:
    for bits in ("32", "64"):
        for op in ATOMICS_32:
            if op in ("inc", "dec") and bits == "64":
                continue
            hand(
                f"atom_{op}_{bits}",
                f"to{bits} raw from{bits} {f'from{bits}' if op == 'cas' else ''}",
                check="atomic",
            )
    for f, size in (
        ("f32", 32),
        ("f64", 64),
        ("f16", 16),
        ("bf16", 16),
        ("f16x2", 32),
        ("bf16x2", 32),
    ):
        hand(f"atom_add_{f}", f"to{size} raw from{size}", check="atomic")
        if f in ("f16", "bf16", "f16x2", "bf16x2"):
            hand(f"atom_min_{f}", f"to{size} raw from{size}", check="atomic")
            hand(f"atom_max_{f}", f"to{size} raw from{size}", check="atomic")
    hand("atom_exch_16", "to16 raw from16", check="atomic")
    hand("atom_cas_16", "to16 raw from16 from16", check="atomic")
    hand("atom_exch_128", "to128 raw from128", check="atomic")
    hand("atom_cas_128", "to128 raw from128 from128", check="atomic")


def _control() -> None:
    hand("bra", check="branch")
    hand("brx", "- from32", check="table")
    hand("call", check="call")
    hand("call_register", "- from64", check="callreg")
    hand("call_system", check="callsys")
    hand("ret")
    hand("exit", "", ["exit"])
    hand("trap", "", ["trap"])
    hand("brkpt", "", ["brkpt"])
    hand("unknown", "", check="string")
    hand("nop", "")
    hand("nanosleep", "- from32", ["nanosleep.u32"])
    for bits in ("32", "64"):
        hand(f"alloca_{bits}", f"to{bits} - from{bits}", check="power")
        hand(f"stacksave_{bits}", f"to{bits}")
        hand(f"stackrestore_{bits}", f"- from{bits}")
    hand("bar", "- from32 from32")
    hand("bar_arrive", "- from32 from32")
    hand("bar_red_popc", "to32 from32 from32 from_pred")
    hand("bar_red_and", "to_pred from32 from32 from_pred")
    hand("bar_red_or", "to_pred from32 from32 from_pred")
    hand("bar_warp", "- from32")


def _lanes() -> None:
    for mode in ("up", "down", "bfly", "idx"):
        hand(f"shfl_{mode}", "to32 from32 from32 from32", check="shuffle")
    for mode in ("all", "any", "uni"):
        hand(f"vote_{mode}", "to_pred from_pred from32")
    hand("vote_ballot", "to32 from_pred from32")
    for bits in ("32", "64"):
        hand(f"match_any_{bits}", f"to32 from{bits} from32")
        hand(f"match_all_{bits}", f"to32 from{bits} from32 to_pred_or_not")
    hand("activemask", "to32")
    for op in ("add", "min", "max"):
        for sign in "us":
            if op == "add" and sign == "s":
                continue
            hand(f"redux_{op}_{sign}", "to32 from32 from32")
    for op in ("and", "or", "xor"):
        hand(f"redux_{op}", "to32 from32 from32")
    for op in ("min", "max"):
        for word in ("", "_abs", "_nan", "_abs_nan"):
            hand(f"redux_{op}{word}_f32", "to32 from32 from32")
    hand("elect", "to32 from32 - to_pred_or_not", check="plain")


def _predicates() -> None:
    for op in ("and", "or", "xor"):
        hand(f"{op}_pred", "to_pred from_pred from_pred", [f"{op}.pred"])
    hand("not_pred", "to_pred from_pred", ["not.pred"])
    hand("mov_pred", "to_pred from_pred")
    hand("mov_word_pred", "to_pred from32")
    for bits in ("16", "32", "64"):
        hand(f"selp_{bits}", f"to{bits} from{bits} from{bits} from_pred")
    hand("selp_128", "to128 from128 from128 from_pred")
    hand("special", "to64")
    hand("frame_address_32", "to32")
    hand("frame_address_64", "to64")


def fill() -> None:
    _memory()
    _atomics()
    _control()
    _lanes()
    _predicates()
