# SPDX-License-Identifier: Apache-2.0
"""The engine has a handler for each instruction twice: tests of instructions run on both."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from instrumented import built

CHOICE = "BITFUSION_SOFTGPU_CPU"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.startswith("test_ptx_exec_"):
        metafunc.fixturenames.append("handlers")
        metafunc.parametrize("handlers", ["v3", "baseline"], indirect=True)


@pytest.fixture(scope="session")
def asan() -> Path:
    """The software GPU under AddressSanitizer and UBSan."""
    return built("asan", "softgpu") / "lib" / "softgpu"


@pytest.fixture
def handlers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    from machine import LIBRARY

    wanted = str(request.param)
    monkeypatch.setenv(CHOICE, wanted)
    chosen = ctypes.CDLL(str(LIBRARY)).sg_handler_set
    chosen.restype = ctypes.c_char_p
    if wanted == "v3" and chosen() != b"v3":
        pytest.skip("does not apply: this CPU has no AVX2 and FMA, or is no x86-64")
    assert chosen() == wanted.encode()
    return wanted
