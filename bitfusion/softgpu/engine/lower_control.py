# SPDX-License-Identifier: Apache-2.0
"""Branches, calls and barriers."""

from __future__ import annotations

from typing import List, Sequence

from ..ptx.ir import (
    TYPE_BYTES,
    Function,
    Group,
    Instruction,
    Label,
    Operand,
    Pair,
    Reg,
    Sink,
    Sym,
    Variable,
)
from .function import FRAME, NOWHERE, Broken, FunctionEncoder, Unsupported, abi_layout, optional
from .lower import rule
from .lower_async import cluster_barrier

SYSTEMS = {"vprintf": 0, "malloc": 1, "free": 2, "__assertfail": 3}
_SYSTEM_BYTES = 48


@rule("bra")
def _bra(encoder: FunctionEncoder, instruction: Instruction) -> None:
    target = instruction.operands[0]
    name = target.name if isinstance(target, (Label, Sym, Reg)) else ""
    if name not in encoder.function.labels:
        raise Broken("no such label")
    encoder.branches.append((encoder.emit("bra"), name))


@rule("brx")
def _brx(encoder: FunctionEncoder, instruction: Instruction) -> None:
    index, table = instruction.operands
    names = encoder.function.branch_targets[getattr(table, "name", "")]
    if any(name not in encoder.function.labels for name in names):
        raise Broken("no such label")
    place = encoder.module.reserve_targets(len(names))
    encoder.tables.append((encoder.emit("brx", a=encoder.source(index, 4), x=place), place, names))


@rule("ret")
def _ret(encoder: FunctionEncoder, instruction: Instruction) -> None:
    for variable in encoder.function.returns:
        if variable.space == "reg":
            width = max(TYPE_BYTES[variable.type], 2)
            encoder.emit(
                f"st_{8 * width}_{8 * width}",
                encoder.slots[variable.name],
                x=encoder.frame[variable.name],
                flags=FRAME << 2,
            )
    encoder.emit("ret")


def load_register_parameters(encoder: FunctionEncoder) -> None:
    """Old-style functions have parameters that are registers: fill them on entry."""
    for variable in encoder.function.params:
        if variable.space == "reg" and variable.name in encoder.slots:
            width = max(TYPE_BYTES[variable.type], 2)
            encoder.emit(
                f"ld_u{8 * width}_{8 * width}",
                encoder.slots[variable.name],
                x=encoder.frame[variable.name],
                flags=FRAME << 2,
            )


@rule("call")
def _call(encoder: FunctionEncoder, instruction: Instruction) -> None:
    results, target, arguments, prototype = _parts(instruction)
    callee = _signature(encoder, target, prototype)
    offsets, size = abi_layout(callee.returns, callee.params)
    split = len(callee.returns)
    passed = min(len(arguments), len(callee.params))
    copies = [
        (_argument(encoder, item, variable), offset, variable.size or TYPE_BYTES[variable.type])
        for item, variable, offset in zip(arguments[:passed], callee.params, offsets[split:])
    ]
    after: List[tuple[Operand, int, int]] = []
    returned = []
    for item, variable, offset in zip(results, callee.returns, offsets):
        bytes_ = variable.size or TYPE_BYTES[variable.type]
        if isinstance(item, Sink):
            continue
        if isinstance(item, Sym):
            returned.append((offset, _frame_place(encoder, item), bytes_))
        else:
            place = encoder.local_space(8)
            returned.append((offset, place, bytes_))
            after.append((item, place, bytes_))
    _emit_call(encoder, target, (copies, returned), size)
    for item, place, bytes_ in after:
        width = encoder.width(item)
        encoder.emit(
            f"ld_u{8 * bytes_}_{8 * width}",
            encoder.destination(item, width),
            x=place,
            flags=FRAME << 2,
        )


def _emit_call(
    encoder: FunctionEncoder,
    target: Operand,
    copies: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]],
    size: int,
) -> None:
    module = encoder.module
    if isinstance(target, Reg):
        call = module.call(copies[0], copies[1], size)
        module.note_indirect(encoder.function)
        encoder.emit("call_register", a=encoder.source(target, 8), x=call)
        return
    name = module.resolve(getattr(target, "name", ""))
    function = module.functions.get(name)
    if function is not None and function.body is not None:
        module.note_call(encoder.function, name)
        encoder.emit(
            "call", module.function_index(name), x=module.call(copies[0], copies[1], size)
        )
    elif name in SYSTEMS:
        call = module.call(copies[0], copies[1], max(size, _SYSTEM_BYTES))
        module.note_system(encoder.function)
        encoder.emit("call_system", SYSTEMS[name], x=call)
    else:
        launches = name.startswith(("cudaLaunchDevice", "__cudaCDP2", "cudaGetParameterBuffer"))
        why = "kernels cannot launch kernels on the software GPU" if launches else "it is nowhere"
        raise Unsupported(f"a call of '{name}': {why}")


def _parts(instruction: Instruction) -> tuple[Sequence[Operand], Operand, Sequence[Operand], str]:
    operands = instruction.operands
    results, target, arguments = operands[:3]
    prototype = optional(operands, 3)
    return (
        results.items if isinstance(results, Group) else (),
        target,
        arguments.items if isinstance(arguments, Group) else (),
        getattr(prototype, "name", ""),
    )


def _signature(encoder: FunctionEncoder, target: Operand, prototype: str) -> Function:
    if isinstance(target, Reg):
        function = encoder.function
        if prototype in function.prototypes:
            return function.prototypes[prototype]
        known = function.call_targets.get(prototype)
        if not known:
            raise Broken("a call without a prototype")
        return encoder.module.functions[encoder.module.resolve(known[0])]
    found = encoder.module.functions.get(encoder.module.resolve(getattr(target, "name", "")))
    if found is None:
        raise Broken("a call of an unknown function")
    return found


