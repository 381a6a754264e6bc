# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that a helper has without ``re``, where an earlier one compiled them.

``re`` and the compiler in it would be a third of a helper's start (boot.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import boot

if TYPE_CHECKING:
    from re import Pattern
    from typing import AnyStr

# re.MULTILINE, re.DOTALL, re.ASCII
MULTILINE, DOTALL, ASCII = 8, 16, 256


def regex(text: AnyStr, flags: int = 0) -> Pattern[AnyStr]:
    arguments = boot.PATTERNS.setdefault((text, flags), None)
    if arguments is not None:
        from _sre import compile as make  # type: ignore[import-not-found]

        made: Pattern[AnyStr] = make(text, *arguments)
        return made
    import re

    return re.compile(text, flags)
