# SPDX-License-Identifier: Apache-2.0
"""A linked module -> the bytes of an image that the engine loads (image.h has the same as C).

An image is a header, ``"SGIMAGE"``, NUL, u64 version, u64 size, then (u64 offset, u64 count)
for each section, and the sections, 8-aligned, little-endian:

ops        records of 32 bytes: u64 opcode, u32 d, a, b, c, x, u16 guard, u16 flags
lines      u32 per record: line of the PTX text
texts      u32 per record: offset in strings
functions  u32 name, first record, records, register bytes, local bytes, line, prologue records
constants  u64 value, u32 variable or 0xffffffff, u16 bytes (2, 4, 8), u16 kind
variables  u32 name, u32 flags (1 constant, 2 managed), u64 size, align, data, bytes of data
relocations u32 variable, u32 symbol or 0xffffffff, u64 offset, u64 value, u32 size, u32 shift
kernels    22 u32 (see struct sg_kernel_row)
parameters u32 offset, u32 size
calls      u32 first argument, arguments, first result, results, bytes
copies     u32 from, to, size
targets    u32, of brx.idx: a count, then distances
strings    bytes, each string ended by NUL
data       initial bytes of variables

An operand is a byte offset with the area in its low two bits: 0 the function's registers, 1 the
module's constants, 2 and 3 the warp's and the block's special values. A register of n bytes takes
32 * n bytes, one value a lane. A predicate is a word at the start of the registers, a bit a lane;
word 0 is always true; as a source, bit 0 of its offset negates it. A record's guard is the number
of such a word. flags: 1 guard negated, 2 the address register has 64 bits, bits 2-4 the space of a
memory record, bits 8-15 how many following records hold more operands.
"""

from __future__ import annotations

import struct
from typing import Dict, List, Optional, Sequence, Set, Tuple

from ..ptx.ir import Function, Imm, Module, PtxError, Relocation, Special, Sym, Variable
from . import (  # noqa: F401 - they register rules
    lower_async,
    lower_bulk,
    lower_compare,
    lower_control,
    lower_convert,
    lower_matrix,
    lower_memory,
    lower_multimem,
    lower_stack,
    lower_texture,
    lower_video,
    syntax_compute,
    syntax_memory,
    syntax_system,
)
from .encoding import NUMBERS
from .function import CODE_WINDOW, LANES, NOWHERE, RECORD, FunctionEncoder, Unsupported, abi_layout
from .generated import SG_IMAGE_VERSION
from .hoist import copies_of_special, hoist, writes
from .kernels import LOCAL, check_limit, kernel_rows
from .lower import lower
from .lower_control import load_register_parameters
from .operands import Checker
from .reach import Reach

_UNKNOWN = NUMBERS["unknown"]
_WARP = {"tid.x": 0, "tid.y": 1, "tid.z": 2, "warpid": 3}
_BLOCK = {
    name: index
    for index, name in enumerate(
        [
            "ctaid.x",
            "ctaid.y",
            "ctaid.z",
            "ntid.x",
            "ntid.y",
            "ntid.z",
            "nctaid.x",
            "nctaid.y",
            "nctaid.z",
            "envreg1",
            "envreg2",
            "dynamic_smem_size",
            "total_smem_size",
            "nwarpid",
            "smid",
            "nsmid",
            "gridid",
            "clusterid.x",
            "clusterid.y",
            "clusterid.z",
            "nclusterid.x",
            "nclusterid.y",
            "nclusterid.z",
            "cluster_ctaid.x",
            "cluster_ctaid.y",
            "cluster_ctaid.z",
            "cluster_nctaid.x",
            "cluster_nctaid.y",
            "cluster_nctaid.z",
            "cluster_ctarank",
            "cluster_nctarank",
            "is_explicit_cluster",
            "aggr_smem_size",
            "reserved_smem_offset_begin",
            "reserved_smem_offset_1",
            "reserved_smem_offset_end",
        ]
    )
}
_LANE = {
    "laneid": 1,
    "lanemask_eq": 2,
    "lanemask_le": 3,
    "lanemask_lt": 4,
    "lanemask_ge": 5,
    "lanemask_gt": 6,
}
_ZERO = ("envreg", "pm", "current_graph_exec")
_MAX_TARGETS = 1 << 22  # each brx has its own, as distances from itself
# bytes of a block's shared memory that belong to the system; engine/records.h has it, too
_RESERVED = 1024


