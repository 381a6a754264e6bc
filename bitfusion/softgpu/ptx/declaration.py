# SPDX-License-Identifier: Apache-2.0
"""Declarations: variables with their initialisers, parameters, prototypes."""

from __future__ import annotations

import struct
from typing import Callable, Dict, List, Optional, Tuple

from . import ir
from .ir import PtxError
from .lexer import (
    NUMBER,
    STRING,
    WORD,
    Tokens,
    bits_float,
    expression,
    float_bits,
    narrow_float,
    parse_string,
)
from .regex import ASCII, regex

_NUMBERS = regex(r"\s*([\d\s,]*)\}", ASCII)
_BRACE = regex(r"\s*\{", ASCII)
_OCTAL = regex(r"\b0\d", ASCII)
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FLOATS = ("f16", "bf16", "f32", "f64")
_LANES = {"v2": 2, "v4": 4, "v8": 8}
_LINKAGES = ("visible", "extern", "weak", "common")
MAX_VARIABLE = 1 << 44
MAX_INITIALISER = 1 << 28  # bytes of all of a module
MAX_PARAMETERS = 4096
_MAX_DIMENSIONS = 16
# Types of variables that the driver's API once bound, and what their initialisers may name.
_REFERENCES = ("texref", "samplerref", "surfref")
_SAMPLER = ("addr_mode_0", "addr_mode_1", "addr_mode_2", "filter_mode")
_IMAGE = ("width", "height", "depth", "channel_data_type", "channel_order", "array_size")
_FIELDS = {
    "texref": (*_SAMPLER, *_IMAGE, "normalized_coords", "num_mipmap_levels", "num_samples"),
    "samplerref": (*_SAMPLER, "force_unnormalized_coords"),
    "surfref": (*_IMAGE, "memory_layout"),
}
# Directives of kernels, and how many numbers they take.
_BOUNDS = {"maxntid": 3, "reqntid": 3, "maxnreg": 1, "minnctapersm": 1}

Resolve = Callable[[str], str]


class _Shape:
    """What the words before the names of a declaration say."""

    def __init__(self) -> None:
        self.type = ""
        self.lanes = 1
        self.align = 0
        self.attributes: List[str] = []

    @property
    def element_bytes(self) -> int:
        return ir.TYPE_BYTES[self.type]

    def natural_align(self) -> int:
        return self.align or self.element_bytes * self.lanes


