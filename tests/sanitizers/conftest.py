# SPDX-License-Identifier: Apache-2.0
"""Running programs on instrumented libraries of ours, and reading what the sanitizers found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from instrumented import Reports, built


@pytest.fixture
def gpu(gpu: Any) -> Any:
    """With patience for programs whose every access of memory is a call, on a busy machine."""
    gpu.timeout = 400
    return gpu


@pytest.fixture(scope="session")
def asan_build() -> Path:
    return built("asan", "proxy", "executor", "nulldriver")


@pytest.fixture(scope="session")
def tsan_build() -> Path:
    return built("tsan", "proxy", "nulldriver")


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Reports]:
    """The test fails when a process that was told of it reports something."""
    folder = tmp_path / "reports"
    folder.mkdir(mode=0o777)
    found = Reports(folder)
    yield found
    found.check()
