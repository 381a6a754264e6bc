# SPDX-License-Identifier: Apache-2.0
"""What a kernel computes from nothing but its parameters and sizes, once for all its blocks.

Blocks of a launch use the same memory one after another, registers included. So instructions whose
results are the same in every block, in registers that nothing else writes, go to the front of the
kernel, and every block but the first in that memory begins behind them. Registers that are copies
of special ones are not filled at all: what reads them reads the special register.
"""

from __future__ import annotations

from typing import Dict, List, Set, Tuple

from ..ptx.ir import (
    Address,
    Function,
    Group,
    Imm,
    Instruction,
    Negated,
    Operand,
    Pair,
    Reg,
    Sink,
    Special,
    Sym,
    Vector,
)

# Without side effects; what has more to it is looked at beside them: loads, and the carry.
_PURE = {
    "abs", "add", "and", "bfe", "bfi", "brev", "clz", "cnot", "cvt", "cvta", "div", "fma",
    "ld", "lop3", "mad", "mad24", "max", "min", "mov", "mul", "mul24", "neg", "not", "or",
    "popc", "prmt", "rem", "sad", "selp", "set", "setp", "shf", "shl", "shr", "slct", "sub",
    "xor",
}  # fmt: skip
# Special registers that are the same in all blocks which use a piece of memory.
_STABLE = (
    "tid.", "ntid.", "nctaid.", "lane", "warpid", "nwarpid",
    "dynamic_smem", "total_smem", "aggr_smem", "reserved_smem",
)  # fmt: skip


def writes(function: Function) -> Dict[str, int]:
    """How many instructions may write a register: those that have it in front, and calls."""
    found: Dict[str, int] = {}
    for one in function.body or []:
        operands = one.operands
        if one.opcode == "call":
            names = _registers(operands)
        elif not operands:
            continue
        elif type(operands[0]) is Reg:  # nearly always
            names = [operands[0].name]
        else:
            names = _registers(operands[:1])
        for name in names:
            found[name] = found.get(name, 0) + 1
    return found


def _registers(operands: Tuple[Operand, ...]) -> List[str]:
    found: List[str] = []
    for one in operands:
        if isinstance(one, Reg):
            found.append(one.name)
        elif isinstance(one, (Vector, Group)):
            found += _registers(one.items)
        elif isinstance(one, Pair):
            found += _registers((one.first, one.second))
    return found


def copies_of_special(function: Function, count: Dict[str, int]) -> Dict[str, Special]:
    """Registers of a kernel that nothing but a copy of a special register writes."""
    found = {}
    for one in function.body or []:
        if one.opcode != "mov" or one.predicate is not None:
            continue
        to, source = one.operands
        if one.modifiers[-1] not in ("u32", "b32", "s32") or not isinstance(to, Reg):
            continue
        if isinstance(source, Special) and count[to.name] == 1:
            found[to.name] = source
    return found


def hoist(
    function: Function, count: Dict[str, int], copies: Set[str]
) -> Tuple[List[Instruction], int, Dict[str, int]]:
    """Give a kernel's body with what all blocks share in front, how much that is, and the labels.

    `count` is what writes() says. The instructions that fill `copies` are left out.
    """
    known: Set[str] = set()
    parameters = {variable.name for variable in function.params}
    first: List[Instruction] = []
    rest: List[Instruction] = []
    places = []
    for one in function.body or []:
        places.append(len(rest))
        operands = one.operands
        if one.opcode not in _PURE or one.predicate is not None or not operands:
            rest.append(one)
            continue
        results = [operands[0].name] if type(operands[0]) is Reg else _registers(operands[:1])
        if results[:1] and results[0] in copies:
            if _is_known(operands[1], known):
                known.update(results)
        elif (
            results
            and all(count[name] == 1 for name in results)
            and _is_same_everywhere(one, known, parameters)
        ):
            known.update(results)
            first.append(one)
        else:
            rest.append(one)
    places.append(len(rest))
    labels = {label: len(first) + places[at] for label, at in function.labels.items()}
    return first + rest, len(first), labels


def _is_same_everywhere(one: Instruction, known: Set[str], parameters: Set[str]) -> bool:
    if one.opcode == "ld":
        place = one.operands[1]
        return (
            one.modifiers[0] == "param"
            and isinstance(place, Address)
            and isinstance(place.base, Sym)
            and place.base.name in parameters
        )
    return "cc" not in one.modifiers and all(_is_known(item, known) for item in one.operands[1:])


def _is_known(operand: Operand, known: Set[str]) -> bool:
    if isinstance(operand, Reg):
        return operand.name in known
    if isinstance(operand, Special):
        return operand.name.startswith(_STABLE)
    if isinstance(operand, Negated):
        return operand.item.name in known
    if isinstance(operand, Vector):
        return all(_is_known(item, known) for item in operand.items)
    return isinstance(operand, (Imm, Sym, Sink))