class Declarations:
    """Reads declarations of one module."""

    def __init__(self, module: ir.Module) -> None:
        self.module = module
        self.seen: Dict[str, Tuple[str, int, ir.Reg]] = {}
        self.initialised = 0  # bytes
        self.opcodes: Dict[str, Tuple[str, Tuple[str, ...]]] = {}  # text -> opcode, modifiers

    def known(self, name: str) -> bool:
        module = self.module
        return name in module.variables or name in module.functions or name in module.aliases

    # -------------------------------------------------------- variables

    def variables(
        self, space: str, tokens: Tokens, linkage: str, resolve: Resolve
    ) -> List[ir.Variable]:
        """Read the rest of a variable declaration, up to its semicolon."""
        if space == "const" and tokens.accept("["):
            tokens.integer()
            tokens.expect("]")
        shape = self._shape(tokens)
        if shape.type in _REFERENCES and space != "global":
            raise PtxError(f"a .{shape.type} is a .global variable")
        found = []
        while True:
            name = tokens.name()
            dimensions = self._dimensions(tokens)
            init, relocations = b"", []  # type: Tuple[bytes, List[ir.Relocation]]
            if tokens.text == "=":
                reader = _Initialiser(shape, dimensions, resolve)
                init, relocations = reader.read(tokens)
                dimensions = reader.dimensions
                self.initialised += len(init)  # `{{1}, {1}}` may be half a GiB
                if self.initialised > MAX_INITIALISER:
                    raise PtxError(f"more than {MAX_INITIALISER >> 20} MiB of initialisers")
            size = shape.element_bytes * shape.lanes
            for dimension in dimensions:
                size *= dimension
            if size > MAX_VARIABLE or len(init) > size:
                raise PtxError(f"'{name}' is too large or has too many initialisers")
            attributes = tuple(shape.attributes)
            found.append(
                ir.Variable(
                    name, space, shape.type, shape.natural_align(), size,
                    linkage, init, tuple(relocations), attributes,
                )
            )  # fmt: skip
            if not tokens.accept(","):
                return found

    def _shape(self, tokens: Tokens) -> _Shape:
        shape, pointer = _Shape(), False
        while True:
            word = tokens.directive()
            if word is None:
                break
            if word in _LANES:
                shape.lanes = _LANES[word]
            elif word == "align":
                align = tokens.integer()
                if align < 1 or align & (align - 1) or align > 1 << 16:
                    raise PtxError(f"bad alignment {align}")
                shape.align = shape.align if pointer else align
            elif word == "attribute":
                self._attribute(tokens, shape)
            elif word == "ptr":
                pointer = True
            elif word in ir.TYPE_BYTES:
                shape.type = word
            elif not pointer:
                raise PtxError(f"unknown type '.{word}'")
        if not shape.type:
            raise PtxError("the declaration has no type")
        return shape

    def _attribute(self, tokens: Tokens, shape: _Shape) -> None:
        depth = 0
        tokens.expect("(")
        while depth >= 0:
            if not tokens.kind:
                raise PtxError("expected ')'")
            if depth == 0 and tokens.kind == WORD:
                shape.attributes.append(tokens.text.lstrip("."))
            depth += {"(": 1, ")": -1}.get(tokens.text, 0)
            tokens.advance()

    def _dimensions(self, tokens: Tokens) -> List[int]:
        dimensions: List[int] = []
        while tokens.accept("["):
            size = 0 if tokens.text == "]" else tokens.integer()
            if size < 0 or (tokens.text == "]" and len(dimensions) >= _MAX_DIMENSIONS):
                raise PtxError("bad array size")
            tokens.expect("]")
            dimensions.append(size)
        return dimensions

    # -------------------------------------------------------- parameters

    def parameters(self, tokens: Tokens) -> List[ir.Variable]:
        """Read a parenthesised parameter list, if there is one."""
        found: List[ir.Variable] = []
        if not tokens.accept("("):
            return found
        while not tokens.accept(")"):
            if found:
                tokens.expect(",")
            if len(found) >= MAX_PARAMETERS:
                raise PtxError("too many parameters")
            space = tokens.directive()
            if space not in ("param", "reg"):
                raise PtxError("a parameter starts with .param or .reg")
            shape = self._shape(tokens)
            name = "_" if tokens.text in (",", ")", "[") else tokens.name()
            if name == "_":
                name = f"_#{len(found)}"
            size = shape.element_bytes * shape.lanes
            for dimension in self._dimensions(tokens):
                size *= dimension
            if size > MAX_VARIABLE:
                raise PtxError(f"'{name}' is too large")
            align, attributes = shape.natural_align(), tuple(shape.attributes)
            found.append(ir.Variable(name, space, shape.type, align, size, attributes=attributes))
        return found

    def prototype(self, tokens: Tokens) -> ir.Function:
        """Read what follows ``.callprototype``."""
        returns = self.parameters(tokens)
        name = tokens.name()
        prototype = ir.Function(name, False, "", returns, self.parameters(tokens))
        self.function_directives(tokens, prototype)
        return prototype

    def function_directives(self, tokens: Tokens, function: ir.Function) -> None:
        """Read ``.maxntid 256, 1, 1`` and its like."""
        while True:
            word = tokens.directive()
            if word is None:
                return
            values: List[int] = []
            if word == "attribute":
                self._attribute(tokens, _Shape())
                continue
            while tokens.kind in (NUMBER, STRING):
                if tokens.kind == STRING:
                    tokens.advance()
                else:
                    values.append(tokens.integer())
                if not tokens.accept(","):
                    break
            if word == "pragma":
                tokens.accept(";")
            elif word in _BOUNDS:
                _check_bounds(word, values)
            function.directives[word] = tuple(values)
            if "maxntid" in function.directives and "reqntid" in function.directives:
                raise PtxError("both .maxntid and .reqntid")

    def linkage(self, tokens: Tokens) -> Tuple[str, Optional[str]]:
        """Read linkage words; returns them and the directive behind them."""
        linkage = ""
        while True:
            word = tokens.directive()
            if word not in _LINKAGES:
                return linkage, word
            linkage = word if linkage in ("", "visible") else linkage


def _check_bounds(word: str, values: List[int]) -> None:
    if not 1 <= len(values) <= _BOUNDS[word]:
        raise PtxError(f".{word} has {len(values)} numbers")
    if not all(0 < value < 1 << 32 for value in values):
        raise PtxError(f".{word} is not a positive number of 32 bits")


