# SPDX-License-Identifier: Apache-2.0
"""Memory of the plain engine: loads, stores and atomics of a grid's lanes."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy
import plain_values
from numpy import ndarray
from plain_values import DTYPES, RULES, bits_of

from bitfusion.softgpu.ptx import ir

SHARED, LOCAL = 1 << 56, 2 << 56  # generic addresses; the engine under test has others


class Unknown(Exception):
    """An instruction or operand that this engine does not know."""


class Memory:
    """What a grid's instructions on memory need of it."""

    kernel: ir.Function
    parameters: Sequence[bytes]
    count: int
    block_of: ndarray
    shared: ndarray  # a row for each block
    local: ndarray  # a row for each lane
    memory: List[Tuple[int, ndarray]]  # global: address, bytes

    def read(self, operand: ir.Operand, kind: str) -> ndarray:
        raise NotImplementedError

    def write(self, operand: ir.Operand, values: ndarray, active: ndarray) -> None:
        raise NotImplementedError

    def _do_ld(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, address = instruction.operands
        kind = instruction.modifiers[-1]
        items = to.items if isinstance(to, ir.Vector) else (to,)
        size = bits_of(kind) // 8
        assert isinstance(address, ir.Address)
        for i, item in enumerate(items):
            if "param" in instruction.modifiers:
                values = self._parameter(address, size * i, kind)
            else:
                values = numpy.zeros(self.count, DTYPES[kind])
                for lanes, memory, at in self._find(instruction, address, size, i, active):
                    places = at[:, None] + numpy.arange(size)
                    values[lanes] = numpy.ascontiguousarray(memory[places]).view(DTYPES[kind])[
                        :, 0
                    ]
            self.write(item, values, active)

    _do_ldu = _do_ld

    def _do_st(self, instruction: ir.Instruction, active: ndarray) -> None:
        address, source = instruction.operands
        kind = instruction.modifiers[-1]
        items = source.items if isinstance(source, ir.Vector) else (source,)
        size = bits_of(kind) // 8
        assert isinstance(address, ir.Address)
        for i, item in enumerate(items):
            values = numpy.ascontiguousarray(self.read(item, kind)).view("u1")
            for lanes, memory, at in self._find(instruction, address, size, i, active):
                memory[at[:, None] + numpy.arange(size)] = values.reshape(self.count, size)[lanes]

    def _do_atom(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, address, *sources = instruction.operands
        kind = instruction.modifiers[-1]
        assert isinstance(address, ir.Address)
        given = [self.read(source, kind) for source in sources]
        old = numpy.zeros(self.count, DTYPES[kind])
        size = bits_of(kind) // 8
        for lanes, memory, at in self._find(instruction, address, size, 0, active):
            for i, place in zip(map(int, lanes), map(int, at)):
                cell = memory[place : place + size].view(DTYPES[kind])
                old[i] = cell[0]
                cell[:] = self._atomic(instruction, cell.copy(), [x[i : i + 1] for x in given])
        self.write(to, old, active)

    def _do_red(self, instruction: ir.Instruction, active: ndarray) -> None:
        operands = (ir.Sink(), *instruction.operands)
        self._do_atom(instruction._replace(operands=operands), active)

    def _atomic(self, instruction: ir.Instruction, old: ndarray, given: List[ndarray]) -> ndarray:
        words = frozenset(instruction.modifiers[:-1])
        if "cas" in words:
            return given[1] if old == given[0] else old
        if "exch" in words:
            return given[0]
        if "inc" in words:
            return old * 0 if old >= given[0] else old + 1
        if "dec" in words:
            return given[0] if old == 0 or old > given[0] else old - 1
        (name,) = words & {"add", "min", "max", "and", "or", "xor"}
        kind = instruction.modifiers[-1]
        values = RULES[name].compute(kind, frozenset({name}), old, given[0])
        return plain_values.finished(values, frozenset())

    def _parameter(self, address: ir.Address, more: int, kind: str) -> ndarray:
        base = address.base
        if not isinstance(base, ir.Sym):
            raise Unknown("a parameter by a register")
        names = [parameter.name for parameter in self.kernel.params]
        data = self.parameters[names.index(base.name)]
        start = base.offset + address.offset + more
        return numpy.full(self.count, numpy.frombuffer(data, DTYPES[kind], 1, start)[0])

    def _find(
        self,
        instruction: ir.Instruction,
        address: ir.Address,
        size: int,
        item: int,
        active: ndarray,
    ) -> List[Tuple[ndarray, ndarray, ndarray]]:
        """Where an access goes: lanes, the memory as bytes, and their places in it."""
        assert address.base is not None
        at = self.read(address.base, "u64")
        at = at + numpy.uint64((address.offset + size * item) & (2**64 - 1))
        space = next((s for s in ("shared", "local") if s in instruction.modifiers), "")
        windows = {"shared": SHARED, "local": LOCAL}
        found, known = [], numpy.zeros(self.count, bool)
        for name, memory, owner in (
            ("shared", self.shared, self.block_of),
            ("local", self.local, numpy.arange(self.count)),
        ):
            place = at if space == name else at - numpy.uint64(windows[name])
            inside = active & (place < memory.shape[1]) & (space in (name, ""))
            if "global" in instruction.modifiers or not inside.any():
                continue
            known |= inside
            row = owner[inside] * memory.shape[1] + place[inside].astype("i8")
            found.append((numpy.flatnonzero(inside), memory.reshape(-1), row))
        for start, memory in self.memory if not space else ():
            inside = active & (at >= start) & (at + numpy.uint64(size) <= start + memory.size)
            known |= inside
            found.append((numpy.flatnonzero(inside), memory, (at[inside] - start).astype("i8")))
        assert (known | ~active).all(), f"outside of all memory: {instruction}"
        return found
