# SPDX-License-Identifier: Apache-2.0
"""One function's records: where its registers lie, what an operand becomes.

The meaning of instructions is in the ``lower`` modules; they call :meth:`FunctionEncoder.emit`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Set, Tuple

from ..ptx.dump import show_instruction
from ..ptx.ir import (
    TYPE_BYTES,
    Address,
    Function,
    Imm,
    Instruction,
    Negated,
    Operand,
    Reg,
    Sink,
    Special,
    Sym,
    Variable,
)
from . import encoding

if TYPE_CHECKING:
    from .encode import ModuleEncoder

RECORD = struct.Struct("<QIIIIIHH")
# What the C sources have from here, as SG_LANES and so on (emit.py).
NOWHERE = 0xFFFFFFFF  # an operand that is not there
LANES = 32
PATTERNS = 8  # of addresses, that a warp remembers
NOT, WIDE = 1, 2  # flags of a record
# Of a memory record: FRAME is an offset in the function's own local memory, without a register.
GENERIC, GLOBAL, SHARED, LOCAL, PARAM, FRAME = range(6)
# Generic addresses of the windows; none is one that user space can have on x86-64 or aarch64.
SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, CODE_WINDOW = (n << 56 for n in (1, 2, 3, 4))
_SCRATCH_PREDICATES = 6


class Unsupported(Exception):
    """This form of an instruction is not carried out; it becomes a record that faults."""


class Broken(Unsupported):
    """These are not the operands of a form that is known: the code is refused."""


class FunctionEncoder:
    """Encodes one function; :attr:`records` and :attr:`lines` are the result."""

    def __init__(self, module: ModuleEncoder, function: Function) -> None:
        self.module = module
        self.function = function
        self.records: List[List[int]] = []
        self.lines: List[int] = []
        self.texts: List[int] = []
        self.branches: List[Tuple[int, str]] = []
        self.tables: List[Tuple[int, int, Tuple[str, ...]]] = []
        self.line = 0
        self.text = 0
        self.guard = 0
        self.flags = 0
        self._temporaries: Dict[int, List[int]] = {2: [], 4: [], 8: [], 16: []}
        self._in_use: Dict[int, int] = {2: 0, 4: 0, 8: 0, 16: 0}
        self._predicates_in_use = 0
        self._patterns: Dict[Tuple[int, int], int] = {}  # (operand, bytes) -> slot
        self._pattern_count = 0
        self._written: Set[int] = set()
        self.prologue = 0  # records that only the first block in its memory runs
        self._place_registers()
        self._place_locals()

    # ------------------------------------------------------------------ storage

    def _place_registers(self) -> None:
        self.widths: Dict[str, int] = {}
        self.slots: Dict[str, int] = {}
        predicates = 1
        for name, kind in self.function.registers.items():
            if kind == "pred":
                self.slots[name] = predicates * 4
                predicates += 1
        self._scratch = predicates
        self.register_bytes = ((predicates + _SCRATCH_PREDICATES) * 4 + 63) // 64 * 64
        for name, kind in self.function.registers.items():
            if kind != "pred":
                self.widths[name] = max(TYPE_BYTES[kind], 2)
                self.slots[name] = self._slot(self.widths[name])

    def alias_specials(self, copies: Dict[str, Special]) -> Set[str]:
        """Give registers the place of the special ones that they are copies of; says which."""
        done = set()
        for name, special in copies.items():
            found = self.module.special(special.name)
            if found is not None and self.widths.get(name) == found[1]:
                self.slots[name] = found[0]
                done.add(name)
        return done

    def _slot(self, width: int) -> int:
        at = self.register_bytes
        self.register_bytes += width * LANES
        return at

    def _place_locals(self) -> None:
        self.frame: Dict[str, int] = {}
        self.local_bytes = 0
        function = self.function
        if not function.entry:
            offsets, size = abi_layout(function.returns, function.params)
            self.local_bytes = size
            for variable, offset in zip([*function.returns, *function.params], offsets):
                self.frame[variable.name] = offset
        for variable in function.variables:
            if variable.space in ("local", "param"):
                self.frame[variable.name] = self.local_space(max(variable.size, 1), variable.align)

    def local_space(self, size: int, align: int = 8) -> int:
        at = (self.local_bytes + align - 1) // align * align
        self.local_bytes = at + size
        return at

    def temporary(self, width: int) -> int:
        """A register for the rest of this instruction."""
        pool = self._temporaries[width]
        if self._in_use[width] == len(pool):
            pool.append(self._slot(width))
        self._in_use[width] += 1
        return pool[self._in_use[width] - 1]

    def temporary_predicate(self) -> int:
        if self._predicates_in_use == _SCRATCH_PREDICATES:
            raise Unsupported("too many predicates")
        self._predicates_in_use += 1
        return (self._scratch + self._predicates_in_use - 1) * 4

    # ------------------------------------------------------------------ patterns of addresses

    def forget_patterns(self) -> None:
        """Other code may have run: at a label, after a call."""
        self._patterns.clear()

    def pattern(self, a: int, size: int) -> Tuple[bool, int]:
        """Whether the warp knows by now how the lanes' addresses follow each other, and the slot.

        Only a record that runs whenever the code behind it does may find it out for that code.
        """
        known = self._patterns.get((a, size))
        if known is not None:
            return True, known
        if self.guard:
            return False, PATTERNS - 1
        slot = self._pattern_count % (PATTERNS - 1)
        self._pattern_count += 1
        self._patterns = {key: at for key, at in self._patterns.items() if at != slot}
        self._patterns[a, size] = slot
        return False, slot

    # ------------------------------------------------------------------ records

    def start(self, instruction: Instruction) -> None:
        """Begin an instruction: its guard, its line, no temporaries."""
        if self._written:
            kept = {k: at for k, at in self._patterns.items() if k[0] not in self._written}
            self._patterns = kept
            self._written.clear()
        self._in_use = {2: 0, 4: 0, 8: 0, 16: 0}
        self._predicates_in_use = 0
        self.line = instruction.line
        self.text = self.module.string(".".join((instruction.opcode, *instruction.modifiers)))
        self.guard = self.flags = 0
        if instruction.predicate is not None:
            self.guard = self.predicate_slot(instruction.predicate) // 4
            self.flags = NOT if instruction.predicate_negated else 0

    def emit(
        self, op: str, d: int = 0, a: int = 0, b: int = 0, c: int = 0, x: int = 0, flags: int = 0
    ) -> int:
        """Add a record under the instruction's guard; returns its number."""
        number = encoding.NUMBERS[op]
        self.records.append([number, d, a, b, c, x & NOWHERE, self.guard, self.flags | flags])
        self.lines.append(self.line)
        self.texts.append(self.text)
        return len(self.records) - 1

    def emit_all(self, op: str, operands: Sequence[int], x: int = 0, flags: int = 0) -> int:
        """The same, with d, a, b, c in a sequence."""
        d, a, b, c = [*operands, 0, 0, 0][:4]
        return self.emit(op, d, a, b, c, x, flags)

    def extend(self, operands: List[int]) -> None:
        """Add records that hold more operands of the one before."""
        for at in range(0, len(operands), 4):
            d, a, b, c = (operands[at : at + 4] + [0, 0, 0])[:4]
            self.records.append([0, d, a, b, c, 0, 0, 0])
            self.lines.append(self.line)
            self.texts.append(self.text)

    def emit_unknown(
        self, instruction: Instruction, mark: Tuple[int, int, int], why: str = ""
    ) -> None:
        """Replace what was emitted for an instruction by a record that faults, and says why."""
        del self.records[mark[0] :], self.lines[mark[0] :], self.texts[mark[0] :]
        del self.branches[mark[1] :], self.tables[mark[2] :]
        self.text = self.module.string(show_instruction(instruction).strip())
        self.emit("unknown", x=self.module.string(why))

    # ------------------------------------------------------------------ operands

    def predicate_slot(self, operand: Operand) -> int:
        if not isinstance(operand, Reg) or operand.name in self.widths:
            raise Broken("not a predicate")
        try:
            return self.slots[operand.name]
        except KeyError:
            raise Broken(f"no register {operand.name}") from None

    def truth(self, operand: Operand) -> int:
        """A source predicate; negation is bit 0."""
        if isinstance(operand, Negated):
            return self.predicate_slot(operand.item) | 1
        if isinstance(operand, Imm):
            return 0 if operand.value else 1
        if isinstance(operand, Special) and operand.name == "is_explicit_cluster":
            made = self.temporary_predicate()
            self.emit("mov_word_pred", made, self.special(operand.name, 4))
            return made
        return self.predicate_slot(operand)

    def width(self, operand: Operand) -> int:
        """Bytes a register has; 0 for what is not one."""
        return self.widths.get(operand.name, 0) if isinstance(operand, Reg) else 0

    def destination(self, operand: Operand, width: int) -> int:
        if isinstance(operand, Sink):
            return self.temporary(width)
        if self.width(operand) != width or not isinstance(operand, Reg):
            raise Broken("a destination of another width")
        self._written.add(self.slots[operand.name])
        return self.slots[operand.name]

    def source(self, operand: Operand, width: int) -> int:
        """The operand as a source of ``width`` bytes."""
        if isinstance(operand, Reg):
            if self.widths.get(operand.name) != width:
                raise Broken("a source of another width")
            return self.slots[operand.name]
        if isinstance(operand, Imm):
            return self.constant(immediate(operand, width), width)
        if isinstance(operand, Special):
            return self.special(operand.name, width)
        if isinstance(operand, Sym):
            return self.address(operand, width)
        raise Broken("an operand of this kind")

    def constant(self, value: int, width: int) -> int:
        return self.module.constant(value & ((1 << 8 * width) - 1), width)

    def resize(self, operand: int, old: int, new: int, kind: str = "") -> int:
        """Another width of a value: ``kind`` is the type that it is cut to, or read as."""
        if old == new and not kind:
            return operand
        kind = kind or f"u{8 * min(old, new)}"
        if old == new == TYPE_BYTES[kind]:
            return operand
        made = self.temporary(new)
        self.emit(f"ext_{8 * old}_{kind}_{8 * new}", made, operand)
        return made

    def address(self, symbol: Sym, width: int) -> int:
        """The address of a variable or function as a value, in its own space."""
        if symbol.name in self.frame:
            if width == 2:
                raise Unsupported("an address of 16 bits")
            made = self.temporary(width)
            self.emit(
                f"frame_address_{8 * width}", made, x=self.frame[symbol.name] + symbol.offset
            )
            return made
        return self.module.symbol_constant(self.function, symbol, width)

    def special(self, name: str, width: int) -> int:
        found = self.module.special(name)
        if found is None:
            return self._timer(name, width)
        operand, has = found
        return self.resize(operand, has, width)

    def _timer(self, name: str, width: int) -> int:
        if name not in (
            "clock",
            "clock_hi",
            "clock64",
            "globaltimer",
            "globaltimer_lo",
            "globaltimer_hi",
        ):
            raise Unsupported(f"special register %{name}")
        made = self.temporary(8)
        self.emit("special", made)
        if name.endswith("_hi"):
            high = self.temporary(4)
            self.emit("part_64_1", high, made)
            return self.resize(high, 4, width)
        return self.resize(made, 8, width)

    def memory(self, address: Operand, space: int) -> Tuple[int, int, int]:
        """Operand a, x and flags of a memory record."""
        if not isinstance(address, Address):
            raise Broken("not an address")
        base, offset = address.base, address.offset
        if base is None:
            return self.constant(offset, 8), 0, WIDE | space << 2
        if isinstance(base, Reg):
            width = self.width(base)
            if not width:
                raise Broken("an address in a register of no address")
            if width not in (4, 8) or not -(1 << 31) <= offset < 1 << 31:
                raise Unsupported("an address of this width")
            return self.slots[base.name], offset, (WIDE if width == 8 else 0) | space << 2
        if base.name in self.frame:
            return 0, self.frame[base.name] + base.offset + offset, FRAME << 2
        if self.module.is_shared(base.name):
            place = self.module.shared_offset(self.function, base.name) + base.offset + offset
            return self.constant(0, 4), place, SHARED << 2
        return self.address(Sym(base.name), 8), base.offset + offset, WIDE | (space or GLOBAL) << 2


def abi_layout(returns: List[Variable], params: List[Variable]) -> Tuple[List[int], int]:
    """Where results and arguments lie at the start of a callee's local memory."""
    at, offsets = 0, []
    for variable in [*returns, *params]:
        size = variable.size or TYPE_BYTES.get(variable.type, 4)
        align = max(variable.align, min(size, 8) if variable.space == "reg" else 1)
        at = (at + align - 1) // align * align
        offsets.append(at)
        at += size
    return offsets, (at + 7) // 8 * 8


def immediate(operand: Imm, width: int) -> int:
    if operand.kind == "int":
        return operand.value
    if operand.kind == "f64" and width == 4:
        value: float = struct.unpack("<d", struct.pack("<Q", operand.value))[0]
        return _single(value)
    if operand.kind == "f32" and width == 8:
        single: float = struct.unpack("<f", struct.pack("<I", operand.value))[0]
        return int(struct.unpack("<Q", struct.pack("<d", single))[0])
    return operand.value


def _single(value: float) -> int:
    try:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def optional(items: Tuple[Operand, ...], index: int) -> Optional[Operand]:
    return items[index] if index < len(items) else None
