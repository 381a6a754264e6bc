# SPDX-License-Identifier: Apache-2.0
"""mma, wmma, ldmatrix, stmatrix, movmatrix.

A record of mma has its word in x and the registers of d, a, b, c (and the metadata) in the
records after it. wmma's fragments lie as mma's do, in blocks of 8 by 8 and of four words a row,
so all of wmma.mma is mma's handler.
"""

from __future__ import annotations

from typing import List, Tuple

from ..ptx.ir import Imm, Instruction, Operand, Vector
from . import ops_matrix as table
from .function import Broken, FunctionEncoder, Unsupported, optional
from .lower import NO_FORM, WORDS, rule
from .lower_memory import space_of

_SPACES = ("global", "shared", "shared::cta")
WORDS.update(("load", "store", *table.PARTS), ("sp", "sp::ordered_metadata", "row", "col"))
WORDS.update(("satfinite", "popc"), table.ELEMENTS, table.ACCUMULATORS, table.ROUNDINGS)
WORDS.update(shape for row in table.SHAPES for shape in row.shapes)


def _taken(words: List[str], wanted: Tuple[str, ...]) -> List[str]:
    """Remove those words that are among the wanted ones, and give them."""
    found = [word for word in words if word in wanted]
    words[:] = [word for word in words if word not in wanted]
    return found


def _one(words: List[str], wanted: Tuple[str, ...], missing: str) -> str:
    found = _taken(words, wanted)
    if len(found) > 1:
        raise Unsupported(f"{found[0]} and {found[1]} together")
    return found[0] if found else missing


def _shape(words: List[str]) -> str:
    found = [w for w in words if w[0] == "m" and w[1:2].isdigit()]
    if not found:
        raise Unsupported(NO_FORM)
    words.remove(found[0])
    return found[0]


def _items(operand: Operand) -> Tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _options(row: table.Row, words: List[str]) -> int:
    """Read the flags that the row allows; none may be left."""
    made = 0
    if "satfinite" in row.options and _taken(words, ("satfinite",)):
        made |= table.SATFINITE
    if "rounding" in row.options:
        made |= table.ROUNDINGS.index(_one(words, table.ROUNDINGS, "rn")) << table.ROUNDING_SHIFT
    if "popc" in row.options:
        if _one(words, ("and", "xor"), "xor") == "and":
            made |= table.AND
        _taken(words, ("popc",))
    if words:
        raise Unsupported(f"'.{words[0]}'")
    return made


def _types(verb: str, words: List[str]) -> Tuple[str, str, str, str]:
    """Take the types of d, a, b, c; wmma.mma on f16 names only d and c."""
    known = set(table.ELEMENTS) | set(table.ACCUMULATORS)
    found = _taken(words, tuple(known))
    if verb == "wmma" and len(found) == 2:
        found[1:1] = ["f16", "f16"]
    if len(found) != 4:
        raise Unsupported(NO_FORM)
    d, a, b, c = found
    return d, a, b, c


def _multiply(encoder: FunctionEncoder, verb: str, words: List[str], rest: List[Operand]) -> None:
    """Emit the record of one multiplication and those of its registers."""
    _taken(words, ("sync", "aligned"))
    shape, types = _shape(words), _types(verb, words)
    layouts = _taken(words, ("row", "col"))
    row = table.FORM_ROWS.get((verb, shape, *types))
    if row is None:
        raise Unsupported(NO_FORM)
    word = table.word(shape, types) | _options(row, words)
    if layouts != ["row", "col"] and ("layouts" not in row.options or len(layouts) != 2):
        raise Unsupported("a layout that this shape does not have")
    quarters = (verb, shape, types[1]) == ("mma", "m8n8k4", "f16")
    if quarters:
        word |= (layouts[0] == "col") * table.COLUMN_A | (layouts[1] == "col") * table.COLUMN_B
    if verb == "wmma" and types[1] == "f16":
        word |= table.LEGACY
    width = 8 if types[1] == "f64" else 4
    operands = [encoder.destination(item, width) for item in _items(rest[0])]
    for one in rest[1:4]:
        operands += [encoder.source(item, width) for item in _items(one)]
    if verb == "mma.sp":
        metadata, selector = rest[4:]
        if not isinstance(selector, Imm):
            raise Unsupported("a selector that is not a constant")
        word |= table.SPARSE | (selector.value & 3) << table.SELECTOR_SHIFT
        operands.append(encoder.source(metadata, 4))
    elif len(rest) != 4:
        raise Broken("another number of operands")
    extra = (len(operands) + 3) // 4
    encoder.emit("mma_quarters" if quarters else "mma", x=word, flags=extra << 8)
    encoder.extend(operands)


