# SPDX-License-Identifier: Apache-2.0
"""PTX as values: what the parser makes, the linker joins and the encoder reads.

Registers, labels and parameter blocks that PTX scopes by braces have been renamed apart (with a
``#``, which no PTX name has): every name in a :class:`Function` is unique in it, and a variable of
a function never has the name of a module's. Nothing here knows the meaning of an instruction.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple, Union

from .record import NamedTuple, dataclass, field

TYPE_BYTES: Dict[str, int] = {
    "pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2,
    "b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4,
    "b64": 8, "u64": 8, "s64": 8, "f64": 8, "b128": 16,
    "texref": 8, "samplerref": 8, "surfref": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Reg:
    """A register by its (unique) name, as in ``%r1``."""

    name: str


@dataclass(frozen=True)
class Special:
    """A special register, as in ``%tid.x`` (name without the percent sign: ``tid.x``)."""

    name: str


@dataclass(frozen=True)
class Imm:
    """A literal: an int (any sign, not yet cut to the type), or a float given by its IEEE bits.

    ``kind`` is ``"int"``, ``"f32"`` (``0f…``), ``"f64"`` (``0d…`` or a decimal float).
    """

    value: int
    kind: str = "int"


@dataclass(frozen=True)
class Sym:
    """The address of a variable, function or parameter, plus a byte offset."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Label:
    """A branch target or a ``.branchtargets`` / ``.callprototype`` name."""

    name: str


@dataclass(frozen=True)
class Address:
    """``[base+offset]``; base is a register, a symbol, or None for an absolute address."""

    base: Optional[Union[Reg, Sym]]
    offset: int = 0


@dataclass(frozen=True)
class Vector:
    """``{a, b, c, d}``."""

    items: Tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    """``p|q``: two destinations of one instruction."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Negated:
    """``!p`` as a source operand."""

    item: Reg


@dataclass(frozen=True)
class Minus:
    """``-r`` as a source operand, of vmad."""

    item: Operand


@dataclass(frozen=True)
class Sink:
    """``_``: a result nobody wants."""


@dataclass(frozen=True)
class Component:
    """``%r.b0``, ``%r.h10``: parts of a register, in video instructions."""

    item: Operand
    component: str


@dataclass(frozen=True)
class Group:
    """A bracketed or parenthesised list: tensor coordinates, call arguments ``(a, b)``."""

    items: Tuple[Operand, ...]


Operand = Union[
    Reg, Special, Imm, Sym, Label, Address, Vector, Pair, Negated, Minus, Sink, Component, Group
]


class Instruction(NamedTuple):
    """One instruction. ``add.rn.f32`` is opcode ``add`` with modifiers ``("rn", "f32")``.

    A call is opcode ``call`` with operands (returns Group, target Sym|Reg, arguments Group,
    prototype Label|absent). A tuple because modules have hundreds of thousands of them.
    """

    opcode: str
    modifiers: Tuple[str, ...]
    operands: Tuple[Operand, ...]
    predicate: Optional[Reg] = None
    predicate_negated: bool = False
    line: int = 0


@dataclass(frozen=True)
class Relocation:
    """``size`` bytes at ``offset`` of an initialiser hold the address of ``symbol``.

    ``addend`` is added to it. ``generic`` says ``generic(symbol)``; for ``0xFF00(symbol)`` and its
    like ``size`` is 1 and ``shift`` the bits to shift the address right by (8 here).
    """

    offset: int
    size: int
    symbol: str
    addend: int = 0
    generic: bool = False
    shift: int = 0


@dataclass
class Variable:
    """A variable. ``size`` is 0 for ``.extern .shared x[]``.

    Space ``reg`` occurs only for parameters of old-style functions: a register of that name.
    """

    name: str
    space: str  # "global", "const", "shared", "local", "param", "reg"
    type: str
    align: int
    size: int
    linkage: str = ""  # "", "visible", "extern", "weak", "common"
    init: bytes = b""  # shorter than size: zero-filled
    relocations: Tuple[Relocation, ...] = ()
    attributes: Tuple[str, ...] = ()  # "managed", "unified"…


@dataclass
class Function:
    """A ``.entry`` or ``.func``; a prototype has ``body`` None."""

    name: str
    entry: bool
    linkage: str
    returns: List[Variable]
    params: List[Variable]
    body: Optional[List[Instruction]] = None
    registers: Dict[str, str] = field(default_factory=dict)  # name -> type; only those in use
    variables: List[Variable] = field(default_factory=list)  # of the body
    labels: Dict[str, int] = field(default_factory=dict)  # label -> index into body
    branch_targets: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    call_targets: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    prototypes: Dict[str, Function] = field(default_factory=dict)  # .callprototype
    # maxntid, reqntid, minnctapersm, explicitcluster, noreturn…
    directives: Dict[str, Tuple[int, ...]] = field(default_factory=dict)


@dataclass
class Module:
    """One PTX translation unit, or several linked."""

    version: Tuple[int, int]
    target: str
    functions: Dict[str, Function] = field(default_factory=dict)
    variables: Dict[str, Variable] = field(default_factory=dict)
    aliases: Dict[str, str] = field(default_factory=dict)


MAX_MESSAGE = 1000


class PtxError(Exception):
    """The text is not PTX; the message has the line number, ``status`` is the CUresult.

    It quotes the text, and is one line of printable characters whatever that is.
    """

    def __init__(self, message: str, status: int = 218) -> None:
        line = " ".join(message[: 2 * MAX_MESSAGE].split())
        line = "".join(char if " " <= char <= "~" else "?" for char in line)
        super().__init__(line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "...")
        self.status = status
