# SPDX-License-Identifier: Apache-2.0
"""multimem on a multicast object of one device: a load, a store and a reduction."""

from __future__ import annotations

from ..ptx.ir import Instruction
from .function import FunctionEncoder
from .lower import rule
from .lower_memory import load, reduce, store

_STORED = {  # types that are only moved
    "f16": "b16", "bf16": "b16", "f16x2": "b32", "bf16x2": "b32",
    **{f"{kind}{count}": f"b{bits}" for kind in ("e5m2", "e4m3")
       for count, bits in (("", 8), ("x2", 16), ("x4", 32))},
}  # fmt: skip
_OPERATIONS = ("add", "min", "max", "and", "or", "xor", "acc::f16", "acc::f32")


@rule("multimem")
def _multimem(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Any global address is taken for that of a multicast object with one member."""
    verb, *words = instruction.modifiers
    if verb == "red":
        found = instruction._replace(opcode="red", modifiers=tuple(words))
        reduce(encoder, found)
        return
    kind = words.pop()
    kept = tuple(word for word in words if word not in _OPERATIONS)
    found = instruction._replace(modifiers=(*kept, _STORED.get(kind, kind)))
    (load if verb == "ld_reduce" else store)(encoder, found)
