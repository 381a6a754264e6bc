# SPDX-License-Identifier: Apache-2.0
"""The runner of frameworks itself: it fails where something differs, and says so in its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import run


def results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, is_suite: bool = False
) -> int:
    """Run a script as a framework; it is told the way by its first arguments."""
    program = tmp_path / "program.py"
    program.write_text(script, encoding="utf-8")
    framework = run.Framework("none", str(program), ("pytest",), is_suite)
    monkeypatch.setattr(run, "FRAMEWORKS", {"tiny": framework})
    monkeypatch.setattr(run, "HOW", {way: ["env", "WAY=" + way] for way in run.WAYS})
    monkeypatch.setattr(run, "python_of", lambda framework: sys.executable)
    monkeypatch.setattr(sys, "argv", ["run.py", "tiny"])
    return run.main()


def test_both_ways_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results(monkeypatch, tmp_path, "print('right')") == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert table[0].startswith("tiny         pytest ")
    assert [line.split()[1] for line in table[1:]] == ["direct", "tcp"]
    assert all(line.endswith("agrees with the CPU") for line in table[1:])


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; print(os.environ['WAY'])", "PRINTS other things than directly"),
        ("import os; assert os.environ['WAY'] == 'direct'", "FAILED with status 1"),
    ],
)
def test_one_way_differs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: str,
    said: str,
) -> None:
    assert results(monkeypatch, tmp_path, script) == 1
    assert capsys.readouterr().out.rstrip().endswith(said)


def test_a_suite_fails_one_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results(monkeypatch, tmp_path, "import sys; sys.exit('tcp' in sys.argv)", True) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[-2].endswith("  as expected") and table[-1].endswith("NOT as expected")


def test_an_unknown_framework_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "torch"])
    with pytest.raises(SystemExit):
        run.main()
    assert "no framework is called 'torch'" in capsys.readouterr().err
