# SPDX-License-Identifier: Apache-2.0
"""The words of PTX: comments, literals, constant expressions and a token reader.

Function bodies do not come through the token reader but for their declarations: the statement
expression of body.py reads a whole instruction at once, which is what makes parsing quick.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple, Union

from .ir import Imm, PtxError
from .regex import ASCII, DOTALL, regex

if TYPE_CHECKING:
    from re import Match

IDENTIFIER = r"[A-Za-z][\w$]*|[_$%][\w$]+"
FLOAT = r"0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}"
DECIMAL_FLOAT = r"(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+"
INTEGER = r"0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?"
# Each matches where it begins, with an end or without: else a text of beginnings would be read to
# its end for each of them.
_COMMENT = regex(r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/\*(?:.*?\*/|.*)', DOTALL)
_TOKEN = regex(
    rf"\s*(?:({FLOAT}|{DECIMAL_FLOAT}|{INTEGER})"
    rf"|(\.[a-z_]\w*|{IDENTIFIER}|_)"
    r'|("(?:[^"\\\n]|\\.)*")'
    r"|(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!?:()\[\]{}<>,;=@.]))",
    ASCII,
)
_ESCAPE = regex(r"x([0-9a-fA-F]{1,2})|([0-7]{1,3})")
_SPACE = regex(r"\s*", ASCII)
_MAX_DEPTH = 32
_MAX_DIGITS = 40
_U64 = (1 << 64) - 1

NUMBER, WORD, STRING, PUNCTUATION, END = 1, 2, 3, 4, 0


def strip_comments(text: str) -> str:
    """Blank the comments, keeping every newline where it was."""
    if "//" not in text and "/*" not in text:
        return text

    def blank(match: Match[str]) -> str:
        comment = match.group()
        if comment[0] == '"' or (comment[1] == "*" and comment.find("*/", 2) < 0):
            return comment
        return " " + "\n" * comment.count("\n")

    return _COMMENT.sub(blank, text)


def parse_literal(text: str) -> Imm:
    """Read one unsigned literal in any of PTX's spellings."""
    head = text[:2].lower()
    if head == "0f" and len(text) == 10:
        return Imm(int(text[2:], 16), "f32")
    if head == "0d" and len(text) == 18:
        return Imm(int(text[2:], 16), "f64")
    if len(text) > _MAX_DIGITS and head != "0b":
        raise PtxError(f"literal of {len(text)} characters")
    if head[1:] not in ("x", "b") and ("." in text or "e" in text or "E" in text):
        return Imm(float_bits(float(text)), "f64")
    return Imm(_integer(text, head))


def _integer(text: str, head: str) -> int:
    digits = text.rstrip("U")
    try:
        if head in ("0x", "0b"):
            value = int(digits[2:], 16 if head == "0x" else 2)
        else:
            value = int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
    except ValueError:
        raise PtxError(f"bad literal '{text[:_MAX_DIGITS]}'") from None
    if value > _U64:
        raise PtxError(f"'{text[:_MAX_DIGITS]}' has more than 64 bits")
    return value


def float_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def bits_float(literal: Imm) -> float:
    """Give a literal as a Python float."""
    if literal.kind == "f32":
        return float(struct.unpack("<f", (literal.value & 0xFFFFFFFF).to_bytes(4, "little"))[0])
    if literal.kind == "f64":
        return float(struct.unpack("<d", (literal.value & _U64).to_bytes(8, "little"))[0])
    return float(literal.value)


def narrow_float(bits: int) -> int:
    """Round the bits of a double to those of a float, overflow to infinity."""
    value = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
    try:
        return int.from_bytes(struct.pack("<f", value), "little")
    except OverflowError:
        return 0xFF800000 if value < 0 else 0x7F800000


def parse_string(token: str) -> bytes:
    """Give the bytes of a quoted string, escapes resolved as in C."""
    simple = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, '"': 34, "'": 39, "a": 7, "b": 8}
    body, out, i = token[1:-1], bytearray(), 0
    while i < len(body):
        char = body[i]
        i += 1
        if char != "\\" or i >= len(body):
            out += char.encode("latin-1", "replace")
            continue
        number = _ESCAPE.match(body, i)
        if number:
            digits, octal = number.groups()
            out.append(int(digits, 16) if digits else int(octal, 8) & 0xFF)
            i = number.end()
        else:
            out.append(simple.get(body[i], ord(body[i]) & 0xFF))
            i += 1
    return bytes(out)


class Tokens:
    """A reader of tokens from ``position`` on; ``kind`` and ``text`` are the token in hand."""

    def __init__(self, source: str, position: int = 0) -> None:
        self.source = source
        self.start = self.end = position
        self.kind, self.text = END, ""
        self.advance()

    def advance(self) -> str:
        """Move to the next token and return the one that was in hand."""
        text = self.text
        match = _TOKEN.match(self.source, self.end)
        if match:
            self.kind = match.lastindex or END
            self.text = match.group(self.kind)
            self.start, self.end = match.start(self.kind), match.end()
            return text
        space = _SPACE.match(self.source, self.end)
        self.start = self.end = space.end() if space else self.end
        self.kind, self.text = END, ""
        if self.start < len(self.source):
            raise PtxError(f"unexpected character {self.source[self.start]!r}")
        return text

    def move(self, position: int) -> None:
        """Go on reading at another place of the text."""
        self.start = self.end = position
        self.advance()

    def accept(self, text: str) -> bool:
        if self.text == text and self.kind in (WORD, PUNCTUATION):
            self.advance()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise PtxError(f"expected '{text}', found {self.shown()}")

    def name(self) -> str:
        if self.kind != WORD or self.text[0] == ".":
            raise PtxError(f"expected a name, found {self.shown()}")
        return self.advance()

    def directive(self) -> Optional[str]:
        """Take a ``.word`` and return it without the dot, or None."""
        if self.kind == WORD and self.text[0] == ".":
            return self.advance()[1:]
        return None

    def shown(self) -> str:
        return f"'{self.text[:40]}'" if self.kind != END else "the end"

    def integer(self) -> int:
        value = expression(self)
        if value.kind != "int":
            raise PtxError("expected an integer constant")
        return value.value


