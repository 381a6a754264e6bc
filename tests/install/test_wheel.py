# SPDX-License-Identifier: Apache-2.0
"""What pip installs: its contents, its bytes, that it runs wherever it is put, and leaves nothing.

The libraries here are those of `make`; `make wheel` takes the release's, and asks auditwheel.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Dict, Iterator, Set

import pytest
from artefacts import MACHINE, ROOT, build, build_wheel, check, sources, unpack

PROGRAM = Path(__file__).with_name("add_vectors.py")
SAID = "1000 sums on Bitfusion Software GPU: right\n"
INSIDE = {
    "bitfusion/lib/client/libbitfusion-presence.so",
    "bitfusion/lib/client/libcuda.so",
    "bitfusion/lib/client/libcuda.so.1",
    "bitfusion/lib/client/libnvidia-ml.so.1",
    "bitfusion/lib/server/libbfexecutor.so",
    "bitfusion/lib/softgpu/libcuda.so",
    "bitfusion/lib/softgpu/libcuda.so.1",
    "bitfusion/lib/softgpu/libbitfusion-compilers.so",
    "bitfusion/lib/softgpu/libnvidia-ml.so.1",
}

pytestmark = pytest.mark.slow


@pytest.fixture()
def home(tmp_path: Path) -> Iterator[Dict[str, str]]:
    """An environment with nothing of this one in it, but what is needed to find programs."""
    (tmp_path / "home").mkdir()
    yield {"HOME": str(tmp_path / "home"), "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}


def pip(*words: str, **more: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    check([*command, *words], **more)


def install(python: str, wheel: Path) -> None:
    """No index, no dependencies: newer Pythons need none, and this test no network."""
    pip("--python", python, "install", "--no-index", "--no-deps", str(wheel))


def make_venv(folder: Path) -> str:
    check([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    if sys.version_info < (3, 11):  # tomli, which pip would have fetched
        site = next(folder.glob("lib/python3*/site-packages"))
        (site / "ours.pth").write_text(next(path for path in sys.path if "site-packages" in path))
    return str(folder / "bin/python")


def files(folder: Path) -> Set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_wheel_holds_the_package_and_its_libraries(wheel: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}.whl")
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    code = {name for name in modes if ".dist-info/" not in name}
    assert {name for name in code if not name.endswith(".py")} == INSIDE
    assert {"bitfusion/cli.py", "bitfusion/softgpu/ptx/helper.py"} < code
    assert not any(name.startswith("bitfusion/api/") for name in code)
    wrong = {n: oct(m) for n, m in modes.items() if m & 0o777 != (0o755 if n in INSIDE else 0o644)}
    assert {n: m for n, m in wrong.items() if not n.endswith("/RECORD")} == {}


def test_every_source_file_is_in_the_sdist(sdist: Path, tmp_path: Path) -> None:
    inside = files(unpack(sdist, tmp_path))
    known = check(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    wanted = {name for name in known if (ROOT / name).is_file() and not name.startswith(".")}
    assert wanted - inside == set()
    assert not {name for name in inside if name.startswith("build") or "__pycache__" in name}


@pytest.mark.packages
def test_two_builds_give_the_same_bytes(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """In other folders, at another time, by somebody with other habits."""
    again = sources(tmp_path / "elsewhere/checkout")
    for path in again.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
        path.chmod(path.stat().st_mode & 0o700)
    other = build("sdist", again, tmp_path / "sdist", 0o077)
    assert other.read_bytes() == sdist.read_bytes()
    assert build_wheel(other, tmp_path, 0o077).read_bytes() == wheel.read_bytes()


def test_installs_runs_and_leaves_nothing(
    wheel: Path, tmp_path: Path, home: Dict[str, str]
) -> None:
    """Below a folder that no list of libraries can hold, beside a module that hides another."""
    folder = tmp_path / "my programs"
    python = make_venv(folder)
    next(folder.glob("lib/python3*/site-packages")).joinpath("typing.py").write_text(
        "raise Hidden"
    )
    before = files(folder)
    install(python, wheel)
    bitfusion = str(folder / "bin/bitfusion")
    assert check([bitfusion, "run", "-n", "1", "--", python, str(PROGRAM)], env=home) == SAID
    assert check([bitfusion, "softgpu", "--", python, str(PROGRAM)], env=home) == SAID
    assert check([python, "-m", "bitfusion", "version"], env=home).startswith("bitfusion ")
    link = "import ctypes; print(ctypes.CDLL('libcuda.so').cuInit(0))"
    for verb in (["run", "-n", "1"], ["softgpu"]):
        assert check([bitfusion, *verb, "--", python, "-c", link], env=home) == "0\n"
    pip("--python", python, "uninstall", "--yes", "bitfusion")
    assert files(folder) == before


def test_runs_where_a_user_installs_it(wheel: Path, tmp_path: Path, home: Dict[str, str]) -> None:
    """As `pip install --user` does, for the Python of the system."""
    base = tmp_path / "base"
    words = ["install", "--user", "--no-index", "--no-deps", "--no-warn-script-location"]
    real = os.path.realpath(sys.executable)
    pip("--python", real, *words, "--break-system-packages", str(wheel),
        env={**home, "PYTHONUSERBASE": str(base), "PIP_NO_COMPILE": "1"})  # fmt: skip
    user = {**home, "PYTHONUSERBASE": str(base)}
    words = [str(base / "bin/bitfusion"), "run", "-n", "1", "--", real, str(PROGRAM)]
    assert check(words, env=user) == SAID


def test_editable_uses_the_checkouts_libraries(tmp_path: Path, home: Dict[str, str]) -> None:
    checkout = sources(tmp_path / "checkout")
    wheel = build("editable", checkout, tmp_path / "wheel")
    (checkout / "build").mkdir(exist_ok=True)
    (checkout / "build/lib").symlink_to(ROOT / "build/lib")
    python = make_venv(tmp_path / "venv")
    install(python, wheel)
    code = "from bitfusion import paths; print(paths.library_folder())"
    found = check([python, "-c", code], cwd=tmp_path, env=home).strip()
    assert found == str(checkout / "build/lib")
    assert check([python, "-m", "bitfusion", "run", "-n", "1", "--", python, str(PROGRAM)],
                 cwd=tmp_path, env=home) == SAID  # fmt: skip
