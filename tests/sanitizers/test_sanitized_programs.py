# SPDX-License-Identifier: Apache-2.0
"""The programs through `bitfusion run` on an instrumented proxy and executor: they say the same as
without us, and the sanitizers say nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Tuple

import pytest
from instrumented import ROOT, Reports, program, proxy_environment, worker_environment

SOURCES = ROOT / "tests" / "programs"
PROGRAMS = sorted(path.stem for path in SOURCES.glob("*.c") if path.stem != "demo_mandelbrot")
ARGUMENTS = {"steady": ["20"]}
# Each of these does something of its own with threads, copies or memory; the others take their
# turn in `make test-sanitizers`.
ALWAYS = {
    "asan": {
        ("driver_both_sides", "unix"),
        ("driver_copies", "unix"),
        ("driver_errors", "unix"),
        ("driver_fork", "unix"),
        ("driver_managed_variables", "tcp"),
        ("driver_modules", "tcp"),
        ("driver_shared_edges", "tcp"),
        ("driver_threads", "tcp"),
        ("graph_capture", "unix"),
        ("graph_functions", "tcp"),
    },
    "tsan": {
        ("driver_both_sides", "tcp"),
        ("driver_host_functions", "unix"),
        ("driver_busy_threads", "tcp"),
        ("driver_busy_threads", "unix"),
        ("driver_fork", "tcp"),
        ("driver_managed_variables", "tcp"),
        ("driver_shared_edges", "unix"),
        ("driver_streams", "unix"),
        ("driver_threads", "tcp"),
        ("graph_functions", "tcp"),
        ("late_copies", "tcp"),
    },
}


def cases(kind: str) -> List[Any]:
    known = [(name, how) for name in PROGRAMS for how in ("tcp", "unix")]
    assert set(known) >= ALWAYS[kind]
    return [
        pytest.param(*case, marks=[] if case in ALWAYS[kind] else pytest.mark.sanitizers)
        for case in known
    ]


@pytest.fixture
def asan_words(asan_build: Path, name: str) -> Tuple[str, ...]:
    return (str(program("asan", name)), *ARGUMENTS.get(name, []))


@pytest.fixture
def tsan_words(tsan_build: Path, name: str) -> Tuple[str, ...]:
    return (str(program("tsan", name)), *ARGUMENTS.get(name, []))


def direct(gpu: Any, programs: Path, name: str) -> str:
    done = gpu.run("direct", str(programs / name), *ARGUMENTS.get(name, []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    return str(done.stdout)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, how", cases("asan"))
def test_address_and_undefined(
    gpu: Any,
    programs: Path,
    tmp_path: Path,
    reports: Reports,
    asan_words: Tuple[str, ...],
    name: str,
    how: str,
) -> None:
    """Proxy, executor, program; the server and its workers are Python with the runtime loaded."""
    environment = worker_environment(tmp_path, "asan", reports)
    done = gpu.run(how, *asan_words, env=environment)
    reports.check()
    assert (done.returncode, done.stdout) == (0, direct(gpu, programs, name)), done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, how", cases("tsan"))
def test_threads(
    gpu: Any,
    programs: Path,
    tmp_path: Path,
    reports: Reports,
    tsan_words: Tuple[str, ...],
    name: str,
    how: str,
) -> None:
    """Proxy and program; test_sanitized_worker.py has the executor."""
    environment = proxy_environment(tmp_path, "tsan", reports)
    done = gpu.run(how, *tsan_words, env=environment)
    reports.check()
    assert (done.returncode, done.stdout) == (0, direct(gpu, programs, name)), done.stderr


OVERRUN = """
#include "cuda.h"
#include <stdlib.h>
int main(void)
{
	CUcontext context;
	CUdeviceptr memory;
	void *host = malloc(100);
	cuInit(0);
	cuDevicePrimaryCtxRetain(&context, 0);
	cuCtxSetCurrent(context);
	cuMemAlloc_v2(&memory, 1000);
	cuMemcpyHtoD_v2(memory, host, 1000);
	return 0;
}
"""


def test_an_overrun_in_the_proxy_is_seen(gpu: Any, asan_build: Path, tmp_path: Path) -> None:
    """These tests can fail."""
    folder = tmp_path / "reports"
    folder.mkdir()
    reports = Reports(folder)
    (tmp_path / "overrun.c").write_text(OVERRUN)
    overrun = program("asan", tmp_path / "overrun.c")
    environment = worker_environment(tmp_path, "asan", reports)
    done = gpu.run("unix", str(overrun), env=environment)
    assert done.returncode == 99
    assert any("heap-buffer-overflow" in text for text in reports.texts())
    assert any("bf_queue_end_with_bulk" in text for text in reports.texts())


@pytest.mark.parametrize("name", ["steady"])
def test_the_worker_runs_instrumented(
    gpu: Any, asan_build: Path, tmp_path: Path, reports: Reports, asan_words: Tuple[str, ...]
) -> None:
    environment = worker_environment(tmp_path, "asan", reports)
    name = str(asan_build / "lib/server/libbfexecutor.so")
    running = gpu.start("tcp", asan_words[0], **environment)
    try:
        assert running.stdout.readline() == "ready\n"
        maps = []
        for pid in gpu.processes():
            try:
                maps.append(Path("/proc/%d/maps" % pid).read_text())
            except OSError:
                continue
        serving = [text for text in maps if name in text and "/softgpu/libcuda.so.1" in text]
        assert serving and all("libasan" in text for text in serving)
    finally:
        running.terminate()
        running.communicate(timeout=100)
