# SPDX-License-Identifier: Apache-2.0
"""Scopes of names in a function body, and the operands of its instructions."""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple, Union

from . import ir
from .ir import PtxError
from .lexer import END, PUNCTUATION, Tokens, expression, split_list
from .regex import ASCII, regex

_NAME = regex(r"(?:[A-Za-z][\w$]*|[_$%][\w$]+)$", ASCII)
_DOTTED = regex(r"([A-Za-z_$%][\w$]*)\.([xyzwrgba])$", ASCII)
_PART = regex(r"([A-Za-z_$%][\w$]*)\.(b[0-7]{1,4}|h[0-3]{1,2})$", ASCII)
_ADDRESS = regex(r"\[\s*([A-Za-z_$%][\w$]*)\s*(?:([-+])\s*(-?\s*\w+)\s*)?\]$", ASCII)
_SIGNED = regex(r"-\s*(?!WARP_SZ)[A-Za-z_$%][\w$]*(\.\w+)?$", ASCII)
_SUFFIX = regex(r"\]\s*\.\w+\s*$", ASCII)
_MAX_NESTING = 8
# Not a regular expression: compiling one this large would be felt in each start of the helper.
_COORDINATES = (
    "tid", "ntid", "ctaid", "nctaid",
    "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid",
)  # fmt: skip
_SPECIALS = frozenset((
    "laneid", "warpid", "nwarpid", "smid", "nsmid", "gridid", "is_explicit_cluster",
    "cluster_ctarank", "cluster_nctarank", "lanemask_eq", "lanemask_le", "lanemask_lt",
    "lanemask_ge", "lanemask_gt", "clock", "clock_hi", "clock64", "globaltimer",
    "globaltimer_lo", "globaltimer_hi", "total_smem_size", "aggr_smem_size",
    "dynamic_smem_size", "current_graph_exec",
    *(f"reserved_smem_offset_{end}" for end in ("begin", "end", "cap", "0", "1")),
)).union(
    _COORDINATES, (f"{name}.{lane}" for name in _COORDINATES for lane in "xyzw"),
    (f"envreg{n}" for n in range(32)), (f"pm{n}{size}" for n in range(8) for size in ("", "_64")),
)  # fmt: skip
_LANES = {"x": 0, "y": 1, "z": 2, "w": 3, "r": 0, "g": 1, "b": 2, "a": 3}


def is_special(name: str) -> bool:
    """Say whether ``%name`` is a special register."""
    return name[1:] in _SPECIALS


class OperandCache(dict[str, ir.Operand]):
    """Operand text -> operand, filled on demand: most operands occur many times."""

    def __init__(self, parse: Callable[[str], ir.Operand]) -> None:
        super().__init__()
        self.parse = parse

    def __missing__(self, text: str) -> ir.Operand:
        try:
            operand = self[text] = self.parse(text)
        except PtxError as error:
            if "\n" in text.strip():
                raise PtxError(f"{error} (is a ';' missing there?)", error.status) from None
            raise
        return operand


class Scope:
    """The names declared between two braces."""

    def __init__(self, names: Names, parent: Optional[Scope], number: int) -> None:
        self.parent = parent
        self.suffix = f"#{number}" if number else ""
        self.registers: Dict[str, str] = {}  # name -> type, "v4.f32" for vectors
        self.ranges: Dict[str, Tuple[int, str]] = {}  # prefix -> (count, type)
        self.digits_in_prefix = False
        self.symbols: Dict[str, str] = {}  # name -> unique name
        self.labels: Dict[str, str] = {}
        self.cache: OperandCache = parent.cache if parent else OperandCache(names.operand)

    def ranged(self, prefix: str, name: str) -> Optional[str]:
        """Give the type of a register that a range declares; ``prefix`` is without its digits."""
        size = len(prefix)
        while size < len(name):
            count, kind = self.ranges.get(name[:size], (0, ""))
            digits = name[size : size + 12]
            if count and (digits[0] != "0" or digits == "0") and int(digits) < count:
                return kind
            if not self.digits_in_prefix:
                return None
            size += 1
        return None

    def own_cache(self, names: Names) -> None:
        """Stop sharing the parent's operands: a name means something else from here on."""
        if self.parent is None or self.cache is self.parent.cache:
            self.cache = OperandCache(names.operand)
        else:
            self.cache.clear()


