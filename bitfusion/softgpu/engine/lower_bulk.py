# SPDX-License-Identifier: Apache-2.0
"""Bulk and tensor copies, and stores and reductions that tell an asynchronous barrier."""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

from ..ptx.ir import (
    TYPE_BYTES,
    Address,
    Group,
    Imm,
    Instruction,
    Operand,
    Reg,
    Sym,
    Vector,
)
from .function import (
    FRAME,
    GENERIC,
    GLOBAL,
    LOCAL_WINDOW,
    NOWHERE,
    PARAM,
    PARAM_WINDOW,
    SHARED,
    SHARED_WINDOW,
    WIDE,
    Broken,
    FunctionEncoder,
    Unsupported,
)
from .lower import rule
from .lower_async import SCOPES, only
from .lower_memory import SPACES, copy_async, reduce, space_of, store

_VERBS = ("add", "min", "max", "inc", "dec", "and", "or", "xor")  # enum sg_reduce
_ELEMENTS = {  # enum sg_element
    "u32": 2, "b32": 2, "s32": 3, "u64": 4, "b64": 4, "s64": 5, "f16": 6, "f32": 7, "f64": 8,
    "bf16": 9,
}  # fmt: skip
_REDUCTIONS = {
    GLOBAL: {
        "add": "u32 s32 u64 f16 bf16 f32 f64",
        "min": "u32 s32 u64 s64 f16 bf16",
        "max": "u32 s32 u64 s64 f16 bf16",
        "inc": "u32",
        "dec": "u32",
        "and": "b32 b64",
        "or": "b32 b64",
        "xor": "b32 b64",
    },
    SHARED: {
        "add": "u32 s32 u64",
        "min": "u32 s32",
        "max": "u32 s32",
        "inc": "u32",
        "dec": "u32",
        "and": "b32",
        "or": "b32",
        "xor": "b32",
    },
}
_COMPLETE = "mbarrier::complete_tx::bytes"
_HINT = "L2::cache_hint"


def generic(encoder: FunctionEncoder, address: Operand, space: int) -> int:
    """An address as a generic one, in a 64-bit register."""
    a, x, flags = encoder.memory(address, space)
    found = flags >> 2
    if found == FRAME:
        made = encoder.temporary(8)
        encoder.emit("frame_address_64", made, x=x)
        a, x, window = made, 0, LOCAL_WINDOW
    else:
        a = a if flags & WIDE else encoder.resize(a, 4, 8)
        window = {SHARED: SHARED_WINDOW, PARAM: PARAM_WINDOW}.get(found, 0)
    if not x and not window:
        return a
    made = encoder.temporary(8)
    encoder.emit("add_64", made, a, encoder.constant(x + window, 8))
    return made


def _wide(encoder: FunctionEncoder, operand: Operand, signed: bool = False) -> int:
    """An integer operand in 64 bits."""
    if isinstance(operand, Imm):
        return encoder.constant(operand.value, 8)
    width = encoder.width(operand) or 4
    value = encoder.source(operand, width)
    if width == 8:
        return value
    made = encoder.temporary(8)
    encoder.emit(f"ext_{8 * width}_{'su'[not signed]}{8 * width}_64", made, value)
    return made


def _emit(encoder: FunctionEncoder, op: str, operands: Sequence[int], more: Sequence[int]) -> None:
    encoder.emit_all(op, operands, flags=3 << 8)
    encoder.extend([*more, *[NOWHERE] * (12 - len(more))])


