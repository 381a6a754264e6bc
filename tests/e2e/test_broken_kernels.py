# SPDX-License-Identifier: Apache-2.0
"""A kernel that the software GPU cannot compile, or cannot run, is an error that nobody misses,
and one line that names the kernel and the cause: also when what compiles it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from waiting import wait_for

WAYS = ["direct", "tcp", "unix"]
LAUNCH = "launch(library, name): "
SYNCHRONIZE = "cuCtxSynchronize(): "


class Compiler:
    """A script in Python's place: notes each start, and from `working` starts on does `then`."""

    def __init__(self, folder: Path, working: int, then: str = "exit 1") -> None:
        self.pids = folder / "pids"
        self.pids.write_text("")
        self.script = folder / "python"
        self.script.write_text(
            "#!/bin/sh\n"
            f'echo $$ >> "{self.pids}"\n'
            f'[ $(wc -l < "{self.pids}") -le {working} ] || {then}\n'
            f'exec "{sys.executable}" "$@"\n'
        )
        self.script.chmod(0o755)

    def started(self) -> List[int]:
        return [int(line) for line in self.pids.read_text().split()]

    def kill(self) -> None:
        """Ends the one that was started with the context, and waits until it is gone."""
        assert wait_for(self.started)
        pid = self.started()[-1]
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def run(gpu: Any, how: str, programs: Path, compiler: Any, kill: bool) -> Any:
    """Runs the program's good kernel, where its compiler is killed before it is needed."""
    env = gpu.environment(BITFUSION_CACHE="off", BITFUSION_PYTHON=str(compiler))
    if isinstance(compiler, Compiler):
        env["BITFUSION_PYTHON"] = str(compiler.script)
    program = subprocess.Popen(
        gpu.command(how, [str(programs / "driver_broken_kernel"), "good"]),
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout and program.stdout.readline() == "ready\n"
    if kill:
        compiler.kill()
    out, err = program.communicate("\n", timeout=100)
    return subprocess.CompletedProcess([], program.returncode, out, err)


def is_loud(done: Any, cause: str) -> None:
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        LAUNCH + "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
        SYNCHRONIZE + "CUDA_ERROR_LAUNCH_FAILED",
    ]
    assert "total" not in done.stdout.split("line ")[0]
    said = [line for line in done.stderr.splitlines() if "'good'" in line]
    assert said == [f"bitfusion softgpu: cannot load kernel 'good': {cause}"]


@pytest.mark.parametrize("how", WAYS)
def test_each_broken_kernel_is_told_in_one_line(gpu: Any, programs: Path, how: str) -> None:
    done = gpu.run(how, str(programs / "driver_broken_kernel"))
    lines = [line for line in done.stderr.splitlines() if "softgpu" in line]
    assert [line.count("kernel 'broken': line ") for line in lines] == [1, 0, 1], done.stderr
    assert "kernel 'unknown'" in lines[1] and "tensormap.replace" in lines[1]


@pytest.mark.parametrize("how", WAYS)
def test_a_killed_compiler_is_started_again(
    gpu: Any, programs: Path, how: str, tmp_path: Path
) -> None:
    compiler = Compiler(tmp_path, working=2)
    done = run(gpu, how, programs, compiler, kill=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "total: 42"), done.stderr
    assert len(compiler.started()) == 2


@pytest.mark.parametrize("how", WAYS)
def test_a_compiler_that_cannot_be_started_again(
    gpu: Any, programs: Path, how: str, tmp_path: Path
) -> None:
    compiler = Compiler(tmp_path, working=1)
    done = run(gpu, how, programs, compiler, kill=True)
    is_loud(done, "the PTX front end ended unexpectedly, twice")


@pytest.mark.parametrize("how", WAYS)
def test_a_compiler_that_ends_at_each_request(
    gpu: Any, programs: Path, how: str, tmp_path: Path
) -> None:
    compiler = Compiler(tmp_path, working=0, then="{ head -c 16 <&3 >/dev/null; kill -9 $$; }")
    done = run(gpu, how, programs, compiler, kill=False)
    is_loud(done, "the PTX front end ended unexpectedly, twice")


@pytest.mark.parametrize("how", WAYS)
def test_no_compiler(gpu: Any, programs: Path, how: str) -> None:
    done = run(gpu, how, programs, "/no/such/python", kill=False)
    is_loud(done, "cannot start the PTX front end: No such file or directory")
