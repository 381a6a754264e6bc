# SPDX-License-Identifier: Apache-2.0
"""The version of images: a hash of all sources that decide what is in one.

Written into ``generated/`` for the engine, which refuses images of another version, and for the
front end, which keeps images under it in the cache. Computing it at run time would delay a
program's first load, so ``--check`` tells when the written one is stale.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import List

PACKAGE = Path(__file__).resolve().parents[1]
# What is not named here counts, so that a new source cannot be forgotten.
WITHOUT_EFFECT = {
    "engine/__init__.py",
    "engine/__main__.py",
    "engine/coverage.py",
    "engine/emit.py",
    "engine/version.py",
    "ptx/__init__.py",
    "ptx/__main__.py",
    "ptx/boot.py",
    "ptx/cache.py",
    "ptx/cubin.py",
    "ptx/dump.py",
    "ptx/helper.py",
    "ptx/key.py",
    "ptx/startup.py",
}


def sources(package: Path = PACKAGE) -> List[str]:
    """Name, relative to the package, the files that decide what an image holds."""
    found = [
        path.relative_to(package).as_posix()
        for folder in ("engine", "ptx")
        for path in (package / folder).glob("*.py")
    ]
    return sorted(set(found) - WITHOUT_EFFECT)


def image_version(package: Path = PACKAGE) -> int:
    """Hash the sources to 64 bits."""
    state = hashlib.sha256()
    for name in sources(package):
        data = (package / name).read_bytes()
        state.update(f"{name} {len(data)}\n".encode())
        state.update(data)
    return int.from_bytes(state.digest()[:8], "little")
