# SPDX-License-Identifier: Apache-2.0
"""What the tests of packages are about, each built once for all of a run: conftest.py has the
fixtures.

Libraries are those of `make` where programs run on them, and stand-ins where nobody looks into
them: those that a release has take minutes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Sequence

ROOT = Path(__file__).resolve().parents[2]
MACHINE = os.uname().machine
EPOCH = "1790000000"
LIBRARIES = {
    "client": ["libcuda.so.1", "libnvidia-ml.so.1", "libbitfusion-presence.so"],
    "server": ["libbfexecutor.so"],
    "softgpu": ["libcuda.so.1", "libnvidia-ml.so.1", "libbitfusion-compilers.so"],
}
Packages = Dict[str, Path]  # by the last part of their names: client, server


def check(command: Sequence[object], umask: int = -1, **more: object) -> str:
    """What it says; umask: of a builder with other habits."""
    words = [str(word) for word in command]
    if umask >= 0:
        more["preexec_fn"] = lambda: os.umask(umask) and None
    done = subprocess.run(words, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """folder/name as make(it) leaves it, whichever of this run's processes comes first."""
    target, marked = folder / name, folder / f"{name}.made"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marked.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            make(target)
            marked.touch()
    return target


def sources(folder: Path) -> Path:
    """A copy of the checkout as git sees it."""
    names = check(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT
    )
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # deleted ones are listed as well
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def stand_ins(folder: Path) -> Path:
    """Libraries in place of a release's."""
    source = folder.with_name(f"{folder.name}.c")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text('int nothing(void) { extern int puts(char *); return puts(""); }\n')
    for part, names in LIBRARIES.items():
        (folder / part).mkdir(parents=True)
        for name in names:
            words = ["cc", "-shared", "-fPIC", "-s", "-Wl,--build-id=none", f"-Wl,-soname,{name}"]
            check([*words, "-o", folder / part / name, source])
            if name == "libcuda.so.1":
                (folder / part / "libcuda.so").symlink_to(name)
    source.unlink()
    return folder


# ------------------------------------------ Python's


def build(kind: str, source: Path, target: Path, umask: int = 0o022, **more: str) -> Path:
    """kind: sdist, wheel or editable, by the standard's hook of that name."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **more}
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(target)!r})"
    target.mkdir(exist_ok=True)
    check([sys.executable, "-c", code], cwd=source, env=environment, umask=umask)
    (made,) = target.iterdir()
    return made


def unpack(sdist: Path, folder: Path) -> Path:
    shutil.unpack_archive(str(sdist), str(folder))
    (inside,) = folder.iterdir()
    return inside


def build_wheel(sdist: Path, folder: Path, umask: int = 0o022) -> Path:
    source = unpack(sdist, folder / "unpacked")
    libraries = {"BITFUSION_LIBRARIES": str(ROOT / "build/lib"), "BITFUSION_MACHINE": MACHINE}
    return build("wheel", source, folder / "wheel", umask, **libraries)


# ------------------------------------------ the distributions'


def build_debs(tree: Path, umask: int = 0o022, **more: str) -> Packages:
    """Out of a copy of the checkout, for this machine."""
    stand_ins(tree / "build/release" / MACHINE / "lib")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "DEB"))}
    check(["bitfusion/install/deb.sh", MACHINE], cwd=tree, env={**clean, **more}, umask=umask)
    folder = tree / "build/packages"
    return {part: folder / f"bitfusion-{part}.deb" for part in ("client", "server")}


def build_rpms(sdist: Path, folder: Path) -> Packages:
    shutil.copy(sdist, folder)
    words: List[object] = [ROOT / "rpm/build.sh", folder / sdist.name, MACHINE]
    libraries = stand_ins(folder / "lib")
    check([*words, libraries], env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    return {path.name.split("-")[1]: path for path in folder.glob("*.rpm")}


def remember(folder: Path, packages: Packages) -> None:
    """For the other processes of a run."""
    (folder / "packages").write_text(json.dumps({k: str(v) for k, v in packages.items()}))


def recall(folder: Path) -> Packages:
    return {k: Path(v) for k, v in json.loads((folder / "packages").read_text()).items()}