class Names:
    """What the names of one function mean, from the innermost scope out."""

    def __init__(
        self,
        function: ir.Function,
        known: Callable[[str], bool],
        seen: Dict[str, Tuple[str, int, ir.Reg]],
        line: Callable[[], int],
    ) -> None:
        self.function = function
        self.seen = seen  # what names of ranges consist of, for all functions of the module
        self.known = known  # is it a name of the module?
        self.line = line  # that is being read
        self.unknown: Dict[str, int] = {}  # name -> line of its first use
        self.scope = Scope(self, None, 0)
        self.scopes = 0
        self.nesting = 0

    def enter(self) -> None:
        self.scopes += 1
        self.scope = Scope(self, self.scope, self.scopes)

    def leave(self) -> Scope:
        """Close the innermost scope and return it."""
        left = self.scope
        if left.parent is None:
            raise PtxError("unexpected '}'")
        self.scope = left.parent
        return left

    # -------------------------------------------------------- declarations

    def declare_register(self, name: str, kind: str, count: Optional[int]) -> None:
        scope = self.scope
        table = scope.registers if count is None else scope.ranges
        if name in table or name in scope.symbols:
            raise PtxError(f"'{name}' is declared twice")
        if count is None:
            scope.registers[name] = kind
        else:
            scope.ranges[name] = (count, kind)
            scope.digits_in_prefix |= name[-1].isdigit()
        if scope.cache or scope.parent:
            scope.own_cache(self)

    def declare_symbol(self, name: str) -> str:
        """Declare a variable of the function; returns its unique name."""
        scope = self.scope
        if name in scope.symbols or name in scope.registers:
            raise PtxError(f"'{name}' is declared twice")
        unique = name + (scope.suffix or ("#0" if self.known(name) else ""))
        scope.symbols[name] = unique
        if scope.cache or scope.parent:
            scope.own_cache(self)
        return unique

    def declare_label(self, name: str) -> str:
        scope = self.scope
        if name in scope.labels:
            raise PtxError(f"label '{name}' is defined twice")
        unique = scope.labels[name] = name + scope.suffix
        return unique

    # -------------------------------------------------------- look-up

    def _register(self, name: str) -> Optional[Tuple[str, str]]:
        """Find a register: its unique name and type."""
        prefix = name.rstrip("0123456789")
        scope: Optional[Scope] = self.scope
        while scope:
            kind = scope.registers.get(name)
            if kind is None and scope.ranges:
                kind = scope.ranged(prefix, name)
            if kind is not None:
                return name + scope.suffix, kind
            if name in scope.symbols:
                return None
            scope = scope.parent
        return None

    def symbol(self, name: str) -> str:
        scope: Optional[Scope] = self.scope
        while scope:
            if name in scope.symbols:
                return scope.symbols[name]
            scope = scope.parent
        if not self.known(name):
            self.unknown.setdefault(name, self.line())
        return name

    def named(self, name: str) -> Union[ir.Reg, ir.Special, ir.Sym, ir.Vector]:
        """Give the operand that a plain name is."""
        found = self._register(name)
        if found:
            unique, kind = found
            if kind[0] == "v" and kind[2] == ".":
                return ir.Vector(tuple(self._lane(unique, kind, i) for i in range(int(kind[1]))))
            self.function.registers[unique] = kind
            return ir.Reg(unique)
        if name[0] == "%":
            if is_special(name):
                return ir.Special(name[1:])
            raise PtxError(f"unknown register '{name}'")
        return ir.Sym(self.symbol(name))

    def _lane(self, unique: str, kind: str, index: int) -> ir.Reg:
        if index >= int(kind[1]):
            raise PtxError(f"'{unique}' has {kind[1]} components")
        name = f"{unique}.{'xyzw'[index] if index < 4 else index}"
        self.function.registers[name] = kind[3:]
        return ir.Reg(name)

    def register(self, name: str) -> ir.Reg:
        operand = self.scope.cache[name]
        if not isinstance(operand, ir.Reg):
            raise PtxError(f"'{name}' is not a register")
        return operand

    # -------------------------------------------------------- operands

    def operand(self, text: str) -> ir.Operand:
        """Parse one operand; the caches call this for each text they have not met."""
        if text[:1] == "%" and self.scope.parent is None:
            quick = self._quick(text)
            if quick:
                return quick
        text = text.strip()
        if text.isdigit() and text[0] != "0" and len(text) < 20:
            return ir.Imm(int(text))
        if not text:
            raise PtxError("an operand is missing")
        if _NAME.match(text):
            return ir.Imm(32) if text == "WARP_SZ" else self.named(text)
        first = text[0]
        if first == "[":
            return self._bracket(text)
        if first in "{(":
            if text[-1] != ("}" if first == "{" else ")"):
                return self._pair(text) if first == "{" and "|" in text else self._constant(text)
            if first == "{":
                return ir.Vector(self._list(text[1:-1]))
            return self._constant(text)
        if first == "_" and text == "_":
            return ir.Sink()
        if first == "!" and not text[1:].lstrip()[:1].isdigit():
            return ir.Negated(self.register(text[1:].strip()))
        if first == "-" and text[1:].isdigit() and text[1] != "0" and len(text) < 20:
            return ir.Imm(-int(text[1:]))
        if first == "-" and _SIGNED.match(text):
            return ir.Minus(self.operand(text[1:]))
        if "|" in text and first not in "0123456789-~":
            return self._pair(text)
        return self._dotted(text)

    def _quick(self, text: str) -> Optional[ir.Reg]:
        """Find a register of a range of the outermost scope, which nearly all operands are."""
        known = self.seen.get(text)
        if known is None:
            prefix = text.rstrip("0123456789")
            digits = text[len(prefix) :]
            if not digits or (digits[0] == "0" and digits != "0") or len(digits) > 9:
                return None
            known = self.seen[text] = (prefix, int(digits), ir.Reg(text))
        scope = self.scope
        count, kind = scope.ranges.get(known[0], (0, ""))
        if known[1] >= count or text in scope.registers:
            return None
        self.function.registers[text] = kind
        return known[2]

    def _pair(self, text: str) -> ir.Operand:
        first, _, second = text.partition("|")
        if "|" in second:
            raise PtxError(f"bad operand '{text[:60]}'")
        return ir.Pair(self.operand(first), self.operand(second))

    def _dotted(self, text: str) -> ir.Operand:
        dotted = _DOTTED.match(text)
        if not dotted:
            part = _PART.match(text)
            if part:  # of the operands of a video instruction
                return ir.Component(self.register(part[1]), part[2])
            return self._constant(text)
        name, lane = dotted.groups()
        found = self._register(name)
        if found:
            if found[1][0] != "v" or found[1][2] != ".":
                raise PtxError(f"'{name}' is not a vector")
            return self._lane(found[0], found[1], _LANES[lane])
        canonical = f"{name}.{'xyzw'[_LANES[lane]]}"
        if is_special(canonical):
            return ir.Special(canonical[1:])
        raise PtxError(f"unknown register '{text}'")

    def _list(self, text: str) -> Tuple[ir.Operand, ...]:
        if not text.strip():
            return ()
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise PtxError("operands nested too deeply")
        cache = self.scope.cache
        items = tuple([cache[part] for part in split_list(text)])
        self.nesting -= 1
        return items

    def group(self, text: str) -> ir.Group:
        """Parse the ``(a, b)`` of a call."""
        text = text.strip()
        if text[:1] != "(" or text[-1:] != ")":
            return ir.Group((self.scope.cache[text],))
        return ir.Group(self._list(text[1:-1]))

    def _constant(self, text: str) -> ir.Operand:
        """Parse a constant expression, or ``symbol+offset`` / ``symbol[index]``."""
        tokens = Tokens(text)
        if tokens.kind == 2 and tokens.text not in ("WARP_SZ", "_"):
            base = self.named(tokens.name())
            if not isinstance(base, ir.Sym):
                raise PtxError(f"bad operand '{text[:60]}'")
            return ir.Sym(base.name, self._offset(tokens, base))
        value = expression(tokens)
        if tokens.kind != END:
            raise PtxError(f"bad operand '{text[:60]}'")
        return value

    def _offset(self, tokens: Tokens, base: Optional[ir.Operand]) -> int:
        """Read ``+expression`` or ``-expression`` or nothing, up to the end."""
        offset = 0
        if tokens.kind == PUNCTUATION and tokens.text in ("+", "-"):
            if tokens.text == "+":
                tokens.advance()
            offset = tokens.integer()
        if tokens.kind != END:
            raise PtxError(f"bad address near {tokens.shown()}")
        return offset

    def _bracket(self, text: str) -> ir.Operand:
        plain = _ADDRESS.match(text)
        if plain:
            base = self.named(plain.group(1)) if plain.group(1) != "WARP_SZ" else None
            if base is not None and not plain.group(2):
                return self._address(base, 0)
            sign, digits = plain.groups()[1:]
            if digits[0] == "-":
                sign, digits = "+" if sign == "-" else "-", digits[1:]
            if base is not None and digits.isdigit() and (digits[0] != "0" or digits == "0"):
                value = int(digits[:20])
                return self._address(base, value if sign == "+" else -value)
        suffix = _SUFFIX.search(text)
        if suffix:
            text = text[: suffix.start() + 1]
        if text[-1] != "]":
            raise PtxError(f"bad address '{text[:60]}'")
        inner = text[1:-1]
        parts = split_list(inner)
        if len(parts) > 1:
            return ir.Group(self._list(inner))
        tokens = Tokens(inner)
        if tokens.kind == 2 and tokens.text != "WARP_SZ":
            base = self.named(tokens.name())
            return self._address(base, self._offset(tokens, base))
        offset_only = tokens.integer()
        if tokens.kind != END:
            raise PtxError(f"bad address '{text[:60]}'")
        return ir.Address(None, offset_only)

    def _address(self, base: ir.Operand, offset: int) -> ir.Address:
        if not isinstance(base, (ir.Reg, ir.Sym)):
            raise PtxError("an address starts with a register or a symbol")
        return ir.Address(base, offset)
