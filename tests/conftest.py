# SPDX-License-Identifier: Apache-2.0
"""What tests of several areas share: where things are, and running a program on a GPU of ours.

A test that uses `gpu` gets a callable: gpu.run(how, program...) with how one of `direct` (the
software GPU without us in between), `tcp` and `unix` (through `bitfusion run`). Every process
started carries a mark in its environment, and the fixture fails the test when one is still there
at the end.

Where CI=true, a test that is skipped because this machine lacks something fails: CI installs all
that the tests need, and what nobody runs proves nothing. A skip that has nothing to do with the
machine, such as of a combination that makes no sense, gives a reason that begins with
"does not apply: ".
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Generator, Iterator, List, Optional, Sequence, Union

import pytest
from waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
BITFUSION = str(ROOT / "bin" / "bitfusion")
MARK = "BITFUSION_TEST_MARK"
sys.path.insert(0, str(ROOT))
# What workers are to have of the tests' environment.
WORKERS = f"{MARK},TEST_MARK,BITFUSION_NULL_*,FAKE_*,ASAN_OPTIONS,TSAN_OPTIONS,UBSAN_OPTIONS"
os.environ["BITFUSION_WORKER_ENVIRONMENT"] = WORKERS
DOES_NOT_APPLY = "does not apply: "


# Programs inherit what is ignored, as by nohup and in scripts' background; tests send these.
for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        usual = signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL
        signal.signal(ignored, usual)


def _fail_where_nothing_may_be_missing(
    report: Union[pytest.TestReport, pytest.CollectReport],
) -> None:
    expected = hasattr(report, "wasxfail") or DOES_NOT_APPLY in str(report.longrepr)
    if os.environ.get("CI") == "true" and report.skipped and not expected:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI=true allows no skipped test: {report.nodeid}: {why}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    outcome = yield
    _fail_where_nothing_may_be_missing(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, None]:
    outcome = yield
    _fail_where_nothing_may_be_missing(outcome.get_result())


def _marked(value: str) -> List[int]:
    """Processes with the mark in their environment; zombies have none."""
    found = []
    wanted = ("%s=%s" % (MARK, value)).encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@dataclass
class Gpu:
    """Runs programs on the software GPU (or another driver), directly and through Bitfusion."""

    mark: str
    folder: Path
    timeout: float = 250
    devices: int = 1

    def environment(self, **extra: str) -> Dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BITFUSION_", "CUDA_"))}
        kept.pop("LD_PRELOAD", None)
        kept.update({MARK: self.mark, "HOME": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"})
        kept["XDG_CACHE_HOME"] = str(BUILD / "test-cache")
        kept["BITFUSION_WORKER_ENVIRONMENT"] = WORKERS
        kept["BITFUSION_SOFTGPU_GPUS"] = str(self.devices)
        kept["BITFUSION_STATE_DIR"] = str(self.folder / "state")  # not the machine's own, for root
        kept.update(extra)
        return kept

    def command(self, how: str, program: Sequence[str], options: Sequence[str] = ()) -> List[str]:
        if how == "direct":
            return [BITFUSION, "softgpu", "--gpus", str(self.devices), "--", *program]
        count = [] if "-n" in options else ["-n", "1"]
        return [BITFUSION, "run", *count, "--transport", how, *options, "--", *program]

    def run(
        self,
        how: str,
        *program: str,
        options: Sequence[str] = (),
        env: Optional[Dict[str, str]] = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(how, program, options),
            env=self.environment(**(env or {})),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )

    def start(
        self, how: str, *program: str, options: Sequence[str] = (), **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(how, program, options),
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bitfusion(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BITFUSION, *words],
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )

    def processes(self) -> List[int]:
        return _marked(self.mark)

    def wait_until_gone(self, seconds: float = 60) -> List[int]:
        """Processes of this test that are still there after that long."""
        wait_for(lambda: not self.processes(), seconds)
        return self.processes()


def describe(pid: int) -> str:
    try:
        return Path("/proc/%d/cmdline" % pid).read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "?"


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[Gpu]:
    helper = Gpu(uuid.uuid4().hex, tmp_path)
    yield helper
    left = helper.wait_until_gone()
    names = ["%d %s" % (pid, describe(pid)) for pid in left]
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert not names, "left behind: %s" % "; ".join(names)


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of compiled test programs."""
    return BUILD / "programs"
