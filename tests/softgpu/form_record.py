# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: writes down the forms that tests would check, and runs none.

A form of a ``forms.Form`` counts where it is the one that is checked, not where it serves to load
or to store; of a kernel of another kind, all that is in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NoReturn, Sequence, Set, Union

import forms
import machine
import pytest

MNEMONIC = re.compile(r"(?<![\w.%$])[a-z]\w*(?:\.[\w:]+)*(?![\w.])")
found: Set[str] = set()


def record(text: str) -> NoReturn:
    found.update(MNEMONIC.findall(text))
    pytest.skip("does not apply: its forms are written down")


def check(given: Sequence[forms.Form]) -> None:
    record("\n".join(one.text for one in given))


def compiled(_machine: machine.Machine, source: Union[str, bytes]) -> machine.Program:
    record(source.decode() if isinstance(source, bytes) else source)


def pytest_configure() -> None:
    forms.check = check
    machine.Machine.compile = compiled  # type: ignore[method-assign]


def pytest_sessionfinish() -> None:
    Path(os.environ["FORMS_FOUND"]).write_text("\n".join(found))
