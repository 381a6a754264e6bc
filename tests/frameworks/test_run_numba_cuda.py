# SPDX-License-Identifier: Apache-2.0
"""What is made of the outcomes of numba-cuda's tests, and which tests of a module are run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest
import run_numba_cuda
from run_numba_cuda import Entry, compare

LISTED = "# why\n\nm.T.known: a reason: with a colon\nm.T.shared: needs several processes\n"


@pytest.fixture(autouse=True)
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text(LISTED)
    monkeypatch.setattr(run_numba_cuda, "EXPLAINED", tmp_path / "list.txt")


def entries(**outcomes: str) -> List[Entry]:
    return [
        {"test": f"m.T.{name}", "outcome": outcome, "seconds": 1, "text": "first\nlast\n"}
        for name, outcome in outcomes.items()
    ]


def test_what_is_explained_is_no_failure() -> None:
    found = entries(known="failed", shared="failed", good="passed", other="passed", no="skipped")
    assert compare(found, "tcp", True) == (
        "tcp: 2 of 4 (50.0 %) passed, 2 failed as explained, 0 failed otherwise, 1 skipped; "
        "without those that need several processes: 2 of 3 (66.7 %)",
        0,
    )


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ({"new": "failed"}, "tcp: FAILED, NOT EXPLAINED: m.T.new: last"),
        ({"known": "passed"}, "tcp: PASSED, although it is called a failure: m.T.known"),
    ],
)
def test_what_is_not_as_listed(
    outcomes: Dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = entries(**{"known": "failed", "shared": "failed", **outcomes})
    assert compare(found, "tcp", True)[1] == 1
    assert said in capsys.readouterr().out


def test_a_listed_test_that_is_gone() -> None:
    assert compare(entries(known="failed"), "tcp", True)[1] == 1
    assert compare(entries(known="failed"), "tcp", False)[1] == 0


MODULE = """
import unittest
from os.path import join as test_of_another_module

class T(unittest.TestCase):
    def test_good(self):
        pass
    def test_bad(self):
        self.fail("so")
    @unittest.skip("why")
    def test_not(self):
        pass

def test_alone():
    assert T
"""


LATE = """
import subprocess, sys, unittest
from pathlib import Path

TRIES = Path(__file__).with_name("tries")

class T(unittest.TestCase):
    def test_first_late(self):
        TRIES.open("a").write("x")
        if len(TRIES.read_text()) == 1:
            raise subprocess.TimeoutExpired("program", 30)
    def test_never_in_time(self):
        TRIES.open("a").write("y")
        raise subprocess.TimeoutExpired("program", 30)
    def test_wrong(self):
        TRIES.open("a").write("z")
        self.fail("TimeoutExpired is not all")
"""


def test_what_ran_out_of_its_time_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_tests.py").write_text(LATE)
    monkeypatch.setitem(run_numba_cuda.HOW, "here", ["env", f"PYTHONPATH={tmp_path}"])
    monkeypatch.setattr(run_numba_cuda, "modules", lambda _pattern: ["late_tests"])
    options = argparse.Namespace(timeout=100, resume=False, jobs=1, only="")
    found = run_numba_cuda.run_all("here", options, tmp_path / "results")
    assert {e["test"].rpartition(".")[2]: e["outcome"] for e in found} == {
        "test_first_late": "passed",
        "test_never_in_time": "failed",
        "test_wrong": "failed",
    }
    assert (tmp_path / "tries").read_text() == "xyzxy"


def run_worker(folder: Path, *left_out: str) -> List[Entry]:
    worker = Path(run_numba_cuda.__file__).parent / "unittest_worker.py"
    results = folder / "results"
    results.write_text("")
    command = [sys.executable, str(worker), str(results), "some_tests", *left_out]
    subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, check=True)
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_the_worker_stops_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "some_tests.py").write_text(MODULE)
    first = run_worker(tmp_path)
    assert [(e["test"], e["outcome"]) for e in first if "test" in e] == [
        ("some_tests.T.test_bad", "failed")
    ]
    assert not any("end" in e for e in first)
    rest = run_worker(tmp_path, "some_tests.T.test_bad")
    assert [(e["test"], e["outcome"]) for e in rest if "test" in e] == [
        ("some_tests.T.test_good", "passed"),
        ("some_tests.T.test_not", "skipped"),
        ("some_tests.test_alone", "passed"),
    ]
    assert rest[-1] == {"end": "some_tests"}