def _frame_place(encoder: FunctionEncoder, item: Sym) -> int:
    return encoder.frame[item.name] + item.offset


def _argument(encoder: FunctionEncoder, item: Operand, variable: Variable) -> int:
    """Where the caller has the argument; a register is first put in memory."""
    if isinstance(item, Sym) and item.name in encoder.frame:
        return _frame_place(encoder, item)
    size = variable.size or TYPE_BYTES[variable.type]
    width = encoder.width(item) or max(size, 2)
    place = encoder.local_space(8)
    encoder.emit(
        f"st_{8 * size}_{8 * width}", encoder.source(item, width), x=place, flags=FRAME << 2
    )
    return place


# ------------------------------------------------------------------ barriers


@rule("bar", "barrier")
def _bar(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = [word for word in instruction.modifiers if word not in ("cta", "aligned")]
    operands = list(instruction.operands)
    if words[:2] == ["warp", "sync"]:
        encoder.emit("bar_warp", a=encoder.source(operands[0], 4))
    elif words[0] == "cluster":
        cluster_barrier(encoder, words)
    elif words[0] == "red":
        _reduce(encoder, words, operands)
    elif words[0] in ("sync", "arrive"):
        place = encoder.source(operands[0], 4)
        count = encoder.source(operands[1], 4) if len(operands) > 1 else encoder.constant(0, 4)
        encoder.emit("bar" if words[0] == "sync" else "bar_arrive", a=place, b=count)
    else:
        raise Unsupported("a barrier of this form")


def _reduce(encoder: FunctionEncoder, words: List[str], operands: List[Operand]) -> None:
    to, place, *rest = operands
    verb = words[1]
    d = encoder.destination(to, 4) if verb == "popc" else encoder.predicate_slot(to)
    count = encoder.source(rest[0], 4) if len(rest) > 1 else encoder.constant(0, 4)
    encoder.emit(f"bar_red_{verb}", d, encoder.source(place, 4), count, encoder.truth(rest[-1]))


# ------------------------------------------------------------------ exchange between lanes


@rule("shfl")
def _shfl(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = [word for word in instruction.modifiers if word != "sync"]
    to, a, b, c, *mask = instruction.operands
    first, second = (to.first, to.second) if isinstance(to, Pair) else (to, Sink())
    d = NOWHERE if isinstance(first, Sink) else encoder.destination(first, 4)
    member = encoder.source(mask[0], 4) if mask else NOWHERE
    predicate = NOWHERE if isinstance(second, Sink) else encoder.predicate_slot(second)
    scratch = encoder.temporary(4) if d == NOWHERE else d
    sources = [encoder.source(item, 4) for item in (a, b, c)]
    encoder.emit_all(f"shfl_{words[0]}", [scratch, *sources], flags=1 << 8)
    encoder.extend([predicate, member])


def _members(encoder: FunctionEncoder, operands: Sequence[Operand], index: int) -> int:
    """The member mask; the old forms take whoever is there."""
    if index < len(operands):
        return encoder.source(operands[index], 4)
    made = encoder.temporary(4)
    encoder.emit("activemask", made)
    return made


@rule("vote")
def _vote(encoder: FunctionEncoder, instruction: Instruction) -> None:
    mode = next(word for word in instruction.modifiers if word in ("all", "any", "uni", "ballot"))
    to, source = instruction.operands[:2]
    mask = _members(encoder, instruction.operands, 2)
    d = encoder.destination(to, 4) if mode == "ballot" else encoder.predicate_slot(to)
    encoder.emit(f"vote_{mode}", d, encoder.truth(source), mask)


@rule("match")
def _match(encoder: FunctionEncoder, instruction: Instruction) -> None:
    to, source, mask = instruction.operands
    width = TYPE_BYTES[instruction.modifiers[-1]]
    first, second = (to.first, to.second) if isinstance(to, Pair) else (to, Sink())
    d = encoder.destination(first, 4)
    a, b = encoder.source(source, width), encoder.source(mask, 4)
    if "any" in instruction.modifiers:
        encoder.emit(f"match_any_{8 * width}", d, a, b)
    else:
        p = NOWHERE if isinstance(second, Sink) else encoder.predicate_slot(second)
        encoder.emit(f"match_all_{8 * width}", d, a, b, p)


@rule("redux")
def _redux(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = [word for word in instruction.modifiers if word != "sync"]
    verb, kind = words[0], words[-1]
    to, source, mask = instruction.operands
    name = f"redux_{verb}"
    if kind == "f32":
        name += "".join(f"_{word.lower()}" for word in words[1:-1]) + "_f32"
    elif verb == "add":
        name += "_u"
    elif verb in ("min", "max"):
        name += f"_{kind[0]}"
    encoder.emit(
        name, encoder.destination(to, 4), encoder.source(source, 4), encoder.source(mask, 4)
    )


@rule("elect")
def _elect(encoder: FunctionEncoder, instruction: Instruction) -> None:
    to, mask = instruction.operands
    first, second = (to.first, to.second) if isinstance(to, Pair) else (to, Sink())
    p = NOWHERE if isinstance(second, Sink) else encoder.predicate_slot(second)
    encoder.emit("elect", encoder.destination(first, 4), encoder.source(mask, 4), c=p)


@rule("activemask")
def _activemask(encoder: FunctionEncoder, instruction: Instruction) -> None:
    encoder.emit("activemask", encoder.destination(instruction.operands[0], 4))
