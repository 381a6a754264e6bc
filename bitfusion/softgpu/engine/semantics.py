# SPDX-License-Identifier: Apache-2.0
"""The table of semantics: which handlers there are, and which PTX mnemonic each one carries out.

The ``ops_*`` modules fill it by calling the functions here. From it come the C handlers and the
opcode numbers (:mod:`.emit`) and the encoder's choice of a handler (:mod:`.lower`). An expression
is C; ``A``, ``B`` and ``C`` are one lane's operands.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Sequence, Tuple

from ..ptx.record import dataclass

BITS = {"16": 2, "32": 4, "64": 8}


@dataclass(frozen=True)
class Op:
    """One handler; kinds of operands d, a, b, c: ``to32``, ``from64``, ``to_pred``, ``raw``."""

    name: str
    operands: Tuple[str, str, str, str]
    text: str = ""  # the macro call that defines it; "" is hand-written C
    check: str = "plain"  # how image.c checks a record of it


@dataclass(frozen=True)
class Form:
    """A PTX mnemonic whose operands go to the handler's one by one."""

    op: str


OPS: Dict[str, Op] = {}
FORMS: Dict[str, Form] = {}


def _kind(direction: str, ctype: str) -> str:
    return direction + ctype[1:]


def define(op: Op) -> str:
    if op.name in OPS:
        raise ValueError(f"two handlers are called '{op.name}'")
    OPS[op.name] = op
    return op.name


def forms(name: str, mnemonics: Iterable[str]) -> None:
    for mnemonic in mnemonics:
        if mnemonic in FORMS:
            raise ValueError(f"'{mnemonic}' has two handlers: {FORMS[mnemonic].op} and {name}")
        FORMS[mnemonic] = Form(name)


def hand(
    name: str, operands: str = "", mnemonics: Sequence[str] = (), check: str = "plain"
) -> None:
    """A handler written in C; ``operands`` are kinds of d, a, b, c."""
    kinds = (operands.split() + ["", "", "", ""])[:4]
    kinds = ["" if kind == "-" else kind for kind in kinds]
    define(Op(name, (kinds[0], kinds[1], kinds[2], kinds[3]), "", check))
    forms(name, mnemonics)


def _typed(
    macro: str, name: str, types: str, expression: str, mnemonics: Sequence[str], extra: str = ""
) -> None:
    ctypes = types.split()
    kinds = [_kind("to", ctypes[0])] + [_kind("from", ctype) for ctype in ctypes[1:]]
    kinds += [""] * (4 - len(kinds))
    arguments = ", ".join([name] + ([extra] if extra else []) + ctypes + [expression])
    text = f"{macro}{len(ctypes) - 1}({arguments})"
    define(Op(name, (kinds[0], kinds[1], kinds[2], kinds[3]), text))
    forms(name, mnemonics)


def lane(name: str, types: str, expression: str, mnemonics: Sequence[str] = ()) -> None:
    """A handler that the compiler vectorises; ``types`` are those of d, a, b, c."""
    _typed("SG_LANE", name, types, expression, mnemonics)


def each(name: str, types: str, expression: str, mnemonics: Sequence[str] = ()) -> None:
    """A handler that computes the active lanes one by one: division, library functions."""
    _typed("SG_EACH", name, types, expression, mnemonics)


ROUNDING = {"rm": "FE_DOWNWARD", "rp": "FE_UPWARD", "rz": "FE_TOWARDZERO"}


def rounded(
    name: str, rounding: str, types: str, expression: str, mnemonics: Sequence[str] = ()
) -> None:
    """A handler that computes under a directed rounding mode; ``rn`` is an ordinary one."""
    if rounding in ("rn", ""):
        lane(name, types, expression, mnemonics)
    else:
        _typed("SG_ROUND", name, types, expression, mnemonics, ROUNDING[rounding])


def pair(
    name: str,
    count: int,
    expression: str,
    mnemonics: Sequence[str] = (),
    ctype: str = "u16",
    rounding: str = "rn",
) -> None:
    """A handler on the two halves of registers twice as wide as ``ctype``, which A, B, C have."""
    bits = 2 * int(ctype[1:])
    kinds = [f"to{bits}"] + [f"from{bits}"] * count + [""] * (3 - count)
    text = f"SG_PAIR{count}({name}, {ctype}, {expression})"
    if rounding != "rn":
        text = f"SG_ROUND_PAIR{count}({name}, {ROUNDING[rounding]}, {ctype}, {expression})"
    define(Op(name, (kinds[0], kinds[1], kinds[2], kinds[3]), text))
    forms(name, mnemonics)


def test(name: str, types: str, expression: str) -> None:
    """A comparison into predicates; :mod:`.lower` builds its records."""
    ctypes = types.split()
    kinds = [_kind("from", ctype) for ctype in ctypes] + [""] * (2 - len(ctypes))
    text = f"SG_TEST{len(ctypes)}({', '.join([name] + ctypes + [expression])})"
    define(Op(name, ("to_pred_or_not", kinds[0], kinds[1], "to_pred_or_not"), text, "test"))


def carry(name: str, ctype: str, body: str, mnemonics: Sequence[str], count: int = 3) -> None:
    """A handler of the carry flag; the body sets ``r`` and ``OUT``. Missing sources are ``a``."""
    source = _kind("from", ctype)
    text = f"SG_CARRY3({name}, {ctype}, {body})"
    define(Op(name, (_kind("to", ctype), source, source, source if count == 3 else "same"), text))
    forms(name, mnemonics)


def spellings(*parts: Sequence[str]) -> List[str]:
    """Every way to choose one of each part, joined by dots; empty strings vanish."""
    found = [""]
    for part in parts:
        found = [f"{head}.{word}".strip(".") if word else head for head in found for word in part]
    return found
