# SPDX-License-Identifier: Apache-2.0
"""The example of a CI job in docs/softgpu.md is run, with stand-ins for what it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from test_driver_programs import ROOT

PROGRAM = ROOT / "build/programs/vector_add"
# Does what nvcc would do with the same words: that program, if PTX is to be in it.
NVCC = f"""#!/bin/sh
case " $* " in
*" -gencode arch=compute_75,code=compute_75 "*" -o vector_add vector_add.cu ") ;;
*) echo "nvcc $*" >&2; exit 1 ;;
esac
cp "{PROGRAM}" vector_add
"""


def steps() -> dict[str, str]:
    """The job's commands by the names of their steps."""
    text = (ROOT / "docs/softgpu.md").read_text()
    job = text.partition("```yaml\n")[2].partition("```")[0]
    found = {}
    for part in job.split("      - name: ")[1:]:
        name, _, rest = part.partition("\n")
        run = re.sub(r"^\s*run:( \|\n)?", "", rest)
        found[name] = textwrap.dedent(run)
    return found


def play(commands: str, folder: Path) -> str:
    environment = {**os.environ, "HOME": str(folder), "BITFUSION_CONFIG": "/dev/null"}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_job_installs_what_the_tests_use() -> None:
    pins = (ROOT / "tests/requirements/programs.txt").read_text().split()
    installed = re.findall(r"nvidia-[\w-]+==[\d.]+", steps()["Install"])
    assert len(installed) == 5
    assert set(installed) <= set(pins)


@pytest.mark.skipif(not PROGRAM.exists(), reason="not built: nvcc needs g++ on this machine")
def test_the_job_builds_and_runs_a_program(tmp_path: Path) -> None:
    compiler = tmp_path / "tools/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(NVCC)
    compiler.chmod(0o755)
    (tmp_path / "tools/bin").mkdir()
    (tmp_path / "tools/bin/bitfusion").symlink_to(ROOT / "bin/bitfusion")
    shutil.copy(ROOT / "tests/programs/vector_add.cu", tmp_path)
    job = steps()
    assert list(job) == ["Install", "Build", "Test"]
    play(job["Build"], tmp_path)
    assert play(job["Test"], tmp_path)
