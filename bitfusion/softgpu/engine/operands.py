# SPDX-License-Identifier: Apache-2.0
"""Do the operands of instructions fit the types that they name? Broken code must not run.

The engine's registers have a width and no type: adding the bits of a float would give a number.
So PTX's own rules are held here, before anything is encoded: a type takes registers of its size,
integers take integers of either sign, floats take their own kind, ``.b`` and untyped registers go
with all; what loads, stores or converts takes wider registers as well.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ..ptx.ir import (
    TYPE_BYTES,
    Address,
    Function,
    Imm,
    Instruction,
    Negated,
    Operand,
    PtxError,
    Reg,
    Special,
)
from ..ptx.ir import Pair as Two
from ..ptx.record import NamedTuple
from .syntax import is_type, refusal

Words = Tuple[str, ...]
_SCALARS = {f"{kind}{bits}" for kind in "bus" for bits in (8, 16, 32, 64)} | {"f16", "f32", "f64"}
_PACKED = {
    "f16x2": ("b32", "f16x2"),
    "u16x2": ("b32", "f16x2"),
    "s16x2": ("b32", "f16x2"),
    "bf16x2": ("b32",),
    "bf16": ("b16",),
    "f32x2": ("b64",),
}
_NO_ADDRESS = ("pred", "f16", "f32", "f64", "f16x2", "b128")
_VECTORS = {"v2", "v4", "v8"}
_COORDINATES = ("tid", "ntid", "ctaid", "nctaid")  # had 16 bits once
_TRIPLES = (
    *_COORDINATES, "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid",
)  # fmt: skip
_WIDE_SPECIALS = ("clock64", "globaltimer", "current_graph_exec")
_COUNTED = {"u16": "u32", "u32": "u64", "s16": "s32", "s32": "s64"}  # results of .wide


class Slots(NamedTuple):
    """Types of the operands, "" where any will do; how many may be left out; wider ones too?"""

    types: Sequence[str]
    optional: int = 0
    wide: bool = False


Rule = Callable[[Words, List[str]], Optional[Slots]]


def _same(count: int) -> Rule:
    def slots(words: Words, kinds: List[str]) -> Optional[Slots]:
        return Slots([kinds[0]] * count) if len(kinds) == 1 else None

    return slots


def _product(count: int) -> Rule:
    def slots(words: Words, kinds: List[str]) -> Optional[Slots]:
        if len(kinds) != 1:
            return None
        result = _COUNTED.get(kinds[0], "") if "wide" in words else kinds[0]
        return Slots([result, *[kinds[0]] * 2, *[result] * (count - 3)])

    return slots


def _limits(words: Words, kinds: List[str]) -> Optional[Slots]:
    return Slots([kinds[0]] * 4, 1) if kinds == ["f32"] else _same(3)(words, kinds)


def _counting(words: Words, kinds: List[str]) -> Slots:
    return Slots(["u32", kinds[-1]])


def _shift(words: Words, kinds: List[str]) -> Slots:
    return Slots([kinds[-1], kinds[-1], "u32"])


def _field(words: Words, kinds: List[str]) -> Slots:
    return Slots([kinds[-1], kinds[-1], "u32", "u32"])


def _insert(words: Words, kinds: List[str]) -> Slots:
    return Slots([*[kinds[-1]] * 3, "u32", "u32"])


def _compare(words: Words, kinds: List[str]) -> Slots:
    joined = len({"and", "or", "xor"} & set(words))
    source = "" if kinds[-1] in _PACKED else kinds[-1]
    return Slots(["pred", source, source, *["pred"] * joined])


def _set(words: Words, kinds: List[str]) -> Optional[Slots]:
    joined = len({"and", "or", "xor"} & set(words))
    if len(kinds) != 2:
        return None
    result, source = ("" if kind in _PACKED else kind for kind in kinds)
    return Slots([result, source, source, *["pred"] * joined])


def _choose(words: Words, kinds: List[str]) -> Slots:
    return Slots([*[kinds[-1]] * 3, "pred"])


def _by_sign(words: Words, kinds: List[str]) -> Optional[Slots]:
    return Slots([*[kinds[0]] * 3, kinds[1]]) if len(kinds) == 2 else None


def _convert(words: Words, kinds: List[str]) -> Optional[Slots]:
    plain = len(kinds) == 2 and set(kinds) <= _SCALARS and "pack" not in words
    return Slots(kinds, 0, True) if plain else None


def _load(words: Words, kinds: List[str]) -> Optional[Slots]:
    more = 1 if "L2::cache_hint" in words else 0
    return Slots(["" if _VECTORS & set(words) else kinds[-1], "", ""][: 2 + more], 0, True)


def _store(words: Words, kinds: List[str]) -> Optional[Slots]:
    if {"async", "bulk"} & set(words):
        return None
    more = 1 if "L2::cache_hint" in words else 0
    return Slots(["", "" if _VECTORS & set(words) else kinds[-1], ""][: 2 + more], 0, True)


def _words(words: Words, kinds: List[str]) -> Slots:
    return Slots(["b32"] * 4)


def _move(words: Words, kinds: List[str]) -> Optional[Slots]:
    return None if _VECTORS & set(words) else Slots([kinds[-1]] * 2)


_TWO = ("abs neg not cnot sqrt rcp rsqrt sin cos lg2 ex2 tanh brev", _same(2))
_THREE = ("add sub and or xor div rem addc subc copysign mul24", _same(3))
_FOUR = ("fma sad mad24", _same(4))
_RULES: Dict[str, Rule] = {
    **{name: rule for names, rule in (_TWO, _THREE, _FOUR) for name in names.split()},
    "mul": _product(3), "mad": _product(4), "madc": _product(4), "min": _limits, "max": _limits,
    "popc": _counting, "clz": _counting, "bfind": _counting, "shl": _shift, "shr": _shift,
    "bfe": _field, "bfi": _insert, "setp": _compare, "set": _set, "selp": _choose,
    "slct": _by_sign, "cvt": _convert, "ld": _load, "ldu": _load, "st": _store, "mov": _move,
    "prmt": _words, "shf": _words,
}  # fmt: skip


def _takes(kind: str, given: str, wide: bool) -> bool:
    """Whether an operand of a type may be a register, or a literal, of another."""
    if kind in _PACKED:
        return given in _PACKED[kind]
    if kind not in _SCALARS and kind != "pred":
        return True  # the width decides, which the encoder looks at
    if kind == "pred" or given == "pred":
        return given in (kind, "int")
    if given == "coordinate":
        return kind[0] != "f" and TYPE_BYTES[kind] in (2, 4)
    if given in ("int", "float"):
        return kind[0] == "b" or (given == "float") == (kind[0] == "f" and kind != "f16")
    size, has = TYPE_BYTES[kind], TYPE_BYTES.get(given, 0)
    if has < size if wide else has != max(size, 2):
        return False
    if kind[0] == "b" or given[0] == "b" and given[:2] != "bf":
        return True
    return given == kind if kind[0] == "f" else given[0] in "us" or given == "f16x2"


def _complaint(opcode: str, words: Words, given: Sequence[str]) -> str:
    """What is wrong, or nothing. ``given`` is of :func:`_kind`."""
    for place, one in enumerate(given):
        if one.startswith("["):
            return f"operand {place + 1} has its address in a register of type .{one[1:]}"
    rule = _RULES.get(opcode)
    kinds = [word for word in words if is_type(word)]
    slots = rule(words, kinds) if rule is not None and kinds else None
    if slots is None:
        return ""
    most = len(slots.types)
    if not most - slots.optional <= len(given) <= most:
        return f"it has {len(given)} operands, not {most}"
    for place, (kind, one) in enumerate(zip(slots.types, given)):
        if kind and place == 0 and one in ("int", "float"):
            return "operand 1 is no register"
        if kind and one and not _takes(kind, one, slots.wide):
            what = _KINDS.get(one, f"a register of type .{one}")
            return f"operand {place + 1} is {what}"
    return ""


_KINDS = {"int": "an integer", "float": "a float", "coordinate": "a register of type .u32"}


class Checker:
    """Remembers what it has found right: a module has few kinds of instructions, many times."""

    def __init__(self) -> None:
        self._right: Dict[Tuple[str, Words, Tuple[str, ...]], str] = {}

    def check(self, function: Function) -> None:
        kinds: Dict[int, str] = {}  # by the operand's identity: the same text is one object
        right = self._right
        for one in function.body or ():
            given = []
            for operand in one.operands:
                kind = kinds.get(id(operand))
                if kind is None:
                    kind = kinds[id(operand)] = _kind(operand, function)
                given.append(kind)
            key = (one.opcode, one.modifiers, tuple(given))
            why = right.get(key)
            if why is None:
                # what is not carried out faults when it runs, and says so
                why = right[key] = "" if refusal(*key[:2]) else _complaint(*key)
            if why:
                raise broken(one, why)


def _kind(operand: Operand, function: Function) -> str:
    """A register's type; "int", "float"; "[" and the type of an address that is none; or ""."""
    if isinstance(operand, Address):
        kind = (
            function.registers.get(operand.base.name, "") if isinstance(operand.base, Reg) else ""
        )
        return f"[{kind}" if kind in _NO_ADDRESS else ""
    if isinstance(operand, Two):
        operand = operand.first
    if isinstance(operand, Negated):
        operand = operand.item
    if isinstance(operand, Reg):
        return function.registers.get(operand.name, "")
    if isinstance(operand, Imm):
        return "int" if operand.kind == "int" else "float"
    return _special_kind(operand.name) if isinstance(operand, Special) else ""


def _special_kind(name: str) -> str:
    if name == "gridid":  # may be read as either
        return ""
    if name in _WIDE_SPECIALS or name.endswith("_64"):
        return "u64"
    if name == "is_explicit_cluster":
        return "pred"
    family, _, lane = name.partition(".")
    if family in _TRIPLES and not lane:
        return ""
    return "coordinate" if family in _COORDINATES else "u32"


def broken(instruction: Instruction, why: str) -> PtxError:
    name = ".".join((instruction.opcode, *instruction.modifiers))
    return PtxError(f"line {instruction.line}: '{name[:200]}': {why}")
