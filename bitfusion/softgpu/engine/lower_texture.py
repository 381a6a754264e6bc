# SPDX-License-Identifier: Apache-2.0
"""Textures and surfaces by their objects' numbers: fetches, loads, stores, questions."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from ..ptx.ir import Group, Instruction, Operand, Reg, Sink, Sym, Vector
from .function import NOWHERE, Broken, FunctionEncoder, Unsupported
from .lower import rule, two_destinations
from .lower_async import only

_GEOMETRIES = {  # enum sg_geometry, and whether there are layers
    "1d": (0, 0), "2d": (1, 0), "3d": (2, 0), "cube": (3, 0),
    "a1d": (0, 1), "a2d": (1, 1), "acube": (3, 1),
}  # fmt: skip
_AXES = (1, 2, 3, 3)
_DETAILS = {"base": 0, "level": 1, "grad": 2}  # enum sg_detail
_OUTSIDE = {"trap": 0, "clamp": 1, "zero": 2}
_REDUCTIONS = ("add", "min", "max", "and", "or")
_COMPONENTS = {"r": 1, "g": 2, "b": 3, "a": 4}
_QUERIES = (
    "width", "height", "depth", "channel_data_type", "channel_order", "normalized_coords",
    "array_size", "num_mipmap_levels", "num_samples", "filter_mode", "addr_mode_0",
    "addr_mode_1", "addr_mode_2", "force_unnormalized_coords", "memory_layout",
)  # fmt: skip
_TEXTURE, _SURFACE = 1, 2
_KINDS = {"texref": _TEXTURE, "surfref": _SURFACE}
_COORDINATES, _VALUES, _OFFSETS, _ALL = 4, 8, 14, 24


def _one(words: Sequence[str], known: Sequence[str]) -> str:
    """The word of ``words`` that is one of these."""
    found = [word for word in words if word in known]
    if len(found) != 1:
        raise Unsupported("a form that is not known")
    return found[0]


def _object(encoder: FunctionEncoder, operand: Operand) -> int:
    if isinstance(operand, Sym):
        raise Unsupported(f"'{operand.name[:60]}': references are removed from CUDA 12 on")
    if not isinstance(operand, Reg) or encoder.width(operand) != 8:
        raise Unsupported("a texture or surface that is not an object's number")
    return encoder.slots[operand.name]


def _items(operand: Operand) -> Tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _object_and_place(
    encoder: FunctionEncoder, operand: Operand
) -> Tuple[int, Tuple[Operand, ...]]:
    """``[object, {x, y}]``."""
    if not isinstance(operand, Group) or len(operand.items) != 2:
        raise Broken("no object with coordinates")
    return _object(encoder, operand.items[0]), _items(operand.items[1])


def _sampled(encoder: FunctionEncoder, operand: Operand) -> Tuple[int, int, Tuple[Operand, ...]]:
    """``[texture, {x, y}]`` or ``[texture, sampler, {x, y}]``; a texture is its own sampler."""
    if not isinstance(operand, Group) or len(operand.items) not in (2, 3):
        raise Broken("no texture with coordinates")
    *objects, place = operand.items
    numbers = [_object(encoder, one) for one in objects]
    return numbers[0], numbers[-1], _items(place)


def _emit(
    encoder: FunctionEncoder,
    op: str,
    number: int,
    x: int,
    more: Dict[int, int],
    sampler: int = 0,
) -> None:
    encoder.emit(op, 0, number, sampler, x=x, flags=(_ALL // 4) << 8)
    encoder.extend([more.get(n, NOWHERE) for n in range(_ALL)])


def _words(
    encoder: FunctionEncoder, items: Sequence[Operand], start: int, count: Optional[int] = None
) -> Dict[int, int]:
    if count is not None and len(items) < count:
        raise Broken("too few components")
    wanted = items[:count]
    return {start + n: encoder.source(item, 4) for n, item in enumerate(wanted)}


def _place(
    encoder: FunctionEncoder, items: Sequence[Operand], geometry: int, layered: int
) -> Dict[int, int]:
    """Three coordinates come in vectors of four, as do two and a layer."""
    return _words(encoder, items, _COORDINATES, layered + _AXES[geometry])


# ------------------------------------------------------------------ tex, tld4


def _fetch(encoder: FunctionEncoder, instruction: Instruction, gather: int) -> None:
    words = list(instruction.modifiers)
    coordinate, result = words.pop(), words.pop()
    name = _one(words, tuple(_GEOMETRIES))
    geometry, layered = _GEOMETRIES[name]
    detail = next((word for word in words if word in _DETAILS), "base")
    packed = result == "f16x2"
    only(tuple(words), name, *_DETAILS, *_COMPONENTS, "v2" if packed else "v4")
    if coordinate not in ("f32", "s32") or result not in ("u32", "s32", "f32", "f16", "f16x2"):
        raise Unsupported("types that a texture does not have")
    to, where, *rest = instruction.operands
    to, resident = two_destinations(encoder, to)
    number, sampler, place = _sampled(encoder, where)
    more = _place(encoder, place, geometry, layered)
    if detail == "level":
        more[_VALUES] = encoder.source(rest.pop(0), 4)
    elif detail == "grad":
        axes = _AXES[geometry]
        more.update(_words(encoder, _items(rest.pop(0)), _VALUES, axes))
        more.update(_words(encoder, _items(rest.pop(0)), _VALUES + 3, axes))
    if rest and geometry != 3:
        more.update(_words(encoder, _items(rest.pop(0)), _OFFSETS, _AXES[geometry]))
    if rest:
        raise Unsupported("a comparison of depths")
    x = geometry | layered << 2 | (coordinate == "f32") << 3 | _DETAILS[detail] << 4 | gather << 6
    items = _items(to)
    if len(items) != (2 if packed else 4):
        raise Broken("another number of results")
    _finish(encoder, (number, sampler), x, more, items, result)
    if not isinstance(resident, Sink):  # all memory is
        encoder.emit("mov_pred", encoder.predicate_slot(resident), 0)


def _finish(
    encoder: FunctionEncoder,
    objects: Tuple[int, int],
    x: int,
    more: Dict[int, int],
    items: Sequence[Operand],
    result: str,
) -> None:
    """The fetch, and its four words as the type that is wanted."""
    if result not in ("f16", "f16x2"):
        for n, item in enumerate(items):
            more[n] = NOWHERE if isinstance(item, Sink) else encoder.destination(item, 4)
        _emit(encoder, "texture", objects[0], x, more, objects[1])
        return
    for n in range(4):
        more[n] = encoder.temporary(4)
    _emit(encoder, "texture", objects[0], x, more, objects[1])
    halves = [encoder.temporary(2) for _ in range(4)]
    for n in range(4):
        encoder.emit("cvt_rn_f16_f32", halves[n], more[n])
    for n, item in enumerate(items):
        if isinstance(item, Sink):
            continue
        if result == "f16":
            encoder.emit("mov_16", encoder.destination(item, 2), halves[n])
        else:
            pair = halves[2 * n : 2 * n + 2]
            encoder.emit("pack_16_16", encoder.destination(item, 4), *pair)


@rule("tex")
def _tex(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """By objects' numbers; weights have 8 fractional bits."""
    _fetch(encoder, instruction, 0)


