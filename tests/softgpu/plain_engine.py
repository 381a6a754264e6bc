# SPDX-License-Identifier: Apache-2.0
"""A second engine for PTX, plain and slow: the grid in lockstep, a register an array of lanes.

The C engine is compared with it. The two share the parser and nothing else. Among all lanes those
at the lowest place run, all at once, so lanes come together after branches by themselves. An
instruction that it does not know raises :class:`Unknown` with its text.
"""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, Sequence, Tuple

import numpy
import plain_bits  # noqa: F401  fills the rules
import plain_values
from numpy import ndarray
from plain_memory import LOCAL, SHARED, Memory, Unknown
from plain_values import DTYPES, RULES, WIDER, bits_of

from bitfusion.softgpu.ptx import ir

TAKE_TURNS = 50  # after so many steps somebody else than the lowest place runs once
_END = 1 << 30  # the place of a lane that has ended


class Grid(Memory):
    """One launch of a kernel. `memory` are the arrays that it may touch, by their addresses."""

    def __init__(
        self,
        module: ir.Module,
        name: str,
        grid: Tuple[int, int, int],
        block: Tuple[int, int, int],
        parameters: Sequence[bytes],
        memory: Sequence[ndarray],
    ) -> None:
        self.kernel, self.parameters = module.functions[name], parameters
        assert self.kernel.body is not None
        self.body = self.kernel.body
        self.threads, self.blocks = int(numpy.prod(block)), int(numpy.prod(grid))
        self.count = self.threads * self.blocks
        lane = numpy.arange(self.count)
        self.block_of, self.thread_of = lane // self.threads, lane % self.threads
        self.warps_each = -(-self.threads // 32)
        self.warp_of = self.block_of * self.warps_each + self.thread_of // 32
        self.place = numpy.zeros(self.count, "i8")
        self.waits = numpy.zeros(self.count, bool)
        self.carry = numpy.zeros(self.count, bool)
        self.registers: Dict[str, ndarray] = {}
        self.memory = [(a.ctypes.data, a.reshape(-1).view("u1")) for a in memory]
        self.symbols = self._lay_out(module)
        self.specials = self._specials(grid, block)

    def _lay_out(self, module: ir.Module) -> Dict[str, int]:
        """Places of shared and local variables, and the memory for them."""
        size = {"shared": 0, "local": 0}
        symbols = {}
        for variable in [*module.variables.values(), *self.kernel.variables]:
            if variable.space not in size:
                continue
            start = -(-size[variable.space] // variable.align) * variable.align
            symbols[variable.name] = start
            size[variable.space] = start + variable.size
        self.shared = numpy.zeros((self.blocks, size["shared"] + 16), "u1")
        self.local = numpy.zeros((self.count, size["local"] + 16), "u1")
        return symbols

    def _specials(
        self, grid: Tuple[int, int, int], block: Tuple[int, int, int]
    ) -> Dict[str, ndarray]:
        lane = self.thread_of % 32
        values = {"laneid": lane, "warpid": self.thread_of // 32, "lanemask_lt": (1 << lane) - 1}
        places = {"tid": self.thread_of, "ctaid": self.block_of}
        for name, size in (("tid", block), ("ctaid", grid)):
            below = 1
            for axis, extent in zip("xyz", size):
                values[f"{name}.{axis}"] = places[name] // below % extent
                values[f"n{name}.{axis}"] = numpy.full(self.count, extent)
                below *= extent
        return {name: value.astype("u8") for name, value in values.items()}

    # -------------------------------------------------------------- control

    def run(self, most_steps: int = 200_000) -> None:
        with numpy.errstate(all="ignore"):
            for step in itertools.count():
                ready = (self.place < _END) & ~self.waits
                if not ready.any():
                    return
                assert step < most_steps, "the kernel does not end"
                lowest, *others = numpy.unique(self.place[ready]).tolist()
                others = [p for p in others if "sync" not in self.body[p].modifiers]
                if step % TAKE_TURNS == 0 and others:  # who spins may wait for somebody above
                    lowest = others[step // TAKE_TURNS % len(others)]
                self._step(lowest, ready)

    def _step(self, place: int, ready: ndarray) -> None:
        instruction = self.body[place]
        here = active = ready & (self.place == place)
        if instruction.predicate is not None:
            wanted = self.read(instruction.predicate, "pred") != instruction.predicate_negated
            active = here & wanted
        self.place[here] += 1
        if active.any():
            rule = getattr(self, f"_do_{instruction.opcode}", self._compute)
            rule = self._with_carry if "cc" in instruction.modifiers else rule
            rule(instruction, active)
        self.place[self.place == len(self.body)] = _END
        self._release()

    def _do_bra(self, instruction: ir.Instruction, active: ndarray) -> None:
        label = instruction.operands[0]
        assert isinstance(label, ir.Label)
        self.place[active] = self.kernel.labels[label.name]

    def _do_ret(self, instruction: ir.Instruction, active: ndarray) -> None:
        self.place[active] = _END

    _do_exit = _do_ret

    def _do_bar(self, instruction: ir.Instruction, active: ndarray) -> None:
        """Barrier 0 of all threads of a block; `bar.warp.sync` needs nothing here."""
        if "warp" not in instruction.modifiers:
            self.waits |= active

    _do_barrier = _do_bar

    def _release(self) -> None:
        """A barrier opens when all of its block that have not ended wait."""
        if not self.waits.any():
            return
        runs = (self.place < _END) & ~self.waits
        busy = numpy.bincount(self.block_of[runs], minlength=self.blocks) > 0
        self.waits &= busy[self.block_of]

    def _do_membar(self, instruction: ir.Instruction, active: ndarray) -> None:
        """Everything is in order already."""

    _do_fence = _do_membar

    # -------------------------------------------------------------- operands

    def read(self, operand: ir.Operand, kind: str) -> ndarray:
        dtype = DTYPES[kind]
        if isinstance(operand, ir.Negated):
            return ~self.read(operand.item, "pred")
        if isinstance(operand, ir.Reg):
            found = self.registers.get(operand.name)
            if found is None:
                found = numpy.zeros(self.count, "?" if kind == "pred" else "u8")
            return found.astype(f"u{bits_of(kind) // 8}").view(dtype) if kind != "pred" else found
        if isinstance(operand, ir.Imm):
            return numpy.full(
                self.count, self._literal(operand, kind), f"u{bits_of(kind) // 8}"
            ).view(dtype)
        if isinstance(operand, ir.Special) and operand.name in self.specials:
            return self.specials[operand.name].astype(f"u{bits_of(kind) // 8}").view(dtype)
        if isinstance(operand, ir.Sym) and operand.name in self.symbols:
            return numpy.full(self.count, self.symbols[operand.name] + operand.offset, dtype)
        raise Unknown(f"operand {operand}")

    def _literal(self, operand: ir.Imm, kind: str) -> int:
        if operand.kind == "int" and plain_values.is_float(kind):
            return int(numpy.array(operand.value, DTYPES[kind]).view(f"u{bits_of(kind) // 8}"))
        if operand.kind == "f64" and kind == "f32":
            return int(numpy.array(operand.value, "u8").view("f8").astype("f4").view("u4"))
        return operand.value & ((1 << bits_of(kind)) - 1)

    def write(self, operand: ir.Operand, values: ndarray, active: ndarray) -> None:
        """Into a register at least as wide: signed values spread their sign."""
        if isinstance(operand, ir.Sink):
            return
        assert isinstance(operand, ir.Reg), operand
        if values.dtype == bool:
            bits = values
        else:
            size = bits_of(self.kernel.registers[operand.name])
            if values.dtype.kind == "i":
                bits = values.astype("i8").view("u8")
            else:
                bits = values.view(f"u{values.itemsize}").astype("u8")
            bits = bits & numpy.uint64((1 << size) - 1)
        old = self.registers.get(operand.name)
        if old is None:
            old = numpy.zeros(self.count, bits.dtype)
        self.registers[operand.name] = numpy.where(active, bits, old)

    # -------------------------------------------------------------- arithmetic

    def _compute(self, instruction: ir.Instruction, active: ndarray) -> None:
        opcode, operands = instruction.opcode, instruction.operands
        kinds = [m for m in instruction.modifiers if m in DTYPES]
        words = frozenset(m for m in instruction.modifiers if m not in DTYPES) | {opcode}
        if opcode not in RULES or len(kinds) > 2:
            raise Unknown(str(instruction))
        kind = kinds[0] if opcode in ("slct", "bfe", "bfi") else kinds[-1]
        wide = WIDER.get(kind, kind) if "wide" in words else kind
        given = {"k": kind, "u": "u32", "w": wide, "p": "pred", "s": kinds[-1]}
        pattern = RULES[opcode].kinds
        sources = [self.read(source, given[k]) for source, k in zip(operands[1:], pattern)]
        if len(sources) != len(pattern):
            raise Unknown(str(instruction))
        values = RULES[opcode].compute(kind, words, *sources)
        self.write(operands[0], plain_values.finished(values, words), active)

    def _with_carry(self, instruction: ir.Instruction, active: ndarray) -> None:
        """add.cc, addc and their like, as exact integers."""
        words, kind = frozenset(instruction.modifiers), instruction.modifiers[-1]
        bits, opcode = bits_of(kind), instruction.opcode
        columns = [self.read(source, f"u{bits}").tolist() for source in instruction.operands[1:]]
        if opcode.startswith("mad"):
            a, b = (self.read(source, kind) for source in instruction.operands[1:3])
            product = plain_values.high_product(kind, a, b) if "hi" in words else a * b
            columns = [product.view(f"u{bits // 8}").tolist(), columns[2]]
        carry = self.carry if opcode.endswith("c") else numpy.zeros(self.count, bool)
        sign = -1 if opcode.startswith("sub") else 1
        exact = [x + sign * (y + int(c)) for x, y, c in zip(*columns, carry)]
        values = numpy.array([x & ((1 << bits) - 1) for x in exact], f"u{bits // 8}")
        self.write(instruction.operands[0], values, active)
        if "cc" in words:
            over = numpy.array([x >> bits != 0 for x in exact])
            self.carry = numpy.where(active, over, self.carry)

    _do_addc = _do_subc = _do_madc = _with_carry

    def _do_mov(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, source = instruction.operands
        kind = instruction.modifiers[-1]
        if isinstance(source, ir.Vector):
            size = bits_of(kind) // len(source.items)
            parts = [self.read(item, f"b{size}").astype("u8") for item in source.items]
            whole = sum(part << numpy.uint64(size * i) for i, part in enumerate(parts))
            self.write(to, numpy.asarray(whole).astype(DTYPES[kind]), active)
        elif isinstance(to, ir.Vector):
            size = bits_of(kind) // len(to.items)
            whole = self.read(source, kind).astype("u8")
            for i, item in enumerate(to.items):
                self.write(item, (whole >> numpy.uint64(size * i)).astype(f"u{size // 8}"), active)
        else:
            self.write(to, self.read(source, kind), active)

    def _do_cvt(self, instruction: ir.Instruction, active: ndarray) -> None:
        kinds = [m for m in instruction.modifiers if m in DTYPES]
        if len(kinds) != 2 or len(instruction.operands) != 2:
            raise Unknown(str(instruction))
        words = frozenset(instruction.modifiers)
        source = self.read(instruction.operands[1], kinds[1])
        values = plain_values.converted(kinds[0], kinds[1], words, source)
        self.write(instruction.operands[0], plain_values.finished(values, words), active)

    def _do_cvta(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, source = instruction.operands
        window = {"shared": SHARED, "local": LOCAL}.get(instruction.modifiers[-2], 0)
        values = self.read(source, "u64")
        if "to" in instruction.modifiers:
            window = -window
        self.write(to, values + numpy.uint64(window & (2**64 - 1)), active)

    def _do_setp(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, *sources = instruction.operands
        kind, words = instruction.modifiers[-1], frozenset(instruction.modifiers[:-1])
        joins = words & {"and", "or", "xor"} if len(sources) == 3 else frozenset()
        truth = plain_values.compared(
            kind, words - joins, *(self.read(source, kind) for source in sources[:2])
        )
        both = [truth, ~truth]
        for join in joins:
            other = self.read(sources[2], "pred")
            both = [RULES[join].compute("pred", frozenset({join}), x, other) for x in both]
        for item, value in zip((to.first, to.second) if isinstance(to, ir.Pair) else (to,), both):
            self.write(item, value, active)

    def _do_set(self, instruction: ir.Instruction, active: ndarray) -> None:
        to, *sources = instruction.operands
        result, kind = (m for m in instruction.modifiers if m in DTYPES)
        words = frozenset(instruction.modifiers)
        if len(sources) != 2:
            raise Unknown(str(instruction))
        truth = plain_values.compared(
            kind, words, *(self.read(source, kind) for source in sources)
        )
        ones = numpy.float32(1) if result == "f32" else numpy.array(-1).astype(DTYPES[result])
        self.write(to, numpy.where(truth, ones, 0).astype(DTYPES[result]), active)

    # -------------------------------------------------------------- lanes of a warp

    def _by_warp(self, active: ndarray) -> List[Tuple[ndarray, Dict[int, int]]]:
        """Of each warp the lanes that run, and where in the grid each one is."""
        found = []
        for warp in numpy.unique(self.warp_of[active]):
            lanes = numpy.flatnonzero(active & (self.warp_of == warp))
            found.append((lanes, {int(self.thread_of[i]) % 32: int(i) for i in lanes}))
        return found

    def _do_shfl(self, instruction: ir.Instruction, active: ndarray) -> None:
        mode = instruction.modifiers[1]
        to, source, shift, bounds, _ = instruction.operands
        values, shifts = self.read(source, "b32"), self.read(shift, "u32").tolist()
        clamps = self.read(bounds, "u32").tolist()
        result, valid = values.copy(), numpy.zeros(self.count, bool)
        for lanes, where in self._by_warp(active):
            for i in map(int, lanes):
                lane, b, clamp = int(self.thread_of[i]) % 32, shifts[i] & 31, clamps[i] & 31
                segment = clamps[i] >> 8 & 31
                low, high = lane & segment, (lane & segment) | (clamp & ~segment)
                other, valid[i] = {
                    "up": (lane - b, lane - b >= high),
                    "down": (lane + b, lane + b <= high),
                    "bfly": (lane ^ b, lane ^ b <= high),
                    "idx": (low | (b & ~segment), low | (b & ~segment) <= high),
                }[mode]
                result[i] = values[where[other]] if valid[i] else values[i]
        if isinstance(to, ir.Pair):
            self.write(to.first, result, active)
            self.write(to.second, valid, active)
        else:
            self.write(to, result, active)

    def _do_vote(self, instruction: ir.Instruction, active: ndarray) -> None:
        mode = instruction.modifiers[1]
        truth = self.read(instruction.operands[1], "pred")
        result = numpy.zeros(self.count, "u4" if mode == "ballot" else bool)
        for lanes, where in self._by_warp(active):
            mine = truth[lanes]
            result[lanes] = {
                "all": mine.all(),
                "any": mine.any(),
                "uni": mine.all() or not mine.any(),
                "ballot": sum(1 << lane for lane, i in where.items() if truth[i]),
            }[mode]
        self.write(instruction.operands[0], result, active)

    def _do_redux(self, instruction: ir.Instruction, active: ndarray) -> None:
        _, mode, kind = instruction.modifiers
        values = self.read(instruction.operands[1], kind)
        combine: Dict[str, Callable[[ndarray], int]] = {
            "add": lambda x: int(x.sum(dtype="u8")), "min": lambda x: int(x.min()),
            "max": lambda x: int(x.max()), "and": numpy.bitwise_and.reduce,
            "or": numpy.bitwise_or.reduce, "xor": numpy.bitwise_xor.reduce,
        }  # fmt: skip
        result = numpy.zeros(self.count, "u8")
        for lanes, _ in self._by_warp(active):
            result[lanes] = int(combine[mode](values[lanes])) & 0xFFFFFFFF
        self.write(instruction.operands[0], result.astype("u4"), active)

    def _do_activemask(self, instruction: ir.Instruction, active: ndarray) -> None:
        result = numpy.zeros(self.count, "u4")
        for lanes, where in self._by_warp(active):
            result[lanes] = sum(1 << lane for lane in where)
        self.write(instruction.operands[0], result, active)