@rule("cp")
def _cp(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Copies are done when they are issued; their groups are always complete."""
    words = instruction.modifiers
    if words[0] == "reduce" and words[1:3] == ("async", "bulk"):
        if "tensor" in words:
            _tensor(encoder, instruction, words[4:], True)
        else:
            _bulk(encoder, instruction, words[3:], True)
    elif words[:2] == ("async", "bulk"):
        _async_bulk(encoder, instruction, words[2:])
    elif words[:3] == ("async", "mbarrier", "arrive"):
        _async_arrive(encoder, instruction, words[3:])
    elif words[0] == "async":
        copy_async(encoder, instruction)
    else:
        raise Unsupported("an unknown copy")


def _async_bulk(
    encoder: FunctionEncoder, instruction: Instruction, words: Tuple[str, ...]
) -> None:
    if words in (("commit_group",), ("wait_group",), ("wait_group", "read")):
        encoder.emit("nop")
    elif words[0] == "prefetch":
        _prefetch(encoder, instruction, words[1:])
    elif words[0] == "tensor":
        _tensor(encoder, instruction, words[1:], False)
    else:
        _bulk(encoder, instruction, words, False)


def _prefetch(encoder: FunctionEncoder, instruction: Instruction, words: Tuple[str, ...]) -> None:
    """Nothing is fetched, but what the operands name must be there to be read."""
    known = ("tensor", "L2", "global", _HINT, "tile", "im2col", "tile::gather4")
    only(words, *known, *(f"{n}d" for n in range(1, 6)))
    del instruction
    encoder.emit("nop")


def _async_arrive(
    encoder: FunctionEncoder, instruction: Instruction, words: Tuple[str, ...]
) -> None:
    """All copies of the thread are done: it arrives, or, not counted before, changes nothing."""
    only(words, "noinc", "shared", "shared::cta", "b64")
    a, x, flags = encoder.memory(instruction.operands[0], space_of(encoder, words))
    if "noinc" in words:
        encoder.emit("mbarrier_arrive", NOWHERE, a, encoder.constant(1, 4), 0, x, flags)
    else:
        encoder.emit("mbarrier_expect", 0, a, encoder.constant(0, 4), x=x, flags=flags)


def _ends(words: Tuple[str, ...]) -> Tuple[int, int, Tuple[str, ...]]:
    """Spaces of destination and source, and the other words."""
    if words[0] not in SPACES or words[1] not in SPACES:
        raise Unsupported("a copy between other spaces")
    to, source = SPACES[words[0]], SPACES[words[1]]
    if {to, source} - {SHARED, GLOBAL} or (to, source) == (GLOBAL, GLOBAL):
        raise Unsupported("a copy between other spaces")
    return to, source, words[2:]


def _verb(words: Tuple[str, ...], to: int) -> Tuple[int, int, Tuple[str, ...]]:
    """Number of a reduction plus 1, its type's number, and the other words."""
    kind = words[-1]
    verb = next(word for word in words if word in _VERBS)
    if kind not in _REDUCTIONS[to][verb].split():
        raise Unsupported(f".{verb}.{kind}")
    if kind in ("f16", "bf16") and verb == "add" and "noftz" not in words:
        raise Unsupported("an addition without .noftz")
    rest = tuple(word for word in words[:-1] if word not in (verb, "noftz"))
    return 1 + _VERBS.index(verb), _ELEMENTS[kind], rest


def _bulk(
    encoder: FunctionEncoder, instruction: Instruction, words: Tuple[str, ...], reduce: bool
) -> None:
    to, source, words = _ends(words)
    verb = kind = 0
    if reduce:
        if source != SHARED:
            raise Unsupported("a reduction from elsewhere")
        verb, kind, words = _verb(words, to)
    operands = list(instruction.operands)
    target = generic(encoder, operands.pop(0), to)
    origin = generic(encoder, operands.pop(0), source)
    size = encoder.source(operands.pop(0), 4)
    barrier = mask = byte_mask = NOWHERE
    if to == SHARED:
        if _COMPLETE not in words:
            raise Unsupported("a copy without a barrier")
        only(words, _COMPLETE, "multicast::cluster", _HINT)
        barrier = generic(encoder, operands.pop(0), SHARED)
        if "multicast::cluster" in words:
            mask = _wide(encoder, operands.pop(0))
    else:
        if "bulk_group" not in words:
            raise Unsupported("a copy without a group")
        only(words, "bulk_group", _HINT, *(() if reduce else ("cp_mask",)))
    if _HINT in words:
        operands.pop(0)
    if "cp_mask" in words:
        byte_mask = _wide(encoder, operands.pop(0))
    if operands:
        raise Broken("another number of operands")
    how = (to == SHARED) | (source == SHARED) << 1 | kind << 2 | verb << 6
    _emit(encoder, "bulk_copy", [target, origin, size, how], [barrier, mask, byte_mask])


# ------------------------------------------------------------------ tensors

_MODES = {
    "tile": 0, "im2col": 1, "im2col_no_offs": 1, "tile::gather4": 2, "tile::scatter4": 2,
}  # fmt: skip  # enum sg_tensor_mode


def _map_and_place(operand: Operand) -> Tuple[Operand, Tuple[Operand, ...]]:
    """``[map, {x, y}]``."""
    if not isinstance(operand, Group) or len(operand.items) != 2:
        raise Broken("no tensor map with coordinates")
    base, place = operand.items
    items = place.items if isinstance(place, Vector) else (place,)
    if not isinstance(base, (Reg, Sym)):
        raise Broken("no tensor map")
    return Address(base), items


def _tensor(
    encoder: FunctionEncoder, instruction: Instruction, words: Tuple[str, ...], reduce: bool
) -> None:
    rank = int(words[0][0]) if words[0] in ("1d", "2d", "3d", "4d", "5d") else 0
    to, source, words = _ends(words[1:])
    verb, mode = 0, next((word for word in words if word in _MODES), "tile")
    if reduce:
        word = next(word for word in words if word in _VERBS)
        verb, words = _VERBS.index(word), tuple(one for one in words if one != word)
    load = to == SHARED
    allowed = ("tile", "im2col", "tile::gather4") if load else ("tile", "im2col_no_offs")
    if not rank or mode not in (allowed if load or reduce else (*allowed, "tile::scatter4")):
        raise Unsupported(f".{mode}")
    operands = list(instruction.operands)
    shared = operands.pop(0) if load else operands.pop(1)
    where, place = _map_and_place(operands.pop(0))
    if len(place) != (5 if _MODES[mode] == 2 else rank) or (_MODES[mode] == 2 and rank != 2):
        raise Broken("another number of coordinates")
    barrier = mask = NOWHERE
    offsets: List[int] = []
    if load:
        if _COMPLETE not in words or reduce or source != GLOBAL:
            raise Unsupported("a tensor copy of this form")
        only(words, _COMPLETE, mode, "multicast::cluster", _HINT)
        barrier = generic(encoder, operands.pop(0), SHARED)
        if mode == "im2col":
            offsets = _offsets(encoder, operands.pop(0), rank)
        if "multicast::cluster" in words:
            mask = _wide(encoder, operands.pop(0))
    else:
        if "bulk_group" not in words or source != SHARED:
            raise Unsupported("a tensor copy of this form")
        only(words, "bulk_group", mode, _HINT)
    if len(operands) != (_HINT in words):
        raise Broken("another number of operands")
    at = [_wide(encoder, item, signed=True) for item in place]
    how = (0 if load else 2 if reduce else 1) | _MODES[mode] << 2 | rank << 4 | verb << 7
    more = [barrier, mask, *at, *[NOWHERE] * (5 - len(at)), *offsets]
    ends = [generic(encoder, where, GENERIC), generic(encoder, shared, SHARED)]
    _emit(encoder, "tensor_copy", [*ends, 0, how], more)


def _offsets(encoder: FunctionEncoder, operand: Operand, rank: int) -> List[int]:
    items = operand.items if isinstance(operand, Vector) else (operand,)
    if len(items) != rank - 2:
        raise Broken("another number of offsets")
    return [_wide(encoder, item) for item in items]


# ------------------------------------------------------------------ st.async, red.async, st.bulk


@rule("st")
def _st(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """st.async stores at once and then counts on its barrier."""
    words = instruction.modifiers
    if words[0] == "async":
        _asynchronous(encoder, instruction, store)
    elif words[0] == "bulk":
        _zeros(encoder, instruction)
    else:
        store(encoder, instruction)


@rule("red")
def _red(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """red.async reduces at once and then counts on its barrier."""
    if instruction.modifiers[0] == "async":
        _asynchronous(encoder, instruction, reduce)
    else:
        reduce(encoder, instruction)


def _asynchronous(
    encoder: FunctionEncoder,
    instruction: Instruction,
    plain: Callable[[FunctionEncoder, Instruction], None],
) -> None:
    words, operands = instruction.modifiers[1:], instruction.operands
    known = ("weak", "mmio", "relaxed", "release", *SCOPES, "v2", "v4", *_VERBS, *TYPE_BYTES)
    only(words, *known, "shared::cluster", "global", _COMPLETE)
    told = _COMPLETE in words
    if len(operands) != 2 + told or told == ("release" in words) or (told and "global" in words):
        raise Unsupported("an asynchronous store of this form")
    kept = tuple(word for word in words if word not in (_COMPLETE, "mmio"))
    plain(encoder, instruction._replace(modifiers=kept, operands=operands[:2]))
    if told:
        value = operands[1]
        count = len(value.items) if isinstance(value, Vector) else 1
        size = encoder.constant(TYPE_BYTES[words[-1]] * count, 4)
        barrier = generic(encoder, operands[2], space_of(encoder, words))
        encoder.emit("bulk_complete", 0, barrier, size)


def _zeros(encoder: FunctionEncoder, instruction: Instruction) -> None:
    only(instruction.modifiers, "bulk", "weak", "shared", "shared::cta")
    address, size, value = instruction.operands
    if not isinstance(value, Imm) or value.value:
        raise Unsupported("a value that is not 0")
    to = generic(encoder, address, space_of(encoder, instruction.modifiers))
    encoder.emit("bulk_zero", 0, to, _wide(encoder, size))


@rule("clusterlaunchcontrol")
def _launch_control(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """A cluster takes the place of one that was not begun; `.multicast` is for `a` targets."""
    verb, *words = instruction.modifiers
    if verb == "try_cancel":
        if sorted(set(words) - {"shared::cta"}) != ["async", "b128", _COMPLETE]:
            raise Unsupported("a request of this form")
        space = space_of(encoder, tuple(words))
        where, barrier = (generic(encoder, item, space) for item in instruction.operands)
        encoder.emit("try_cancel", 0, where, barrier)
        return
    to, answer = instruction.operands
    if verb != "query_cancel" or words[-1] != "b128":
        raise Unsupported(verb)
    if words[:-1] == ["is_canceled", "pred"]:
        flag, zero = _answer_word(encoder, answer, 0), encoder.constant(0, 4)
        encoder.emit("setp_ne_u32", encoder.predicate_slot(to), flag, zero, NOWHERE)
    elif words[:-1] == ["get_first_ctaid", "v4", "b32"] and isinstance(to, Vector):
        for k, item in enumerate(to.items):
            word = _answer_word(encoder, answer, (k + 1) % 4)
            encoder.emit("mov_32", encoder.destination(item, 4), word)
    else:
        axis = ["get_first_ctaid::x", "get_first_ctaid::y", "get_first_ctaid::z"].index(words[0])
        if words[1:-1] != ["b32"]:
            raise Unsupported("a question of this form")
        encoder.emit("mov_32", encoder.destination(to, 4), _answer_word(encoder, answer, axis + 1))


def _answer_word(encoder: FunctionEncoder, answer: Operand, index: int) -> int:
    """One of the four words of try_cancel's answer: whether, x, y, z."""
    half, word = encoder.temporary(8), encoder.temporary(4)
    encoder.emit(f"part_128_{index // 2}", half, encoder.source(answer, 16))
    encoder.emit(f"part_64_{index % 2}", word, half)
    return word


@rule("tensormap")
def _tensormap(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """cp_fenceproxy copies a map from shared to global memory; replace is for `a` targets."""
    words = ("cp_fenceproxy", "global", "shared::cta", "tensormap::generic", "release")
    if instruction.modifiers[:5] != words:
        raise Unsupported("a tensor map's field")
    only(instruction.modifiers[5:], *SCOPES, "sync", "aligned")
    target, source, size = instruction.operands
    if not isinstance(size, Imm) or size.value != 128:
        raise Unsupported("another size")
    ends = [generic(encoder, target, GLOBAL), generic(encoder, source, SHARED)]
    _emit(encoder, "bulk_copy", [*ends, encoder.constant(128, 4), 2], [])
