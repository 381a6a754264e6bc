# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, while other runs look for leftovers."""

from __future__ import annotations

import fcntl
import os
import pathlib
from typing import Any

import pytest

from bitfusion.client import folder


@pytest.fixture()
def base(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(folder.paths, "MAX_RUNTIME_BASE", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return folder.private_base()


@pytest.mark.parametrize("place", ["os.mkdir", "os.open", "fcntl.flock", "os.fstat"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_another_run_looks_while_it_is_made(
    base: str, monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    """What it has not locked yet looks like a leftover."""
    module, name = {"os": os, "fcntl": fcntl}[place.partition(".")[0]], place.partition(".")[2]
    plain = getattr(module, name)
    looked = 0

    def intrude() -> None:
        nonlocal looked
        monkeypatch.setattr(module, name, plain)
        folder.remove_leftovers(base)
        looked += 1

    def call(*words: Any, **more: Any) -> Any:
        if when == "before":
            intrude()
        result = plain(*words, **more)
        if when == "after":
            intrude()
        return result

    monkeypatch.setattr(module, name, call)
    made = folder.RunFolder()
    assert looked == 1
    folder.remove_leftovers(base)
    with open(made.socket, "w"):
        pass
    made.remove()
    assert os.listdir(base) == []


def test_what_a_killed_run_left_is_removed_at_every_stage(base: str) -> None:
    for files in ([], [folder.LOCK], [folder.LOCK, folder.SOCKET], [folder.SOCKET]):
        path = os.path.join(base, "run-" + "-".join(files))
        os.mkdir(path)
        for name in files:
            with open(os.path.join(path, name), "w"):
                pass
    folder.remove_leftovers(base)
    assert os.listdir(base) == []


def test_links_to_libraries_that_are_gone_are_removed(base: str, tmp_path: pathlib.Path) -> None:
    kept, gone = (os.path.join(base, folder.LIBRARIES + name) for name in ("kept", "gone"))
    os.symlink(tmp_path, kept)
    os.symlink(tmp_path / "uninstalled", gone)
    folder.remove_leftovers(base)
    assert os.listdir(base) == [os.path.basename(kept)]
