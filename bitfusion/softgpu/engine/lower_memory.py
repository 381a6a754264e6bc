# SPDX-License-Identifier: Apache-2.0
"""Loads, stores, atomics, fences, address spaces."""

from __future__ import annotations

from typing import List, Optional, Tuple

from ..ptx.ir import (
    TYPE_BYTES,
    Address,
    Imm,
    Instruction,
    Negated,
    Operand,
    Reg,
    Sink,
    Sym,
    Vector,
)
from .encoding import NUMBERS
from .function import (
    GENERIC,
    GLOBAL,
    LOCAL,
    LOCAL_WINDOW,
    NOWHERE,
    PARAM,
    PARAM_WINDOW,
    SHARED,
    SHARED_WINDOW,
    WIDE,
    FunctionEncoder,
    Unsupported,
    optional,
)
from .lower import rule

SPACES = {
    "global": GLOBAL,
    "const": GLOBAL,
    "shared": SHARED,
    "shared::cta": SHARED,
    "local": LOCAL,
    "param": PARAM,
    "param::entry": PARAM,
    "param::func": LOCAL,
    "shared::cluster": SHARED,
}
_WINDOWS = {SHARED: SHARED_WINDOW, LOCAL: LOCAL_WINDOW, PARAM: PARAM_WINDOW}
# Flags of records that have handlers for whole warps (run_memory_whole.c).
_WHOLE = {
    WIDE | GLOBAL << 2: "global",
    SHARED << 2: "shared",
    WIDE | SHARED << 2: "shared_wide",
}
_CLUSTER = 8  # of isspacep: the other blocks' shared memory too
_ORDERS = ("acquire", "release", "acq_rel", "sc")


def space_of(encoder: FunctionEncoder, modifiers: Tuple[str, ...]) -> int:
    for word in modifiers:
        if word in SPACES:
            found = SPACES[word]
            # parameters of a device function and of its calls lie in its frame
            return LOCAL if found == PARAM and not encoder.function.entry else found
    return GENERIC


def _vector(modifiers: Tuple[str, ...]) -> bool:
    return any(word in ("v2", "v4", "v8") for word in modifiers)


def _load_kind(kind: str, width: int) -> str:
    size = TYPE_BYTES[kind]
    sign = "s" if kind[0] == "s" and width > size else "u"
    return f"{sign}{8 * size}_{8 * width}"


