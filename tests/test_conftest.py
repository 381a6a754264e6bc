# SPDX-License-Identifier: Apache-2.0
"""Where CI=true nothing may be skipped for want of something; elsewhere it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no compiler")
def test_mark(): pass

def test_call(): pytest.skip("no library")

@pytest.fixture
def fixture(): pytest.skip("no GPU")

def test_setup(fixture): pass

def test_combination(): pytest.skip("does not apply: no such thing")

@pytest.mark.xfail
def test_xfail(): assert False

def test_fine(): pass
"""


def outcome(folder: Path, ci: str) -> str:
    for name in ("conftest.py", "waiting.py"):
        shutil.copy(Path(__file__).with_name(name), folder)
    (folder / "test_it.py").write_text(TESTS)
    (folder / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--continue-on-collection-errors",
    ]
    environment = {**os.environ, "CI": ci}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ci == "true":
        assert (
            "CI=true allows no skipped test: test_it.py::test_mark: Skipped: no com" in done.stdout
        )
    return done.stdout.splitlines()[-1].partition(" in ")[0]


@pytest.mark.parametrize(
    ("ci", "expected"),
    [
        ("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 3 errors"),
        ("", "1 passed, 5 skipped, 1 xfailed"),
    ],
)
def test_skips(tmp_path: Path, ci: str, expected: str) -> None:
    assert outcome(tmp_path, ci) == expected