@rule("mma")
def _mma(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = list(instruction.modifiers)
    sparse = _one(words, ("sp", "sp::ordered_metadata"), "")
    _multiply(encoder, "mma.sp" if sparse else "mma", words, list(instruction.operands))


@rule("wmma")
def _wmma(encoder: FunctionEncoder, instruction: Instruction) -> None:
    words = list(instruction.modifiers)
    verb = words.pop(0)
    if verb == "mma":
        _multiply(encoder, "wmma", words, list(instruction.operands))
    elif verb in ("load", "store"):
        _fragment(encoder, verb, words, list(instruction.operands))
    else:
        raise Unsupported(f"wmma.{verb}")


def _fragment_row(shape: str, part: str, kind: str) -> Tuple[table.Row, str, str]:
    """Find a row whose matrix has this type: the row, a factor's and an accumulator's type."""
    for row in table.SHAPES:
        if row.verb == "wmma" and shape in row.shapes:
            for factor, _ in row.factors:
                for d, c in row.sums:
                    if kind == {"a": factor, "b": factor, "c": c, "d": d}[part]:
                        return row, factor, kind if part in "cd" else c
    raise Unsupported(f"a fragment of {kind}")


def _fragment(encoder: FunctionEncoder, verb: str, words: List[str], rest: List[Operand]) -> None:
    space = space_of(encoder, tuple(_taken(words, _SPACES)))
    _taken(words, ("sync", "aligned"))
    part = words.pop(0)
    if part not in ("abc" if verb == "load" else "d"):
        raise Unsupported(f"wmma.{verb}.{part}")
    shape, layout = _shape(words), _one(words, ("row", "col"), "")
    (kind,) = words
    row, factor, accumulator = _fragment_row(shape, part, kind)
    bits = table.ELEMENT_BITS[factor]
    if not layout or (bits < 8 and {"a": layout == "col", "b": layout == "row"}.get(part)):
        raise Unsupported("a layout that this shape does not have")
    word = table.word(shape, (accumulator, factor, factor, accumulator))
    word |= table.PARTS.index(part) << table.PART_SHIFT
    if layout == "col":
        word |= table.COLUMN_A
    if factor == "f16":
        word |= table.LEGACY
    address, fragment = rest[:2] if verb == "store" else (rest[1], rest[0])
    width = 8 if factor == "f64" else 4
    place = encoder.destination if verb == "load" else encoder.source
    operands = [place(item, width) for item in _items(fragment)]
    stride = optional(tuple(rest), 2)
    b = (
        _default_stride(encoder, shape, part, layout)
        if stride is None
        else _stride(encoder, stride)
    )
    a, x, flags = encoder.memory(address, space)
    extra = (len(operands) + 3) // 4
    encoder.emit(f"{verb}_fragment", 0, a, b, word, x=x, flags=flags | extra << 8)
    encoder.extend(operands)


def _stride(encoder: FunctionEncoder, operand: Operand) -> int:
    width = encoder.width(operand) or 4
    return encoder.resize(encoder.source(operand, width), width, 4)


def _default_stride(encoder: FunctionEncoder, shape: str, part: str, layout: str) -> int:
    """Give the length of a line of the matrix, as if nothing lay between the lines."""
    m, n, k = table.numbers_of(shape)
    rows, columns = {"a": (m, k), "b": (k, n)}.get(part, (m, n))
    return encoder.constant(columns if layout == "row" else rows, 4)


@rule("ldmatrix", "stmatrix")
def _matrices(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """8 by 8 matrices of b16; the other shapes are features of single architectures."""
    words = list(instruction.modifiers)
    space = space_of(encoder, tuple(_taken(words, _SPACES)))
    _taken(words, ("sync", "aligned"))
    trans = "_trans" if _taken(words, ("trans",)) else ""
    count = {"x1": 1, "x2": 2, "x4": 4}[_one(words, ("x1", "x2", "x4"), "")]
    if words != ["m8n8", "b16"]:
        raise Unsupported("a matrix of another shape")
    if instruction.opcode == "ldmatrix":
        registers, address = instruction.operands
        operands = [encoder.destination(item, 4) for item in _items(registers)]
    else:
        address, registers = instruction.operands
        operands = [encoder.source(item, 4) for item in _items(registers)]
    if len(operands) != count:
        raise Broken("another number of registers")
    a, x, flags = encoder.memory(address, space)
    encoder.emit(f"{instruction.opcode}{trans}", 0, a, c=count, x=x, flags=flags | 1 << 8)
    encoder.extend(operands)


@rule("movmatrix")
def _movmatrix(encoder: FunctionEncoder, instruction: Instruction) -> None:
    if instruction.modifiers != ("sync", "aligned", "m8n8", "trans", "b16"):
        raise Unsupported("another form of movmatrix")
    to, source = instruction.operands
    encoder.emit("movmatrix", encoder.destination(to, 4), encoder.source(source, 4))