class _Initialiser:
    """Turns an initialiser into bytes and relocations."""

    def __init__(self, shape: _Shape, dimensions: List[int], resolve: Resolve) -> None:
        self.shape = shape
        self.resolve = resolve
        self.dimensions = list(dimensions)
        self.levels = self.dimensions + ([shape.lanes] if shape.lanes > 1 else [])
        self.data = bytearray()
        self.relocations: List[ir.Relocation] = []

    def read(self, tokens: Tokens) -> Tuple[bytes, List[ir.Relocation]]:
        if self.shape.type in _REFERENCES:
            tokens.expect("=")
            self._fields(tokens)
            return b"", []
        if not self._read_numbers(tokens):
            tokens.expect("=")
            count = self._item(tokens, 0, 0)
            if self.dimensions and self.dimensions[0] == 0:
                self.dimensions[0] = count
        return bytes(self.data), self.relocations

    def _fields(self, tokens: Tokens) -> None:
        """Pass over ``{ addr_mode_0 = wrap, … }``, of an array ``{ {…}, … }``."""
        tokens.expect("{")
        while not tokens.accept("}"):
            if tokens.text == "{" and self.dimensions:
                self._fields(tokens)
            else:
                name = tokens.name()
                if name not in _FIELDS[self.shape.type]:
                    raise PtxError(f"a .{self.shape.type} has no '{name[:60]}'")
                tokens.expect("=")
                if tokens.kind not in (NUMBER, WORD):
                    raise PtxError(f"expected a value, found {tokens.shown()}")
                tokens.advance()
            if not tokens.accept(",") and tokens.text != "}":
                raise PtxError(f"expected '}}', found {tokens.shown()}")

    def _read_numbers(self, tokens: Tokens) -> bool:
        """Read a flat list of decimal numbers, which is what large tables are."""
        source, start = tokens.source, tokens.end
        size = self.shape.element_bytes
        found = _BRACE.match(source, start)
        numbers = _NUMBERS.match(source, found.end()) if found else None
        if not numbers or len(self.levels) != 1 or self.shape.type in _FLOATS:
            return False
        text = numbers.group(1)
        if size not in _FORMATS or _OCTAL.search(text):
            return False
        try:
            values = list(map(int, text.split(",")))
            self.data += struct.pack(f"<{len(values)}{_FORMATS[size]}", *values)
        except (ValueError, struct.error):
            return False
        if self.dimensions and self.dimensions[0] == 0:
            self.dimensions[0] = len(values)
        tokens.move(numbers.end())
        return True

    def _stride(self, level: int) -> int:
        stride = self.shape.element_bytes
        for dimension in self.levels[level + 1 :]:
            stride *= dimension
        return stride

    def _item(self, tokens: Tokens, level: int, offset: int) -> int:
        """Read one item at ``offset``; returns how many it holds."""
        if tokens.kind == STRING:
            data = parse_string(tokens.advance())
            self._place(offset, data)
            return len(data)
        if not tokens.accept("{"):
            self._scalar(tokens, offset)
            return 1
        if level > len(self.levels):
            raise PtxError("initialiser nested too deeply")
        count = 0
        while not tokens.accept("}"):
            if count:
                tokens.expect(",")
                if tokens.accept("}"):
                    break
            nested = tokens.text == "{"
            stride = self._stride(level) if nested else self.shape.element_bytes
            self._item(tokens, level + 1, offset + count * stride)
            count += 1
        return count

    def _place(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > MAX_INITIALISER:
            raise PtxError("initialiser too large")
        if end > len(self.data):
            self.data += bytes(end - len(self.data))
        self.data[offset:end] = data

    def _scalar(self, tokens: Tokens, offset: int) -> None:
        size = self.shape.element_bytes
        if tokens.kind == WORD and tokens.text != "WARP_SZ":
            self._symbol(tokens, offset, size, 0)
            return
        value = expression(tokens)
        if tokens.accept("("):
            self._masked(tokens, offset, value)
            return
        bits = self._bits(value) & ((1 << (8 * size)) - 1)
        self._place(offset, bits.to_bytes(size, "little"))

    def _masked(self, tokens: Tokens, offset: int, mask: ir.Imm) -> None:
        """Read the rest of ``0xFF00(symbol)``: one byte of an address."""
        shift = (mask.value & -mask.value).bit_length() - 1
        if mask.kind != "int" or mask.value != 0xFF << max(shift, 0) or shift % 8:
            raise PtxError("a mask selects one byte of an address")
        self._symbol(tokens, offset, 1, shift)
        tokens.expect(")")

    def _symbol(self, tokens: Tokens, offset: int, size: int, shift: int) -> None:
        generic = tokens.text == "generic"
        if generic:
            tokens.advance()
            tokens.expect("(")
        symbol, addend = self.resolve(tokens.name()), self._addend(tokens)
        if generic:
            tokens.expect(")")
            addend += self._addend(tokens)
        self._place(offset, bytes(size))
        self.relocations.append(ir.Relocation(offset, size, symbol, addend, generic, shift))

    def _addend(self, tokens: Tokens) -> int:
        if tokens.text not in ("+", "-"):
            return 0
        if tokens.text == "+":
            tokens.advance()
        return tokens.integer()

    def _bits(self, value: ir.Imm) -> int:
        """Give the bits of a literal in the variable's type."""
        kind = self.shape.type
        if kind == "f64":
            return float_bits(bits_float(value)) if value.kind != "f64" else value.value
        if kind == "f32":
            wide = float_bits(bits_float(value))
            return value.value if value.kind == "f32" else narrow_float(wide)
        if kind in ("f16", "bf16") and value.kind != "int":
            return self._half(bits_float(value))
        return value.value

    def _half(self, value: float) -> int:
        if self.shape.type == "bf16":
            bits = narrow_float(float_bits(value))
            return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        try:
            return int.from_bytes(struct.pack("<e", value), "little")
        except OverflowError:
            return 0xFC00 if value < 0 else 0x7C00
