# SPDX-License-Identifier: Apache-2.0
"""Workers under sanitizers, on the fake driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from executor_builds import (
    FAKE_DRIVER,
    FLAGS,
    OUT,
    SANE,
    build,
    check_reports,
    forget_reports,
    program,
)
from wire_client import Worker

from bitfusion.executor import core


@pytest.fixture(scope="session")
def fake_driver() -> Path:
    return build(OUT / "fake/libcuda.so.1", FAKE_DRIVER, "-shared")


@pytest.fixture(scope="session")
def asan_program() -> Path:
    return program("asan", "serve")


@pytest.fixture(scope="session")
def tsan_driver() -> Path:
    target = OUT / "fake_tsan/libcuda.so.1"
    return build(target, FAKE_DRIVER, "-shared", *FLAGS["tsan"])


@pytest.fixture(scope="session")
def tsan_program() -> Path:
    return program("tsan", "serve")


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[core.Ledger]:
    """A session's memory, with the limits and slots that the file's LEDGER says."""
    limits, slots = request.module.LEDGER
    made = core.Ledger.create(limits, slots=slots)
    yield made
    made.close()


@pytest.fixture
def serve(asan_program: Path, fake_driver: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker under ASan and UBSan on the fake driver; every one is ended with the test."""
    workers: List[Worker] = []

    def start(hello: bool = True, program: Path = asan_program, **options: Any) -> Worker:
        environment: Dict[str, str] = {**SANE, **options.pop("environment", {})}
        driver = options.pop("driver", fake_driver)
        worker = Worker(driver, program=program, environment=environment, **options)
        workers.append(worker)
        if hello:
            assert worker.client.hello() == (0, "")
        return worker

    forget_reports()
    yield start
    for worker in workers:
        worker.__exit__()
    check_reports()
