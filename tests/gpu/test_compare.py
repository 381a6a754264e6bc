# SPDX-License-Identifier: Apache-2.0
"""What `make gpu-test` makes of its programs, on machines without a GPU."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List, Sequence

import compare
import pytest
from compare import Job, Runner

BUILD = Path(__file__).resolve().parents[2] / "build"


class Shells(Runner):
    """Has no server: through it a program finds THROUGH=1 in its environment."""

    def command(self, job: Job, through: bool) -> List[str]:
        return [*(["env", "THROUGH=1"] if through else []), *job.command]


def runner(seconds: float = 60) -> Runner:
    return Shells("", "tcp", time.time() + seconds)


def shell(script: str, **options: Any) -> Job:
    return Job("job", ["sh", "-c", script], **options)


THROUGH = '[ -z "$THROUGH" ] || '


def test_figures_are_taken_out() -> None:
    text, figures = compare.split_figures(
        'one\nFIGURE steps/s 12.5\n{"metric": "launch", "unit": "us", "median": 3.0}\ntwo'
    )
    assert text == "one\ntwo"
    assert figures == {"steps/s": 12.5, "launch us": 3.0}


@pytest.mark.parametrize(
    "job, status, good",
    [
        (shell("echo one; echo FIGURE x $$"), "same", True),
        (shell("echo one", partial="0.5"), "same", True),
        (shell("echo driver $$; echo one", unstable="driver"), "same", True),
        (shell("echo driver $$; echo one"), "DIFFERENT", False),
        (shell("echo one$THROUGH"), "DIFFERENT", False),
        (shell("echo one; exit 3"), "direct status 3: one", False),
        (shell(THROUGH + "exit 4"), "through status 4: (no output)", False),
        # what an unstable line hides is not the status
        (
            shell("echo driver; " + THROUGH + "exit 5", unstable="driver"),
            "through status 5",
            False,
        ),
        (shell(THROUGH + "kill -SEGV $$"), "through status -11", False),
        (shell(THROUGH + "sleep 60", limit_s=1.2), "through timed out", False),
        # of two at once one fails: the one that makes the folder
        (
            shell(THROUGH + "if mkdir $FOLDER/at; then exit 6; fi", partial="0.5"),
            "through status 6",
            False,
        ),
        (Job("job", [], missing="not built: why"), "not built: why", False),
        (Job("job", [], left_out="no nvcc here"), "left out: no nvcc here", True),
    ],
)
def test_verdicts(
    job: Job, status: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    outcome = compare.do(runner(), job)
    assert outcome.status.startswith(status), outcome.status
    assert outcome.good == good


def test_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.do(runner(0.5), shell("true")).status == "direct timed out: no time left"


def test_every_failure_has_a_row_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    bad = Job("absent", [], missing="not built: see the log")
    assert compare.run_all(runner(), [shell("echo one"), bad]) == 1
    said = capsys.readouterr().out
    assert "absent                   not built" in said
    assert said.rstrip().endswith("1 of 2 the same")
    assert compare.run_all(runner(), [shell("echo one")]) == 0
    assert compare.run_all(runner(), []) == 1


def names(chosen: Sequence[Job], field: str) -> List[str]:
    return [job.name for job in chosen if getattr(job, field)]


def test_programs_that_were_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "BUILD", tmp_path)
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "reduce").touch()
    with_nvcc, without = compare.jobs("/bin/nvcc"), compare.jobs("")
    assert {"nvcc clusters", "nvcc relocatable", "steady"} <= set(names(with_nvcc, "missing"))
    assert "nvcc clusters" in names(without, "left_out")
    assert "nvcc reduce" in [job.name for job in with_nvcc]
    assert "nvcc reduce" not in names(with_nvcc, "missing") + names(without, "left_out")


def run_compare(*words: str, libraries: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BITFUSION_")}
    return subprocess.run(
        [sys.executable, str(Path(compare.__file__)), *words],
        env={**kept, "LD_LIBRARY_PATH": str(libraries), "BITFUSION_SOFTGPU_GPUS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_no_gpu_is_one_line() -> None:
    """The null driver is none either, unless it is asked to be."""
    done = run_compare(libraries=BUILD / "nulldriver")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("gpu-test: no GPU here: "), done.stderr
    assert not done.stdout


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    done = run_compare("--driver", str(tmp_path / "libcuda.so.1"), libraries=tmp_path)
    assert done.returncode == 1
    assert "gpu-test: the server did not start: " in done.stderr


@pytest.mark.slow
def test_on_the_software_gpu(programs: Path, tmp_path: Path) -> None:
    """All of it, with another driver: a program alone, and two at once on halves."""
    config = tmp_path / "config.toml"
    # this driver starts Python, which may be where only we can read it
    config.write_text('[server]\nworker_user = "%s"\n' % pwd.getpwuid(os.getuid()).pw_name)
    driver = str(BUILD / "lib" / "softgpu" / "libcuda.so.1")
    words = ("--driver", driver, "--only", "steady", "--config", str(config))
    done = run_compare(*words, libraries=BUILD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "steady twice" in done.stdout
    assert done.stdout.rstrip().endswith("gpu-test: 2 of 2 the same"), done.stdout
