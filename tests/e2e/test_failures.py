# SPDX-License-Identifier: Apache-2.0
"""The driver fails at a call that a small program makes it do, for every such call in every place
between others that the program puts it in: the program sees an error or nothing of it, in good
order; nobody crashes, nobody hangs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

NULL = str(Path(__file__).resolve().parents[2] / "build" / "nulldriver" / "libcuda.so.1")
OPTIONS = ["-n", "1", "--driver", NULL]
PROGRAMS = {"steady": ["2"], "array_memory": [], "shared_memory": []}


def run(gpu: Any, programs: Path, how: str, name: str = "steady", **env: str) -> Any:
    program = [str(programs / name), *PROGRAMS[name]]
    return gpu.run(how, *program, options=OPTIONS, env={"BITFUSION_NULL_DRIVER": "1", **env})


def places(log: Path) -> List[int]:
    """Numbers of calls, one for each pair of a call and the one before it: loops repeat theirs.
    The first calls are made by several processes.
    """
    calls = [(int(n), name) for n, name in re.findall(r"call (\d+) \((\w+)\)", log.read_text())]
    names = dict(calls)
    chosen: Dict[Tuple[Optional[str], str], int] = {}
    for n in sorted(names):
        chosen.setdefault((names.get(n - 1), names[n]), n)
    return sorted({*range(1, 6), *chosen.values(), max(names)})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_call_may_fail(gpu: Any, programs: Path, tmp_path: Path, name: str) -> None:
    log = tmp_path / "calls"
    clean = run(gpu, programs, "unix", name, BITFUSION_NULL_CALLS=str(log))
    assert clean.returncode == 0, clean.stdout + clean.stderr
    statuses = []
    for n in places(log):
        done = run(gpu, programs, "unix", name, BITFUSION_NULL_FAIL="%d:999" % n)
        said = "call %d: status %d\n%s%s" % (n, done.returncode, done.stdout, done.stderr)
        assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, said
        if done.returncode == 0:
            assert done.stdout == clean.stdout, "a wrong result and no error: " + said
        else:
            assert re.search(r"CUDA_ERROR_\w+|bitfusion: ", done.stdout + done.stderr), said
        statuses.append(done.returncode)
    assert len(statuses) > 20 and 0 < statuses.count(0) < len(statuses), statuses


def test_no_failure(gpu: Any, programs: Path) -> None:
    done = run(gpu, programs, "tcp")
    assert (done.returncode, "done, last value" in done.stdout) == (0, True), (
        done.stdout + done.stderr
    )


def test_the_null_driver_refuses_by_itself(gpu: Any, programs: Path) -> None:
    """Without its variable nobody takes it for a GPU."""
    done = gpu.run("tcp", str(programs / "steady"), "1", options=OPTIONS)
    assert done.returncode != 0
    assert "done" not in done.stdout
