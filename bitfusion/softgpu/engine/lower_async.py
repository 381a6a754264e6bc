# SPDX-License-Identifier: Apache-2.0
"""Asynchronous barriers and what completes on them; clusters."""

from __future__ import annotations

from typing import List, Tuple

from ..ptx.ir import Address, Instruction, Operand, Sink
from .function import NOWHERE, Broken, FunctionEncoder, Unsupported, optional
from .lower import rule
from .lower_memory import space_of

SCOPES = ("cta", "cluster", "gpu", "sys")
SHARED_SPACES = ("shared", "shared::cta", "shared::cluster")
_DROP, _NO_COMPLETE, _BYTES = 1, 2, 4  # enum sg_arrive


def rest_of(modifiers: Tuple[str, ...], *allowed: str) -> List[str]:
    """Take the words that change nothing here away; what is left has to be known."""
    return [word for word in modifiers if word not in allowed]


def only(modifiers: Tuple[str, ...], *allowed: str) -> None:
    left = rest_of(modifiers, *allowed)
    if left:
        raise Unsupported(f".{left[0]}")


@rule("mbarrier")
def _mbarrier(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Phases and byte counts as in the ISA; misuse that it leaves undefined is a fault."""
    verb, words = instruction.modifiers[0], instruction.modifiers[1:]
    operands = list(instruction.operands)
    if verb == "pending_count":
        to, state = (encoder.destination(operands[0], 4), encoder.source(operands[1], 8))
        encoder.emit("mbarrier_pending", to, state)
        return
    if words[-1:] != ("b64",):
        raise Unsupported("an mbarrier that is not .b64")
    words = words[:-1]
    if verb in ("init", "inval"):
        only(words, "shared", "shared::cta")
        count = encoder.source(operands[1], 4) if verb == "init" else 0
        a, x, flags = encoder.memory(operands[0], space_of(encoder, words))
        encoder.emit(f"mbarrier_{verb}", 0, a, count, x=x, flags=flags)
    elif verb in ("expect_tx", "complete_tx"):
        only(words, "relaxed", *SCOPES, *SHARED_SPACES)
        a, x, flags = encoder.memory(operands[0], space_of(encoder, words))
        name = f"mbarrier_{verb[:-3]}"
        encoder.emit(name, 0, a, encoder.source(operands[1], 4), x=x, flags=flags)
    elif verb in ("arrive", "arrive_drop"):
        _arrive(encoder, verb, words, operands)
    elif verb in ("test_wait", "try_wait"):
        _wait(encoder, verb, words, operands)
    else:
        raise Unsupported(verb)


def _arrive(
    encoder: FunctionEncoder, verb: str, words: Tuple[str, ...], operands: List[Operand]
) -> None:
    only(words, "expect_tx", "noComplete", "release", "relaxed", *SCOPES, *SHARED_SPACES)
    how = _DROP if verb == "arrive_drop" else 0
    how |= _NO_COMPLETE if "noComplete" in words else 0
    how |= _BYTES if "expect_tx" in words else 0
    to: Operand = Sink() if isinstance(operands[0], Address) else operands.pop(0)
    count = optional(tuple(operands), 1)
    if count is None and how & (_NO_COMPLETE | _BYTES):
        raise Broken("no count")
    b = encoder.constant(1, 4) if count is None else encoder.source(count, 4)
    a, x, flags = encoder.memory(operands[0], space_of(encoder, words))
    d = NOWHERE if isinstance(to, Sink) else encoder.destination(to, 8)
    encoder.emit("mbarrier_arrive", d, a, b, how, x, flags)


def _wait(
    encoder: FunctionEncoder, verb: str, words: Tuple[str, ...], operands: List[Operand]
) -> None:
    only(words, "parity", "acquire", "relaxed", *SCOPES, "shared", "shared::cta")
    d = encoder.predicate_slot(operands[0])
    kind, width = ("parity", 4) if "parity" in words else ("state", 8)
    b = encoder.source(operands[2], width)
    if len(operands) > (4 if verb == "try_wait" else 3):
        raise Broken("another number of operands")
    if len(operands) == 4:
        encoder.source(operands[3], 4)  # how long it may be suspended, in nanoseconds
    a, x, flags = encoder.memory(operands[1], space_of(encoder, words))
    encoder.emit(f"mbarrier_{kind}", d, a, b, int(verb == "try_wait"), x, flags)


# ------------------------------------------------------------------ clusters


@rule("mapa")
def _mapa(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """The same place in another block's shared memory; a tag in the address names the block."""
    to, source, rank = instruction.operands
    only(instruction.modifiers, "shared::cluster", "u32", "u64")
    width = encoder.width(to)
    encoder.emit(
        f"mapa_{8 * width}",
        encoder.destination(to, width),
        encoder.source(source, width),
        encoder.source(rank, 4),
    )


@rule("getctarank")
def _getctarank(encoder: FunctionEncoder, instruction: Instruction) -> None:
    to, source = instruction.operands
    only(instruction.modifiers, "shared::cluster", "u32", "u64")
    width = encoder.width(source) or 4
    encoder.emit(
        f"cluster_rank_{8 * width}", encoder.destination(to, 4), encoder.source(source, width)
    )


def cluster_barrier(encoder: FunctionEncoder, words: List[str]) -> None:
    """``barrier.cluster``: arrival and waiting are instructions of their own."""
    if words[1] not in ("arrive", "wait"):
        raise Unsupported("a barrier of this form")
    only(tuple(words[2:]), "acquire", "release", "relaxed")
    encoder.emit(f"cluster_{words[1]}")