# ---------------------------------------------------------------- constant expressions

_LEVELS: Tuple[Tuple[str, ...], ...] = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", "<=", ">", ">="),
    ("<<", ">>"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
Number = Union[int, float]


def _divide(a: Number, b: Number) -> Number:
    if b == 0:
        raise PtxError("division by zero in a constant expression")
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: Number, b: Number) -> Number:
    quotient = _divide(int(a), int(b))
    return int(a) - int(quotient) * int(b)


def _shift_left(a: Number, b: Number) -> Number:
    return int(a) << int(b) if 0 <= b < 64 else 0


def _shift_right(a: Number, b: Number) -> Number:
    return int(a) >> min(max(int(b), 0), 127)


_BINARY: Dict[str, Callable[[Number, Number], Number]] = {
    "||": lambda a, b: int(bool(a) or bool(b)),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "|": lambda a, b: int(a) | int(b),
    "^": lambda a, b: int(a) ^ int(b),
    "&": lambda a, b: int(a) & int(b),
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "<<": _shift_left,
    ">>": _shift_right,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _remainder,
}


def _wrap(value: Number, unsigned: bool) -> Number:
    """Cut an integer to the 64 bits that constant expressions are made of."""
    if isinstance(value, float):
        return value
    value &= _U64
    return value if unsigned or value < 1 << 63 else value - (1 << 64)


def expression(tokens: Tokens) -> Imm:
    """Evaluate a constant expression of doubles or s64 (u64 once an operand is u64)."""
    try:
        if tokens.kind == NUMBER:
            literal = parse_literal(tokens.advance())
            if tokens.text in (",", "}", "]", ")", ";", ">", ""):
                return literal
            first = _levels(tokens, 0, 0, _typed(literal))
            value, _ = _conditional(tokens, first, 0)
        else:
            value, _ = _ternary(tokens, 0)
    except (OverflowError, ValueError):
        raise PtxError("constant expression overflows") from None
    if isinstance(value, float):
        return Imm(float_bits(value), "f64")
    return Imm(value)


_Typed = Tuple[Number, bool]


def _typed(literal: Imm) -> _Typed:
    if literal.kind != "int":
        return bits_float(literal), False
    return literal.value, literal.value >= 1 << 63


def _ternary(tokens: Tokens, depth: int) -> _Typed:
    if depth > _MAX_DEPTH:
        raise PtxError("constant expression nested too deeply")
    return _conditional(tokens, _levels(tokens, 0, depth, None), depth)


def _conditional(tokens: Tokens, condition: _Typed, depth: int) -> _Typed:
    if not tokens.accept("?"):
        return condition
    yes = _ternary(tokens, depth + 1)
    tokens.expect(":")
    no = _ternary(tokens, depth + 1)
    return yes if condition[0] else no


def _levels(tokens: Tokens, level: int, depth: int, first: Optional[_Typed]) -> _Typed:
    """Read binary operators by precedence; ``first`` is an operand read before."""
    if level == len(_LEVELS):
        return first if first is not None else _unary(tokens, depth)
    value, unsigned = _levels(tokens, level + 1, depth, first)
    while tokens.kind == PUNCTUATION and tokens.text in _LEVELS[level]:
        operator = tokens.advance()
        other, other_unsigned = _levels(tokens, level + 1, depth, None)
        unsigned = unsigned if operator in ("<<", ">>") else unsigned or other_unsigned
        result = _BINARY[operator](_wrap(value, unsigned), _wrap(other, unsigned))
        value = _wrap(result, unsigned)
    return value, unsigned


def _unary(tokens: Tokens, depth: int) -> _Typed:
    if depth > _MAX_DEPTH:
        raise PtxError("constant expression nested too deeply")
    if tokens.kind == NUMBER:
        return _typed(parse_literal(tokens.advance()))
    if tokens.accept("-"):
        value, unsigned = _unary(tokens, depth + 1)
        return -value, unsigned and value != 1 << 63
    if tokens.accept("+"):
        return _unary(tokens, depth + 1)
    if tokens.accept("!"):
        return int(not _unary(tokens, depth + 1)[0]), False
    if tokens.accept("~"):
        value, unsigned = _unary(tokens, depth + 1)
        return _wrap(~int(value), unsigned), unsigned
    if tokens.accept("WARP_SZ"):
        return 32, False
    if tokens.accept("("):
        if tokens.text in (".s64", ".u64"):
            unsigned = tokens.advance() == ".u64"
            tokens.expect(")")
            return _wrap(int(_unary(tokens, depth + 1)[0]), unsigned), unsigned
        inner = _ternary(tokens, depth + 1)
        tokens.expect(")")
        return inner
    raise PtxError(f"expected a constant, found {tokens.shown()}")


def split_list(text: str) -> List[str]:
    """Split at the commas outside of brackets, braces and parentheses."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts
