# SPDX-License-Identifier: Apache-2.0
"""Each built libcuda.so.1 exports exactly what the spec says, and looks it up as the spec says.

Loading and looking up must work without a server: programs do both long before cuInit.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
from api_helpers import ROOT

from bitfusion.api import ctypes_driver

BUILD = Path(os.environ.get("BITFUSION_BUILD", str(ROOT / "build")))
LIBRARIES = {
    "client": (BUILD / "lib" / "client", ROOT / "bitfusion" / "proxy" / "generated"),
    "softgpu": (BUILD / "lib" / "softgpu", ROOT / "bitfusion" / "softgpu/driver/generated"),
}
NOT_SUPPORTED = 801


@pytest.fixture(params=sorted(LIBRARIES))
def built(request: pytest.FixtureRequest) -> Tuple[Path, Path]:
    """The library, and the folder of what was generated for it."""
    folder, generated = LIBRARIES[request.param]
    assert (folder / "libcuda.so.1").exists(), "make it first"
    return folder / "libcuda.so.1", generated


def exported(generated: Path) -> List[str]:
    return re.findall(r"^\t\t(cu\w+);", (generated / "exports.map").read_text(), re.MULTILINE)


def absent(generated: Path) -> List[str]:
    return re.findall(r"^ABSENT\((cu\w+)\)", (generated / "absent.c").read_text(), re.MULTILINE)


def output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_exports(built: Tuple[Path, Path]) -> None:
    library, generated = built
    lines = output("nm", "-D", "--defined-only", str(library)).splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(exported(generated))
    assert "@" not in "".join(lines), "programs link against names without a version"


def test_soname(built: Tuple[Path, Path]) -> None:
    assert "[libcuda.so.1]" in output("readelf", "-d", str(built[0]))


def run_python(code: str, *arguments: str) -> str:
    """In a process of its own: two libcuda in one would not do."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BITFUSION_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = ["python3", "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


ASK = """
import ctypes, sys
from bitfusion.api.ctypes_driver import load
driver = load(sys.argv[1])
for line in sys.stdin:
    name, exported, version, flavour = line.split()
    function, status = ctypes.c_void_p(1), ctypes.c_int(9)
    result = driver.cuGetProcAddress_v2(
        name.encode(), ctypes.byref(function), int(version), 2 if int(flavour) else 0,
        ctypes.byref(status))
    own = ctypes.cast(getattr(driver, exported), ctypes.c_void_p).value
    print(exported, result, status.value, "own" if function.value == own else function.value)
"""


def test_lookup(built: Tuple[Path, Path]) -> None:
    library, generated = built
    table = re.findall(
        r'^\t\{"(\w+)", "(\w+)", (\d+), (\d), (.*)\},',
        (generated / "symbols.c").read_text(),
        re.MULTILINE,
    )
    asked = "".join(" ".join(row[:4]) + "\n" for row in table)
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["python3", "-c", ASK, str(library)],
        input=asked,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    answers: Dict[str, str] = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(answers) == len(table)
    for _, name, _, _, function in table:
        assert answers[name] == ("0 1 None" if function == "NULL" else "0 0 own"), name


REFUSE = """
import ctypes, sys
driver = ctypes.CDLL(sys.argv[1])
print({getattr(driver, name)() for name in sys.argv[2:]})
"""


def test_absent_functions_say_so(built: Tuple[Path, Path]) -> None:
    library, generated = built
    names = absent(generated)
    assert names
    assert run_python(REFUSE, str(library), *names).strip() == str({NOT_SUPPORTED})


def test_debug_names_an_absent_function_once(built: Tuple[Path, Path]) -> None:
    library, generated = built
    name = "cuTexRefCreate"
    assert name in absent(generated)
    code = f"import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).{name}; f(); f()"
    for debug, times in (("1", 1), ("", 0)):
        environment = dict(os.environ, BITFUSION_DEBUG=debug)
        if not debug:
            del environment["BITFUSION_DEBUG"]
        done = subprocess.run(
            ["python3", "-c", code, str(library)],
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            check=True,
        )
        assert done.stderr.count(name) == times


def test_header_declares_what_is_present(built: Tuple[Path, Path]) -> None:
    declared = ctypes_driver.prototypes(ctypes_driver.HEADER.read_text(encoding="utf-8"))
    generated = built[1]
    assert set(exported(generated)) - set(absent(generated)) <= set(declared)
    assert ctypes.sizeof(ctypes_driver.CUmemLocation) == 8
