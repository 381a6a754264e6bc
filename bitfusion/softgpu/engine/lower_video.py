# SPDX-License-Identifier: Apache-2.0
"""Video instructions: scalar ones on parts of registers, and those on all bytes or halves.

One handler carries out each of the two kinds; its record's x says what to do (run_video.c).
"""

from __future__ import annotations

from typing import List, Tuple

from ..ptx.ir import Component, Instruction, Minus, Operand
from .function import Broken, FunctionEncoder, Unsupported
from .lower import rule

_OPERATIONS = ("add", "sub", "absdiff", "min", "max", "avrg", "shl", "shr", "set", "mad")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_SECOND = {"add": 1, "min": 2, "max": 3}
_PARTS = ("", "b0", "b1", "b2", "b3", "h0", "h1")
_SCALES = {"shr7": 7, "shr15": 15}
_SCALAR = ("add", "sub", "absdiff", "min", "max", "shl", "shr", "set", "mad")
_LANES = ("add", "sub", "absdiff", "min", "max", "avrg", "set")


def _part(operand: Operand) -> Tuple[Operand, str]:
    """``%r1.b0`` is a register and its part."""
    if isinstance(operand, Component):
        return operand.item, operand.component
    return operand, ""


def _signs(operands: Tuple[Operand, ...]) -> Tuple[List[Operand], List[bool]]:
    """Take the minus signs off; there are four flags, one an operand."""
    found = [isinstance(item, Minus) for item in operands]
    plain = [item.item if isinstance(item, Minus) else item for item in operands]
    return plain, [*found, False, False, False, False][: max(4, len(found))]


def _control(operation: str, words: List[str]) -> int:
    """Build what both kinds have in common; ``words`` are taken out as they are understood."""
    types = [words.pop(0) for _ in range(2 if operation == "set" else 3)]
    if any(kind not in ("u32", "s32") for kind in types):
        raise Unsupported("a video instruction of other types")
    kinds = ["u32", *types] if operation == "set" else types
    x = _OPERATIONS.index(operation)
    for bit, kind in zip((4, 5, 6), kinds):
        x |= (kind == "s32") << bit
    if operation == "set":
        x |= _COMPARISONS.index(words.pop(0)) << 11
    if words[:1] == ["sat"]:
        x |= 1 << 7
        del words[0]
    if operation in ("shl", "shr"):
        x |= (words.pop(0) == "clamp") << 8
    if words and words[0] in _SECOND:
        x |= _SECOND[words.pop(0)] << 9
    return x


@rule(*(f"v{name}" for name in _SCALAR))
def _scalar(encoder: FunctionEncoder, instruction: Instruction) -> None:
    operation, words = instruction.opcode[1:], list(instruction.modifiers)
    plus_one = operation == "mad" and "po" in words
    if plus_one:
        words.remove("po")
    x = _control(operation, words) | plus_one << 29
    if operation == "mad" and words and words[0] in _SCALES:
        x |= _SCALES[words.pop(0)] << 25
    operands, signs = _signs(instruction.operands)
    if any(signs) and (operation != "mad" or (plus_one and signs != [False] * 4)):
        raise Unsupported("a negated source")
    x |= (signs[1] != signs[2]) << 30 | signs[3] << 31
    (to, to_part), (a, a_part), (b, b_part), *rest = map(_part, operands)
    if words or any(part not in _PARTS for part in (to_part, a_part, b_part)):
        raise Unsupported("an unknown form of a video instruction")
    if (to_part or x >> 9 & 3 or operation == "mad") and len(rest) != 1:
        raise Broken("a video instruction without its third source")
    for bit, part in ((22, to_part), (16, a_part), (19, b_part)):
        x |= _PARTS.index(part) << bit
    third = encoder.source(rest[0][0], 4) if rest else encoder.constant(0, 4)
    first, other = encoder.source(a, 4), encoder.source(b, 4)
    encoder.emit("video", encoder.destination(to, 4), first, other, third, x=x)


def _digits(part: str, letter: str, default: str, count: int) -> List[int]:
    """Read a selector such as ``b7610``: the numbers it names, the lowest lane's first."""
    text = part or default
    found = [int(digit) for digit in reversed(text[1:]) if digit.isdigit()]
    if text[:1] != letter or len(found) != len(text) - 1 or not 1 <= len(found) <= count:
        raise Unsupported(f"a selector '{part}'")
    return found


def _selected(encoder: FunctionEncoder, operands: Tuple[int, int], chosen: List[int]) -> int:
    """Gather bytes (four numbers of 0-7) or halves (two of 0-3) of both sources."""
    if len(chosen) == 2:
        chosen = [2 * half + k for half in chosen for k in (0, 1)]
    if chosen == [0, 1, 2, 3]:
        return operands[0]
    if chosen == [4, 5, 6, 7]:
        return operands[1]
    made = encoder.temporary(4)
    control = sum(byte << 4 * k for k, byte in enumerate(chosen))
    encoder.emit("prmt", made, *operands, encoder.constant(control, 4))
    return made


@rule(*(f"v{name}{count}" for name in _LANES for count in (2, 4)))
def _lanes(encoder: FunctionEncoder, instruction: Instruction) -> None:
    operation, count = instruction.opcode[1:-1], int(instruction.opcode[-1])
    words = list(instruction.modifiers)
    x = _control(operation, words) | (count == 4) << 20
    (to, mask), (a, a_part), (b, b_part), (c, c_part) = map(_part, instruction.operands)
    if words or c_part or x >> 9 & 2:
        raise Unsupported("an unknown form of a video instruction")
    letter, low, high = ("b", "b3210", "b7654") if count == 4 else ("h", "h10", "h32")
    chosen = [
        _digits(part, letter, default, count) for part, default in ((a_part, low), (b_part, high))
    ]
    lanes = set(_digits(mask, letter, low, count))
    largest = 2 * count - 1
    if any(len(numbers) != count or max(numbers) > largest for numbers in chosen):
        raise Unsupported("a selector of another size")
    if max(lanes) >= count:
        raise Unsupported(f"a mask '{mask}'")
    x |= sum(1 << lane for lane in lanes) << 16
    sources = encoder.source(a, 4), encoder.source(b, 4)
    first, other = (_selected(encoder, sources, numbers) for numbers in chosen)
    third = encoder.source(c, 4)
    encoder.emit("video_lanes", encoder.destination(to, 4), first, other, third, x=x)