class ModuleEncoder:
    """Everything that the functions of one module share."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.functions = module.functions
        self.reach = Reach(module)
        self._strings: Dict[str, int] = {"": 0}
        self._string_data = bytearray(b"\0")
        self._constants: Dict[Tuple[int, int, int, int], int] = {}
        self._constant_bytes = 0
        self._indices = {name: index for index, name in enumerate(module.functions)}
        placed = [
            v
            for v in module.variables.values()
            if v.space in ("global", "const") and v.linkage != "extern"
        ]
        self.variables = {variable.name: index for index, variable in enumerate(placed)}
        self.placed = placed
        self._calls: List[Tuple[int, int, int, int, int]] = []
        self._copies: List[Tuple[int, int, int]] = []
        self.targets: List[int] = []
        self._parameters: Dict[str, Dict[str, int]] = {}
        self.direct: Dict[str, Set[str]] = {}
        self.indirect: Set[str] = set()
        self.system: Set[str] = set()
        self.reserves = False  # does anybody ask where the system's shared memory is?

    # ------------------------------------------------------------------ for FunctionEncoder

    def string(self, text: str) -> int:
        at = self._strings.get(text)
        if at is None:
            at = self._strings[text] = len(self._string_data)
            self._string_data += text.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0"
        return at

    def constant(self, value: int, width: int, variable: int = NOWHERE, kind: int = 0) -> int:
        key = (value, width, variable, kind)
        at = self._constants.get(key)
        if at is None:
            at = self._constants[key] = self._constant_bytes
            self._constant_bytes += width * LANES
        return at | 1

    def resolve(self, name: str) -> str:
        return self.module.aliases.get(name, name)

    def function_index(self, name: str) -> int:
        return self._indices[name]

    def is_shared(self, name: str) -> bool:
        return self.reach.is_shared(name)

    def shared_offset(self, function: Function, name: str) -> int:
        return self.reach.offset(function.name, name)

    def symbol_constant(self, function: Function, symbol: Sym, width: int) -> int:
        name = self.resolve(symbol.name)
        if name in self.variables:
            if width != 8:
                raise Unsupported("half an address")
            return self.constant(symbol.offset & (1 << 64) - 1, 8, self.variables[name])
        if self.is_shared(name):
            return self.constant(self.shared_offset(function, name) + symbol.offset, width)
        if name in self._indices and width == 8:
            return self.constant(CODE_WINDOW + 16 * self._indices[name], 8)
        offset = self.parameter_offset(function, name)
        if offset is not None:
            return self.constant(offset + symbol.offset, width)
        raise Unsupported(f"no symbol '{name}'")

    def parameter_offset(self, function: Function, name: str) -> Optional[int]:
        if not function.entry:
            return None
        known = self._parameters.get(function.name)
        if known is None:
            offsets, _ = abi_layout([], function.params)
            known = self._parameters[function.name] = {
                v.name: at for v, at in zip(function.params, offsets)
            }
        return known.get(name)

    def special(self, name: str) -> Optional[Tuple[int, int]]:
        """Operand and width of a special register; None for those that are computed."""
        if name in _WARP:
            return _WARP[name] * 4 * LANES | 2, 4
        if name.startswith("reserved_smem_offset_"):
            self.reserves = True
            if name.endswith("_cap"):
                return self.constant(_RESERVED, 4), 4
            name = "reserved_smem_offset_begin" if name.endswith("_0") else name
        if name in _BLOCK:
            return _BLOCK[name] * 4 * LANES | 3, 4
        if name in _LANE:
            return self.constant(0, 4, NOWHERE, _LANE[name]), 4
        if name.startswith(_ZERO) or name.endswith(".w"):
            return self.constant(0, 4), 4
        return None

    def call(
        self, arguments: List[Tuple[int, int, int]], results: List[Tuple[int, int, int]], size: int
    ) -> int:
        first = len(self._copies)
        self._copies += arguments
        self._copies += results
        self._calls.append((first, len(arguments), first + len(arguments), len(results), size))
        return len(self._calls) - 1

    def reserve_targets(self, count: int) -> int:
        if len(self.targets) + count >= _MAX_TARGETS:
            raise PtxError(f"all brx together have more than {_MAX_TARGETS} targets")
        self.targets += [count] + [0] * count
        return len(self.targets) - count - 1

    def note_call(self, function: Function, callee: str) -> None:
        self.direct.setdefault(function.name, set()).add(callee)

    def note_indirect(self, function: Function) -> None:
        self.indirect.add(function.name)

    def note_system(self, function: Function) -> None:
        self.system.add(function.name)

    # ------------------------------------------------------------------ the whole

    def encode(self) -> bytes:
        records: List[List[int]] = []
        lines: List[int] = []
        texts: List[int] = []
        rows: List[Tuple[int, ...]] = []
        encoded: Dict[str, FunctionEncoder] = {}
        checker = Checker()
        for function in self.functions.values():
            if function.body is None:
                rows.append((self.string(function.name), 0, 0, 64, 0, 0, 0))
                continue
            checker.check(function)
            one = self._function(function)
            encoded[function.name] = one
            rows.append(
                (
                    self.string(function.name),
                    len(records),
                    len(one.records),
                    one.register_bytes,
                    one.local_bytes,
                    one.lines[0] if one.lines else 0,
                    one.prologue,
                )
            )
            records += one.records
            lines += one.lines
            texts += one.texts
        kernels, parameters = kernel_rows(self, encoded)
        data = bytearray()
        sections = [
            (b"".join(RECORD.pack(*record) for record in records), len(records)),
            (_words(lines), len(lines)),
            (_words(texts), len(texts)),
            _table("<7I", rows),
            _table("<QIHH", [(v, var, width, kind) for v, width, var, kind in self._constants]),
            _table("<IIQQQQ", [self._variable(variable, data) for variable in self.placed]),
            _table("<IIQQII", [row for v in self.placed for row in self._relocations(v)]),
            _table("<22I", kernels),
            _table("<II", parameters),
            _table("<5I", self._calls),
            _table("<III", self._copies),
            (_words([word & NOWHERE for word in self.targets]), len(self.targets)),
            (bytes(self._string_data), len(self._string_data)),
            (bytes(data), len(data)),
        ]
        return _assemble(sections)

    def _function(self, function: Function, in_order: bool = False) -> FunctionEncoder:
        one = FunctionEncoder(self, function)
        load_register_parameters(one)
        body, first, labels = function.body or [], 0, function.labels
        if function.entry and not in_order:
            count = writes(function)
            copies = one.alias_specials(copies_of_special(function, count))
            body, first, labels = hoist(function, count, copies)
        starts: List[int] = []
        joins = set(labels.values())
        for index, instruction in enumerate(body):
            starts.append(len(one.records))
            if index == first and any(record[0] == _UNKNOWN for record in one.records):
                return self._function(function, True)  # it may be that no thread gets there
            if index in joins or index == first:
                one.forget_patterns()
            lower(one, instruction)
            if instruction.opcode == "call":
                one.forget_patterns()
        starts.append(len(one.records))
        one.prologue = starts[first]
        one.guard = one.flags = 0
        if not function.entry:
            one.emit("ret")
        one.emit("exit")
        place = {label: starts[index] for label, index in labels.items()}
        for record, label in one.branches:
            one.records[record][5] = (place[label] - record) & NOWHERE
        for record, table, names in one.tables:
            for k, label in enumerate(names):
                self.targets[table + 1 + k] = place[label] - record
        check_limit(function, "local memory", one.local_bytes, LOCAL)
        one.local_bytes = (one.local_bytes + 15) // 16 * 16
        return one

    def _variable(self, variable: Variable, data: bytearray) -> Tuple[int, ...]:
        flags = (variable.space == "const") | (2 if "managed" in variable.attributes else 0)
        at = len(data)
        initial = variable.init[: variable.size].rstrip(b"\0")
        data += initial
        align = (
            variable.align if variable.align and not variable.align & (variable.align - 1) else 8
        )
        return (
            self.string(variable.name),
            flags,
            variable.size,
            min(align, 4096),
            at,
            len(initial),
        )

    def _relocations(self, variable: Variable) -> List[Tuple[int, ...]]:
        return [self._relocation(variable, one) for one in variable.relocations]

    def _relocation(self, variable: Variable, one: Relocation) -> Tuple[int, ...]:
        mine, name = self.variables[variable.name], self.resolve(one.symbol)
        symbol, value = NOWHERE, one.addend
        if name in self.variables:
            symbol = self.variables[name]
        elif name in self._indices:
            value += CODE_WINDOW + 16 * self._indices[name]
        elif self.is_shared(name):
            value += self.reach.offset("", name) + (1 << 56 if one.generic else 0)
        return (mine, symbol, one.offset, value & (1 << 64) - 1, one.size, one.shift)


def _words(values: List[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _table(layout: str, rows: Sequence[Tuple[int, ...]]) -> Tuple[bytes, int]:
    row = struct.Struct(layout)
    return b"".join(row.pack(*values) for values in rows), len(rows)


def _assemble(sections: List[Tuple[bytes, int]]) -> bytes:
    at = 24 + 16 * len(sections)
    table, parts = [], []
    for data, count in sections:
        table.append(struct.pack("<QQ", at, count))
        padding = -len(data) % 8
        parts.append(data + b"\0" * padding)
        at += len(data) + padding
    return (
        b"SGIMAGE\0" + struct.pack("<QQ", SG_IMAGE_VERSION, at) + b"".join(table) + b"".join(parts)
    )


def encode_module(module: Module) -> bytes:
    """Give the image of a linked module."""
    return ModuleEncoder(module).encode()


__all__ = ["SG_IMAGE_VERSION", "Imm", "ModuleEncoder", "Special", "encode_module"]
