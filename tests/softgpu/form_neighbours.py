# SPDX-License-Identifier: Apache-2.0
"""Instructions beside those that the tables have: a modifier less, more or another, another type.

Random, from a seed. Most of them no assembler takes; those that one does are what a table lacks.
"""

from __future__ import annotations

import random
from typing import Dict, Iterator, List, Sequence, Set, Tuple

from form_samples import Words, instructions, reg, samples

from bitfusion.softgpu.engine import syntax
from bitfusion.softgpu.engine.syntax import is_type
from bitfusion.softgpu.engine.table import FORMS, OPS

Sample = Tuple[str, Words, str]  # opcode, modifiers, the row's note or the operands' letters
_COMMON = """
sat ftz rn rz rm rp rni rzi rmi rpi relu satfinite noftz NaN xorsign abs cc hi lo wide approx full
v2 v4 v8 global shared shared::cta shared::cluster local const param relaxed acquire release
acq_rel volatile weak mmio cta cluster gpu sys L2::cache_hint L1::no_allocate L2::128B ca cg nc
sync aligned uni trans add min max and or xor inc dec exch cas
"""
_TYPES = """
b8 b16 b32 b64 b128 u8 u16 u32 u64 s8 s16 s32 s64 f16 f16x2 bf16 bf16x2 f32 f32x2 f64 tf32 u16x2
s16x2 e4m3x2 e5m2x2 e2m1x2 e2m3x2 e3m2x2 ue8m0x2 pred
"""
COMMON, TYPES = _COMMON.split(), _TYPES.split()
# Their operands are not those of their modifiers; mma and wmma have tests of their own.
WITHOUT = ("bra", "brx", "call", "ret", "alloca", "stackrestore")
_LETTERS = {"16": "h", "32": "r", "64": "d", "128": "q", "_pred": "p"}


def all_samples() -> Dict[str, List[Sample]]:
    """By opcode, every form of the tables."""
    found: Dict[str, List[Sample]] = {}
    for mnemonic, form in FORMS.items():
        opcode, *words = mnemonic.split(".")
        kinds = [kind for kind in OPS[form.op].operands if kind not in ("", "same")]
        letters = "=" + "".join(_LETTERS[kind.lstrip("tofrm")] for kind in kinds)
        found.setdefault(opcode, []).append((opcode, tuple(words), letters))
    for opcode in sorted(set(syntax.opcodes()) - set(WITHOUT)):
        for row in syntax.rows_of(opcode):
            found.setdefault(opcode, []).extend(
                (opcode, words, row.note) for words in samples(row)
            )
    return found


def lines(sample: Sample) -> List[str]:
    """With operands; none where the modifiers make no sense to who writes them."""
    opcode, words, note = sample
    if note[:1] == "=":
        named = ", ".join(f"{letter}{n}" for n, letter in enumerate(note[1:]))
        return [f"{'.'.join((opcode, *words))} {named};"]
    try:
        return instructions(opcode, words, note)
    except (AssertionError, IndexError, KeyError, StopIteration, ValueError):
        return []


def _retyped(note: str, old: str, new: str) -> str:
    return note.replace(_letter(old), _letter(new)) if note[:1] == "=" else note


def _letter(kind: str) -> str:
    return reg(kind, 0)[0]


def neighbour(sample: Sample, vocabulary: Sequence[str], pick: random.Random) -> Sample:
    opcode, words, note = sample
    changed = list(words)
    at = pick.randrange(len(words)) if words else 0
    what = pick.choice(("drop", "add", "swap", "swap", "type", "type"))
    types = [n for n, word in enumerate(words) if is_type(word)]
    if what == "type" and types:
        at = pick.choice(types)
        changed[at] = pick.choice(TYPES)
        note = _retyped(note, words[at], changed[at])
    elif what == "drop" and words:
        del changed[at]
    elif what == "swap" and words and not is_type(words[at]):
        changed[at] = pick.choice(vocabulary)
    else:
        changed.insert(at, pick.choice((*vocabulary, *COMMON)))
    others = [word for word in changed if not is_type(word)]
    if len(set(others)) < len(others):  # which ptxas takes, and nobody writes
        return sample
    return opcode, tuple(changed), note


def neighbours(seed: int) -> Iterator[str]:
    """Lines without end: of each opcode as many as of any other."""
    found, pick = all_samples(), random.Random(seed)
    words: Dict[str, List[str]] = {
        opcode: sorted({word for _, given, _ in known for word in given})
        for opcode, known in found.items()
    }
    seen: Set[str] = set()
    opcodes = sorted(opcode for opcode in found)
    while True:
        opcode = pick.choice(opcodes)
        sample = pick.choice(found[opcode])
        for _ in range(pick.choice((0, 1, 1, 1, 2))):
            sample = neighbour(sample, words[opcode] or COMMON, pick)
        for line in lines(sample):
            if line not in seen:
                seen.add(line)
                yield line
