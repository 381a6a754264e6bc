# SPDX-License-Identifier: Apache-2.0
"""What the encoder needs of the table of semantics: handlers, and which mnemonics are one.

It comes from generated text. Filling the table is the longest part of a helper's start.
"""

from __future__ import annotations

from typing import Dict, Tuple

from .generated.forms import HANDLERS, MNEMONICS

Kinds = Tuple[str, ...]  # of operands d, a, b, c; see semantics.Op


def _forms() -> Dict[str, Tuple[str, Kinds]]:
    found = {}
    for group in MNEMONICS.split("\n\n"):
        head, _, pairs = group.partition(":\n")
        kinds = tuple("" if kind == "-" else kind for kind in head.split())
        words = iter(pairs.split())
        for mnemonic, handler in zip(words, words):
            found[mnemonic] = (handler, kinds)
    return found


NUMBERS: Dict[str, int] = {name: number for number, name in enumerate(HANDLERS.split())}
FORMS = _forms()
