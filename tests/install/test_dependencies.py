# SPDX-License-Identifier: Apache-2.0
"""What our Python imports from outside the standard library comes with every way to install it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Set

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPI = {"pynvml": "nvidia-ml-py"}  # where it is not the module's own name
OURS = {"bitfusion"}
LATER = {"tomllib", "compression"}  # the standard library's, from 3.11 and 3.14 on
BUILDS_ONLY = {"bitfusion/api"}  # makes generated files, out of NVIDIA's declarations


def imported() -> Set[str]:
    found = set()
    for path in (ROOT / "bitfusion").rglob("*.py"):
        if str(path.parent.relative_to(ROOT)) in BUILDS_ONLY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.skipif(sys.version_info < (3, 10), reason="does not apply: no list of modules")
def test_what_is_imported_is_brought() -> None:
    modules = imported() - set(sys.stdlib_module_names) - OURS - LATER
    assert modules >= {"h11", "packaging"}
    pinned = (ROOT / "tests/requirements/runtime.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    debian = (ROOT / "debian/control").read_text()
    rpm = (ROOT / "rpm/bitfusion.spec").read_text()
    for module in modules:
        name = PYPI.get(module, module)
        assert re.search(rf"^{name}==", pinned, re.M), f"runtime.txt lacks {name}"
        assert re.search(rf'"{name}>=', project), f"pyproject.toml lacks {name}"
        if module != "zstandard":  # there the C library is called
            assert f"python3-{module}" in debian, f"debian/control lacks {module}"
        if module not in ("zstandard", "pynvml"):  # which Enterprise Linux does not have
            assert f"python3-{module}" in rpm, f"bitfusion.spec lacks {module}"