@rule("ld", "ldu")
def load(encoder: FunctionEncoder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    to, address = instruction.operands[:2]
    if _vector(modifiers):
        _ld_vector(encoder, modifiers, to, address)
    else:
        _ld_one(encoder, modifiers, _scalar(to), address)
    if "acquire" in modifiers:
        encoder.emit("fence")


def _scalar(operand: Operand) -> Operand:
    """XLA's Triton puts braces around one register: ``ld.global.b32 {%r1}, [%rd1]``."""
    if isinstance(operand, Vector) and len(operand.items) == 1:
        return operand.items[0]
    return operand


def _ld_one(
    encoder: FunctionEncoder, modifiers: Tuple[str, ...], to: Operand, address: Operand
) -> None:
    kind = modifiers[-1]
    width = encoder.width(to) or max(TYPE_BYTES[kind], 2)
    d = encoder.destination(to, width)
    offset = _kernel_parameter(encoder, address)
    name = _load_kind(kind, width)
    if offset is not None:
        if width == 16:
            halves = [encoder.temporary(8), encoder.temporary(8)]
            for k, half in enumerate(halves):
                encoder.emit("ldparam_u64_64", half, x=offset + 8 * k)
            encoder.emit("pack_64_64", d, *halves)
            return
        encoder.emit(f"ldparam_{name}", d, x=offset)
        return
    space = space_of(encoder, modifiers)
    a, x, flags = encoder.memory(address, space)
    if width == 16:
        op = "ld_128"
    else:
        op = f"ld_{name}"
    _emit_one(encoder, op, d, (a, x, flags))


def _emit_one(encoder: FunctionEncoder, op: str, value: int, where: Tuple[int, int, int]) -> None:
    """By the handler for whole warps on global or shared memory, where there is one."""
    a, x, flags = where
    verb, kind = op.split("_", 1)
    space = _WHOLE.get(flags)
    if f"{verb}_{space}_{kind}" not in NUMBERS:
        encoder.emit(op, value, a, x=x, flags=flags)
        return
    known, slot = encoder.pattern(a, int(kind.split("_")[0].lstrip("us")) // 8)
    space = f"{space}_known" if known else space
    encoder.emit(f"{verb}_{space}_{kind}", value, a, slot, x=x, flags=flags)


def _kernel_parameter(encoder: FunctionEncoder, address: Operand) -> Optional[int]:
    if isinstance(address, Address) and isinstance(address.base, Sym):
        offset = encoder.module.parameter_offset(encoder.function, address.base.name)
        if offset is not None:
            return offset + address.base.offset + address.offset
    return None


def _ld_vector(
    encoder: FunctionEncoder, modifiers: Tuple[str, ...], to: Operand, address: Operand
) -> None:
    kind = modifiers[-1]
    items = to.items if isinstance(to, Vector) else ()
    widths = {encoder.width(item) for item in items if not isinstance(item, Sink)}
    width = widths.pop() if widths else max(TYPE_BYTES[kind], 2)
    if widths or len(items) not in (2, 4, 8) or width == 16:
        raise Unsupported("a vector of this form")
    operands = [
        NOWHERE if isinstance(item, Sink) else encoder.destination(item, width) for item in items
    ]
    offset = _kernel_parameter(encoder, address)
    if offset is not None:
        for k, d in enumerate(operands):
            if d != NOWHERE:
                encoder.emit(
                    f"ldparam_{_load_kind(kind, width)}", d, x=offset + k * TYPE_BYTES[kind]
                )
        return
    a, x, flags = encoder.memory(address, space_of(encoder, modifiers))
    _emit_vector(encoder, f"ldv_{_load_kind(kind, width)}", operands, (a, x, flags))


def _emit_vector(
    encoder: FunctionEncoder, op: str, operands: List[int], where: Tuple[int, int, int]
) -> None:
    extra = (len(operands) + 3) // 4
    encoder.emit(op, 0, where[0], c=len(operands), x=where[1], flags=where[2] | extra << 8)
    encoder.extend(operands)


def store(encoder: FunctionEncoder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    address, value = instruction.operands[:2]
    kind = modifiers[-1]
    size = TYPE_BYTES[kind]
    if "release" in modifiers:
        encoder.emit("fence")
    if isinstance(value, Vector) and _vector(modifiers):
        width = max([encoder.width(item) for item in value.items] + [max(size, 2)])
        operands = [encoder.source(item, width) for item in value.items]
        where = encoder.memory(address, space_of(encoder, modifiers))
        _emit_vector(encoder, f"stv_{8 * size}_{8 * width}", operands, where)
        return
    value = _scalar(value)
    width = encoder.width(value) or max(size, 2)
    source = encoder.source(value, width)
    a, x, flags = encoder.memory(address, space_of(encoder, modifiers))
    name = f"{8 * size}_{8 * width}"
    if width == 16:
        op = "st_128"
    else:
        op = f"st_{name}"
    _emit_one(encoder, op, source, (a, x, flags))


# ------------------------------------------------------------------ atomics


def _atomic_op(verb: str, kind: str) -> Tuple[str, int]:
    """The handler of an operation on a type, and the bytes of its operands."""
    size = TYPE_BYTES[kind]
    if verb in ("add", "min", "max") and "f" in kind:
        name = f"atom_{verb}_{kind}"
    elif verb in ("min", "max"):
        name = f"atom_{verb}_{'s' if kind[0] == 's' else 'u'}_{8 * size}"
    else:
        name = f"atom_{verb}_{8 * size}"
    if name not in NUMBERS:
        raise Unsupported(f"{verb} on {kind}")
    return name, size


_VERBS = ("and", "or", "xor", "exch", "cas", "add", "inc", "dec", "min", "max")


@rule("atom")
def reduce(encoder: FunctionEncoder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    verb = (
        next(word for word in modifiers if word in _VERBS) if set(modifiers) & set(_VERBS) else ""
    )
    op, size = _atomic_op(verb, modifiers[-1])
    items = list(instruction.operands)
    to: Operand = Sink() if instruction.opcode == "red" else items.pop(0)
    address = items.pop(0)
    a, x, flags = encoder.memory(address, space_of(encoder, modifiers))
    ordered = any(word in _ORDERS for word in modifiers)
    if ordered:
        encoder.emit("fence")
    values = items[: 2 if verb == "cas" else 1]
    if isinstance(values[0], Vector) and len(values[0].items) > 1:
        tos = to.items if isinstance(to, Vector) else (Sink(),) * len(values[0].items)
        for k, (one, value) in enumerate(zip(tos, values[0].items)):
            d = NOWHERE if isinstance(one, Sink) else encoder.destination(one, size)
            encoder.emit(op, d, a, encoder.source(value, size), x=x + k * size, flags=flags)
        return
    sources = [encoder.source(_scalar(value), size) for value in values]
    to = _scalar(to)
    d = NOWHERE if isinstance(to, Sink) else encoder.destination(to, size)
    encoder.emit_all(op, [d, a, *sources], x=x, flags=flags)


@rule("membar", "fence")
def _fence(encoder: FunctionEncoder, instruction: Instruction) -> None:
    encoder.emit("fence")


# ------------------------------------------------------------------ addresses


@rule("cvta")
def _cvta(encoder: FunctionEncoder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    to, source = instruction.operands
    width = encoder.width(to)
    if width != 8:
        raise Unsupported("32-bit addresses")
    space = space_of(encoder, tuple(word for word in modifiers if word != "to"))
    value = encoder.source(source, 8)
    d = encoder.destination(to, 8)
    window = _WINDOWS.get(space, 0)
    if not window:
        encoder.emit("mov_64", d, value)
    else:
        encoder.emit(
            "sub_64" if "to" in modifiers else "add_64", d, value, encoder.constant(window, 8)
        )


@rule("isspacep")
def _isspacep(encoder: FunctionEncoder, instruction: Instruction) -> None:
    word = instruction.modifiers[0]
    to, source = instruction.operands
    d = encoder.predicate_slot(to)
    if word == "const":
        encoder.emit("mov_pred", d, 1)  # constants lie in global memory
        return
    space = {"param": PARAM, "param::entry": PARAM}.get(word, SPACES.get(word, GENERIC))
    if space == GENERIC:
        raise Unsupported(word)
    cluster = _CLUSTER if word == "shared::cluster" else 0
    if isinstance(source, Imm) or encoder.width(source) == 4:
        at = encoder.resize(encoder.source(source, 4), 4, 8)
    else:
        at = encoder.source(source, 8)
    encoder.emit("isspacep", d, at, x=space | cluster)


def copy_async(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """cp.async copies at once; groups are then always complete."""
    modifiers = instruction.modifiers
    if modifiers[1] in ("commit_group", "wait_group", "wait_all"):
        encoder.emit("nop")
        return
    to, source, size = instruction.operands[:3]
    count = getattr(size, "value", 0)
    read = optional(instruction.operands, 3)
    bytes_read = encoder.constant(count, 4)
    if (isinstance(read, Reg) and encoder.width(read) == 0) or isinstance(read, Negated):
        none, bytes_read = encoder.constant(0, 4), encoder.temporary(4)  # ignore-src
        encoder.emit("selp_32", bytes_read, none, encoder.constant(count, 4), encoder.truth(read))
    elif read is not None and encoder.width(read) != 8:
        bytes_read = encoder.source(read, 4)
    target, offset, flags = encoder.memory(to, SHARED)
    if offset:
        width = 8 if flags & WIDE else 4
        moved = encoder.temporary(width)
        encoder.emit(f"add_{8 * width}", moved, target, encoder.constant(offset, width))
        target = moved
    a, x, from_flags = encoder.memory(source, GLOBAL)
    if not from_flags & WIDE or from_flags >> 2 != GLOBAL:
        raise Unsupported("a copy from elsewhere")
    encoder.emit("copy_async", target, a, bytes_read, count, x=x, flags=flags & WIDE)
