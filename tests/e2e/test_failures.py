# SPDX-License-Identifier: Apache-2.0
"""The driver fails at its n-th call, for every n that a small program makes it do: the program
sees an error or nothing of it, in good order; nobody crashes, nobody hangs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NULL = str(Path(__file__).resolve().parents[2] / "build" / "nulldriver" / "libcuda.so.1")
OPTIONS = ["-n", "1", "--driver", NULL]


PROGRAMS = {"steady": ["2"], "array_memory": [], "shared_memory": []}


def run(gpu: Any, programs: Path, how: str, fail: str, name: str = "steady") -> Any:
    env = {"BITFUSION_NULL_DRIVER": "1", "BITFUSION_NULL_FAIL": fail}
    return gpu.run(how, str(programs / name), *PROGRAMS[name], options=OPTIONS, env=env)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_call_may_fail(gpu: Any, programs: Path, name: str) -> None:
    passed = failed = 0
    clean = run(gpu, programs, "unix", "1000000", name)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    for n in range(1, 200):
        done = run(gpu, programs, "unix", "%d:999" % n, name)
        assert done.returncode in (0, 1, 2), "call %d: status %d\n%s" % (
            n,
            done.returncode,
            done.stderr,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 0:
            passed += 1
            assert done.stdout == clean.stdout, "call %d: a wrong result and no error" % n
        else:
            failed += 1
            said = done.stdout + done.stderr
            assert re.search(r"CUDA_ERROR_\w+|bitfusion: ", said), "call %d: %s" % (n, said)
        if passed >= 25 and failed:  # beyond the last call nothing fails any more
            return
    raise AssertionError("failures never end")


def test_no_failure(gpu: Any, programs: Path) -> None:
    done = run(gpu, programs, "tcp", "1000000")
    assert (done.returncode, "done, last value" in done.stdout) == (0, True), (
        done.stdout + done.stderr
    )


def test_the_null_driver_refuses_by_itself(gpu: Any, programs: Path) -> None:
    """Without its variable nobody takes it for a GPU."""
    done = gpu.run("tcp", str(programs / "steady"), "1", options=OPTIONS)
    assert done.returncode != 0
    assert "done" not in done.stdout
