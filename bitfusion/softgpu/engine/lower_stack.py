# SPDX-License-Identifier: Apache-2.0
"""Local memory that a call takes while it runs."""

from __future__ import annotations

from ..ptx.ir import Imm, Instruction
from .function import FunctionEncoder, Unsupported, optional
from .lower import rule

_LARGEST_ALIGNMENT = 1 << 15


@rule("alloca")
def _alloca(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """From the thread's stack; the call's return gives it back."""
    kind = instruction.modifiers[-1]
    to, size = instruction.operands[:2]
    align = optional(instruction.operands, 2) or Imm(8)
    if instruction.modifiers != (kind,) or kind not in ("u32", "u64"):
        raise Unsupported("an unknown form of alloca")
    value = align.value if isinstance(align, Imm) else 0
    if not 1 <= value <= _LARGEST_ALIGNMENT or value & (value - 1):
        raise Unsupported("an alignment that is no power of two")
    width = int(kind[1:]) // 8
    encoder.module.note_indirect(encoder.function)  # nobody knows how much: a large stack
    d = encoder.destination(to, width)
    encoder.emit(f"alloca_{8 * width}", d, b=encoder.source(size, width), x=value)


@rule("stacksave")
def _stacksave(encoder: FunctionEncoder, instruction: Instruction) -> None:
    (to,) = instruction.operands
    width = int(instruction.modifiers[-1][1:]) // 8
    encoder.emit(f"stacksave_{8 * width}", encoder.destination(to, width))


@rule("stackrestore")
def _stackrestore(encoder: FunctionEncoder, instruction: Instruction) -> None:
    (source,) = instruction.operands
    width = int(instruction.modifiers[-1][1:]) // 8
    encoder.emit(f"stackrestore_{8 * width}", a=encoder.source(source, width))