@rule("tld4")
def _tld4(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Of the base level."""
    words = instruction.modifiers
    if words[-1] != "f32":
        raise Unsupported("a gather at whole coordinates")
    _fetch(encoder, instruction, _COMPONENTS[_one(words, tuple(_COMPONENTS))])


# ------------------------------------------------------------------ questions


def _ask(encoder: FunctionEncoder, instruction: Instruction, kind: int) -> None:
    words = instruction.modifiers
    question = _one(words, _QUERIES)
    only(words, question, "b32", "level")
    to, where, *rest = instruction.operands
    if getattr(where, "offset", 0) or len(rest) != ("level" in words):
        raise Unsupported("a question of this form")
    more = {0: encoder.destination(to, 4)}
    if rest:
        more[_VALUES] = encoder.source(rest[0], 4)
    number = _object(encoder, getattr(where, "base", where))
    _emit(encoder, "texture_query", number, _QUERIES.index(question) | kind << 8, more)


@rule("txq")
def _txq(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Also of what a sampler has, since an object is both."""
    _ask(encoder, instruction, _TEXTURE)


@rule("suq")
def _suq(encoder: FunctionEncoder, instruction: Instruction) -> None:
    _ask(encoder, instruction, _SURFACE)


@rule("istypep")
def _istypep(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """An object is a texture with its sampler: .samplerref is .texref."""
    (kind,) = instruction.modifiers
    to, which = instruction.operands
    wanted = _KINDS["texref" if kind == "samplerref" else kind]
    encoder.emit("texture_is", encoder.predicate_slot(to), _object(encoder, which), c=wanted)


# ------------------------------------------------------------------ surfaces

_CACHES = ("ca", "cg", "cs", "cv", "wb", "wt")
_SIZES = {f"{letter}{8 << n}": n for letter in "bus" for n in range(4)}
_SIZES["f32"], _SIZES["f64"] = 2, 3


def _surface(
    encoder: FunctionEncoder, words: Sequence[str], where: Operand
) -> Tuple[int, int, Dict[int, int]]:
    """Number, form and coordinates."""
    geometry, layered = _GEOMETRIES[_one(words, ("1d", "2d", "3d", "a1d", "a2d"))]
    outside = next((word for word in words if word in _OUTSIDE), "trap")
    number, place = _object_and_place(encoder, where)
    x = geometry | layered << 2 | _OUTSIDE[outside] << 3
    return number, x, _place(encoder, place, geometry, layered)


def _shape(words: Sequence[str], items: Sequence[Operand]) -> Tuple[int, int]:
    """log2 of an element's bytes, and how many there are."""
    size = _SIZES[_one(words, tuple(_SIZES))]
    count = {"v2": 2, "v4": 4}.get(next((w for w in words if w in ("v2", "v4")), ""), 1)
    if len(items) != count or (size == 3 and count == 4):
        raise Unsupported("a vector of this size")
    return size, count


def _check_surface(words: Tuple[str, ...], *more: str) -> None:
    geometries = ("1d", "2d", "3d", "a1d", "a2d")
    only(words, *geometries, *_OUTSIDE, *_CACHES, *_SIZES, "v2", "v4", *more)


def _store_later(encoder: FunctionEncoder, item: Operand, size: int, words: Sequence[int]) -> None:
    if size == 3:
        encoder.emit("pack_32_32", encoder.destination(item, 8), *words)
    else:
        encoder.emit(f"ext_32_u{8 << size}_16", encoder.destination(item, 2), words[0])


@rule("suld")
def _suld(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """x counts bytes."""
    words = instruction.modifiers
    if words[0] != "b":
        raise Unsupported("a formatted load")
    _check_surface(words, "b")
    to, where = instruction.operands
    items = _items(to)
    size, count = _shape(words[1:], items)
    number, x, more = _surface(encoder, words, where)
    each, later = (2 if size == 3 else 1), []
    for n, item in enumerate(items):
        if isinstance(item, Sink):
            continue
        if size == 2:
            more[n] = encoder.destination(item, 4)
            continue
        made = [encoder.temporary(4) for _ in range(each)]
        more.update({each * n + k: slot for k, slot in enumerate(made)})
        later.append((item, made))
    _emit(encoder, "surface_load", number, x | _sizes(size, count), more)
    for item, made in later:
        _store_later(encoder, item, size, made)


def _sizes(size: int, count: int) -> int:
    """64 bits are twice 32."""
    elements = count * 2 if size == 3 else count
    return min(size, 2) << 5 | (elements.bit_length() - 1) << 7


def _values(encoder: FunctionEncoder, items: Sequence[Operand], size: int) -> Dict[int, int]:
    found: List[int] = []
    for item in items:
        if size == 2:
            found.append(encoder.source(item, 4))
        elif size < 2:
            found.append(encoder.resize(encoder.source(item, 2), 2, 4))
        else:
            value = encoder.source(item, 8)
            for n in range(2):
                found.append(encoder.temporary(4))
                encoder.emit(f"part_64_{n}", found[-1], value)
    return {_VALUES + n: slot for n, slot in enumerate(found)}


@rule("sust")
def _sust(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Of .b, x counts bytes; .p converts to the surface's format."""
    words = instruction.modifiers
    formatted = words[0] == "p"
    where, source = instruction.operands
    items = _items(source)
    _check_surface(words, "b" if words[0] == "b" else "p")
    size, count = _shape(words[1:], items)
    if formatted and size != 2:
        raise Unsupported("a formatted store of other words")
    number, x, more = _surface(encoder, words, where)
    more.update(_values(encoder, items, size))
    x |= formatted << 9 | (words[-1] == "f32" or words[-2] == "f32") << 10
    _emit(encoder, "surface_store", number, x | _sizes(size, count), more)


@rule("sured")
def _sured(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Of .b, x counts bytes; .p has the surface's format say whether it is signed."""
    words = instruction.modifiers
    formatted = words[0] == "p"
    verb = _one(words[1:], _REDUCTIONS)
    where, source = instruction.operands
    items = _items(source)
    size, count = _shape(words[1:], items)
    if count != 1 or size < 2:
        raise Unsupported("a reduction of other words")
    number, x, more = _surface(encoder, words, where)
    more.update(_values(encoder, items, size))
    is_signed = any(word in ("s32", "s64") for word in words)
    x |= formatted << 9 | _REDUCTIONS.index(verb) << 11 | is_signed << 14
    _emit(encoder, "surface_reduce", number, x | _sizes(size, count), more)
