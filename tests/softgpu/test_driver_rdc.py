# SPDX-License-Identifier: Apache-2.0
"""Relocatable device code: nvcc's programs of several parts, and its objects for cuLink."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest
from test_driver_programs import FOLDERS, HERE, NVCC, build, environment

RESULTS = [1001, 2002, 3005, 4010, 1017, 2026, 3037, 4050]
PARTS = sorted((FOLDERS[0] / "relocatable").glob("*.cu"))

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="no CUDA compiler here"),
]


def objects(folder: Path, code: str, *flags: str) -> List[str]:
    made = []
    for source in PARTS:
        made.append(str(folder / f"{source.stem}.o"))
        options = ["-dc", "-gencode", f"arch=compute_75,code={code}", *flags]
        subprocess.run([str(NVCC), *options, str(source), "-o", made[-1]], check=True)
    return made


@pytest.mark.parametrize("code", ["compute_75", "[compute_75,sm_75]"])
def test_a_program_of_two_parts(code: str, tmp_path: Path) -> None:
    """Its linked code is for another GPU or missing; the parts have PTX."""
    program = str(tmp_path / "program")
    libraries = "-L" + str(Path(os.path.realpath(str(NVCC))).parents[1] / "lib")
    link = [str(NVCC), libraries, "-gencode", f"arch=compute_75,code={code}"]
    link += objects(tmp_path, code)
    subprocess.run([*link, "-o", program], check=True)
    done = subprocess.run([program], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == f"no error: {' '.join(map(str, RESULTS))}, counted 108\n"
    assert done.stderr == ""


def test_objects_and_archives_by_the_driver(tmp_path: Path) -> None:
    program = build("link_files", tmp_path, source=HERE / "programs" / "link_files.c")
    main, part = objects(tmp_path, "compute_75", "-DONLY_DEVICE")
    archive = str(tmp_path / "part.a")
    subprocess.run([shutil.which("ar") or "ar", "rc", archive, part], check=True)

    def run(*files: str) -> List[str]:
        done = subprocess.run(
            [program, *files], env=environment(), capture_output=True, text=True, timeout=60
        )
        return done.stdout.splitlines()

    good = ["CUDA_SUCCESS", " ".join(map(str, RESULTS))]
    assert run(main, part) == good
    assert run(main, archive) == good
    assert run(archive, main) == good
    (told,) = run(main)
    assert told.startswith("CUDA_ERROR_INVALID_PTX: unresolved extern ")
