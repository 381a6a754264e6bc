# SPDX-License-Identifier: Apache-2.0
"""The driver and the engine under sanitizers, with the same programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from instrumented import built
from test_driver_programs import SOURCES, build, environment, expected, run

pytestmark = [pytest.mark.sanitizers, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def tsan() -> Path:
    return built("tsan", "softgpu") / "lib" / "softgpu"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_address_and_undefined(name: str, tmp_path: Path, asan: Path) -> None:
    program = build(name, tmp_path, ("-fsanitize=address,undefined",), asan)
    # what lives as long as the process is not given back at its end
    done = run(program, environment(asan, ASAN_OPTIONS="detect_leaks=0"))
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == expected(name)


@pytest.mark.parametrize(
    "name", ["driver_threads", "driver_streams", "driver_host_functions", "driver_pools"]
)
def test_threads(name: str, tmp_path: Path, tsan: Path) -> None:
    program = build(name, tmp_path, ("-fsanitize=thread",), tsan)
    done = run(program, environment(tsan, BITFUSION_SOFTGPU_MEMORY="256M"))
    assert "ThreadSanitizer" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == expected(name)
