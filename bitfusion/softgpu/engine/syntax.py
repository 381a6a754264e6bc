# SPDX-License-Identifier: Apache-2.0
"""The forms of instructions that rules carry out: rows of slots, each a choice of modifiers.

The ``syntax_*`` modules write a row as text: ``SEM? SCOPE? add HINT? u32|s32``. A slot is one word
or a choice; ``?`` makes it optional; names in capitals stand for the choices in ``CHOICES``. The
encoder gives a rule only what matches a row, in the row's order: in an instruction the words may
stand in any order, but for the types, which are told apart by theirs. The coverage table prints
the same rows, and its test runs them.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from ..ptx.record import NamedTuple
from ..ptx.regex import regex

CHOICES: Dict[str, str] = {
    "SEM": "relaxed|acquire|release|acq_rel",
    "SCOPE": "cta|cluster|gpu|sys",
    "MINE": "shared|shared::cta",
    "SHARED": "shared|shared::cta|shared::cluster",
    "HINT": "L2::cache_hint",
    "SIZE": "L2::64B|L2::128B|L2::256B",
    "EVICT1": "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last"
    "|L1::no_allocate",
    "EVICT2": "L2::evict_normal|L2::evict_first|L2::evict_last",
    "TOLD": "mbarrier::complete_tx::bytes",
    "BOOL": "and|or|xor",
    "BITS": "b16|b32|b64",
    "INTEGER": "u16|u32|u64|s16|s32|s64",
    "INTEGER8": "u8|u16|u32|u64|s8|s16|s32|s64",
    "SMALL": "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64",
    "WORD": "b32|u32|s32|f32",
    "REGISTER": "b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64",
    "SIZES": "u32|u64",
}
_TYPE = regex(r"(b|u|s|f|bf|tf)\d+(x\d)?$|e\dm\d(x\d)?$|ue8m0x2$|pred$")
_IS_TYPE: Dict[str, bool] = {}


def is_type(word: str) -> bool:
    known = _IS_TYPE.get(word)
    if known is None:
        known = _IS_TYPE[word] = _TYPE.match(word) is not None
    return known


class Slot(NamedTuple):
    """One of these words, or, where it is optional, none."""

    words: Tuple[str, ...]
    optional: bool
    of_types: bool
    name: str = ""  # of the choice, where it has one


class Row(NamedTuple):
    """Slots in the order in which a rule reads them; a note on what else tells the form."""

    slots: Tuple[Slot, ...]
    note: str = ""


class Refusal(NamedTuple):
    """Forms that are not carried out: those that have a word of each choice, and why."""

    words: Tuple[Tuple[str, ...], ...]
    why: str


# Of PTX: every word of it is in the tables, also of what is refused.
KNOWN_VERSION = (9, 0)
_ROWS: Dict[str, List[Tuple[str, str]]] = {}
_READ: Dict[str, List[Row]] = {}
_VOCABULARY: Set[str] = set()
REFUSED: Dict[str, List[Refusal]] = {}


def rows(opcodes: str, *texts: str, note: str = "") -> None:
    for opcode in opcodes.split():
        _ROWS.setdefault(opcode, []).extend((text, note) for text in texts)


def refused(opcodes: str, text: str, why: str) -> None:
    words = tuple(tuple(CHOICES.get(one, one).split("|")) for one in text.split())
    for opcode in opcodes.split():
        REFUSED.setdefault(opcode, []).append(Refusal(words, why))


def _slot(text: str) -> Slot:
    name = text.rstrip("?")
    words = tuple(CHOICES.get(name, name).split("|"))
    named = name if name in CHOICES else ""
    return Slot(words, text.endswith("?"), all(map(is_type, words)), named)


def rows_of(opcode: str) -> List[Row]:
    """The rows of an opcode; they are read when they are first asked for."""
    found = _READ.get(opcode)
    if found is None:
        texts = _ROWS.get(opcode, ())
        found = [Row(tuple(map(_slot, text.split())), note) for text, note in texts]
        _READ[opcode] = found
    return found


def opcodes() -> Iterator[str]:
    return iter(_ROWS)


def _fill(row: Row, words: Tuple[str, ...]) -> Optional[Tuple[str, ...]]:
    """The words in the row's order, or None."""
    types = [word for word in words if is_type(word)]
    others = [word for word in words if not is_type(word)]
    made: List[str] = []
    for slot in row.slots:
        if slot.of_types:
            found = types[0] if types and types[0] in slot.words else None
            taken = types
        else:
            found = next((word for word in others if word in slot.words), None)
            taken = others
        if found is not None:
            taken.remove(found)
            made.append(found)
        elif not slot.optional:
            return None
    return None if types or others else tuple(made)


def match(opcode: str, words: Tuple[str, ...]) -> Optional[Tuple[str, ...]]:
    """The modifiers of a form that a row has, in the row's order; None where none has it."""
    for row in rows_of(opcode):
        made = _fill(row, words)
        if made is not None:
            return made
    return None


def refusal(opcode: str, words: Tuple[str, ...]) -> str:
    """Why a form is not carried out, where the table says so; or nothing."""
    for one in REFUSED.get(opcode, ()):
        if all(set(choice) & set(words) for choice in one.words):
            return one.why
    return ""


def vocabulary(mnemonics: Iterable[str], more: Iterable[str]) -> Set[str]:
    """Every opcode and modifier that the tables have, in whatever form."""
    if not _VOCABULARY:
        _VOCABULARY.update(more)
        for mnemonic in mnemonics:
            _VOCABULARY.update(mnemonic.split("."))
        for opcode in [*_ROWS, *REFUSED]:
            _VOCABULARY.add(opcode)
            for row in rows_of(opcode):
                _VOCABULARY.update(word for slot in row.slots for word in slot.words)
            for one in REFUSED.get(opcode, ()):
                _VOCABULARY.update(word for choice in one.words for word in choice)
    return _VOCABULARY


def sorted_words(words: Sequence[str]) -> Tuple[str, ...]:
    """The same for all orders of a form's words; types keep theirs."""
    types = [word for word in words if is_type(word)]
    return (*sorted(word for word in words if not is_type(word)), *types)
