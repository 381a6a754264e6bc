# SPDX-License-Identifier: Apache-2.0
"""Packages of each kind, built once in a run, also where several processes share it."""

from __future__ import annotations

import os
from pathlib import Path

import artefacts
import pytest
from artefacts import Packages


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the whole run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def sdist(shared: Path) -> Path:
    def make(folder: Path) -> None:
        artefacts.build("sdist", artefacts.sources(folder / "checkout"), folder / "sdist")

    (made,) = (artefacts.once(shared, "sdist", make) / "sdist").iterdir()
    return made


@pytest.fixture(scope="session")
def wheel(sdist: Path, shared: Path) -> Path:
    folder = artefacts.once(shared, "wheel", lambda folder: artefacts.build_wheel(sdist, folder))
    (made,) = (folder / "wheel").iterdir()
    return made


@pytest.fixture(scope="session")
def debs(shared: Path) -> Packages:
    def make(folder: Path) -> None:
        artefacts.remember(folder, artefacts.build_debs(artefacts.sources(folder / "tree")))

    return artefacts.recall(artefacts.once(shared, "debs", make))


@pytest.fixture(scope="session")
def rpms(sdist: Path, shared: Path) -> Packages:
    def make(folder: Path) -> None:
        artefacts.remember(folder, artefacts.build_rpms(sdist, folder))

    return artefacts.recall(artefacts.once(shared, "rpms", make))
