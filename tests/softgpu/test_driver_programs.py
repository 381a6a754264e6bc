# SPDX-License-Identifier: Apache-2.0
"""The driver-API programs on the software GPU itself: what they print is known beforehand.

What each must print lies in expected/; only what is the same on every run is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pytest
from instrumented import compiler
from waiting import wait_for

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIBRARY = ROOT / "build" / "lib" / "softgpu"
FOLDERS = [ROOT / "tests" / "programs", HERE / "programs"]
SOURCES = {path.stem: path for folder in FOLDERS for path in folder.glob("driver_*.c")}
SITE = [*(ROOT / "build/venv/lib").glob("python3*/site-packages"), ROOT / "build/venv/site"]
TOOLKIT = next((p / "nvidia/cu13" for p in SITE if (p / "nvidia/cu13").is_dir()), None)
NVCC = str(TOOLKIT / "bin/nvcc") if TOOLKIT else shutil.which("nvcc")


def build(
    name: str,
    folder: Path,
    flags: Tuple[str, ...] = (),
    library: Path = LIBRARY,
    source: Optional[Path] = None,
) -> str:
    program = str(folder / name)
    includes = ["-I" + str(ROOT / "bitfusion" / "wire" / "generated"), "-I" + str(FOLDERS[0])]
    command = [
        *compiler(),
        "-O1",
        "-g",
        *flags,
        *includes,
        str(source or SOURCES[name]),
    ]
    subprocess.run(
        [*command, "-o", program, "-L" + str(library), "-lcuda", "-lpthread"], check=True
    )
    return program


def environment(library: Path = LIBRARY, **extra: str) -> Dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BITFUSION_", "CUDA_"))}
    kept.update(LD_LIBRARY_PATH=str(library), BITFUSION_PYTHON=sys.executable, **extra)
    return kept


def run(program: str, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program], env=env, capture_output=True, text=True, timeout=100, check=False
    )


def expected(name: str) -> List[str]:
    return (HERE / "expected" / (name + ".txt")).read_text().splitlines()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_program(name: str, tmp_path: Path) -> None:
    done = run(build(name, tmp_path), environment())
    assert done.stdout.splitlines() == expected(name)
    assert done.returncode == 0


def test_copies_between_two_devices(tmp_path: Path) -> None:
    program = build("driver_peer_copies", tmp_path)
    done = run(program, environment(BITFUSION_SOFTGPU_GPUS="2"))
    assert done.stdout.splitlines() == expected("driver_peer_copies")
    assert done.returncode == 0


@pytest.mark.parametrize("mode", ["LAZY", "EAGER"])
@pytest.mark.parametrize(
    "name", ["driver_errors", "driver_modules", "driver_printf", "driver_graphs"]
)
def test_program_in_both_loading_modes(name: str, mode: str, tmp_path: Path) -> None:
    program = build(name, tmp_path)
    done = run(program, environment(CUDA_MODULE_LOADING=mode))
    assert done.stdout.splitlines() == expected(name)
    # the line of the text that a fault names, too, is the same for a kernel compiled alone
    assert done.stderr == run(program, environment()).stderr


def test_the_log_says_why_there_is_no_launch(tmp_path: Path) -> None:
    said = run(build("driver_absurd", tmp_path), environment(BITFUSION_DEBUG="1")).stderr
    for reason in ("no GPU has blocks of 1025", "a cooperative grid of "):
        assert f"no launch: {reason}" in said, said


def test_a_broken_kernel_is_told_in_one_line(tmp_path: Path) -> None:
    lines = run(build("driver_lazy", tmp_path), environment()).stderr.splitlines()
    assert len(lines) == 3
    for line in lines[:2]:  # the module's, the library's
        assert line.startswith("bitfusion softgpu: cannot load kernel 'broken': line ")
        assert line.endswith("unknown register '%no_such_register'")


def test_damaged_files_in_the_cache_are_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = build("driver_modules", tmp_path)
    env = environment(BITFUSION_CACHE=str(cache))
    assert run(program, env).stdout.splitlines() == expected("driver_modules")
    files = sorted(cache.glob("*.sgi"))
    assert files
    for turn in range(4):
        for number, file in enumerate(files):
            data = bytearray(file.read_bytes())
            at = (turn * 7919 + number * 104729) % len(data)
            if turn:
                data[at] ^= 1 << turn
            file.write_bytes(data if turn else data[:at])
        assert run(program, env).stdout.splitlines() == expected("driver_modules")


def test_the_helper_starts_with_the_context_if_it_was_needed_last_time(tmp_path: Path) -> None:
    """A script in Python's place leaves a line each time that it is started."""
    cache, starts = tmp_path / "cache", tmp_path / "starts"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho >> "{starts}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    env = environment(BITFUSION_CACHE=str(cache))
    env["BITFUSION_PYTHON"] = str(python)
    vector_add, contexts = build("driver_vector_add", tmp_path), build("driver_contexts", tmp_path)

    def starts_helper(program: str, expected: bool) -> bool:
        starts.write_text("")
        assert run(program, env).returncode == 0
        # the program may be quicker than the helper that it started
        return wait_for(starts.read_text, 20 if expected else 0.5)

    for _ in range(2):
        assert starts_helper(vector_add, True)  # compiles
        assert starts_helper(vector_add, True)  # in vain: everything is in the cache
        assert not starts_helper(vector_add, False)
        for file in cache.glob("*.sgi"):
            file.unlink()
    assert starts_helper(contexts, True)  # another program


def test_a_long_module_with_an_error_does_not_load_eagerly(tmp_path: Path) -> None:
    done = run(build("driver_lazy", tmp_path), environment(CUDA_MODULE_LOADING="EAGER"))
    assert "cuModuleLoadData(&module, text): CUDA_ERROR_INVALID_PTX" in done.stdout


def test_every_program_has_an_expectation() -> None:
    told = {path.stem for path in (HERE / "expected").glob("driver_*.txt")}
    assert told == set(SOURCES)


def test_each_error_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(build("driver_errors", tmp_path), environment())
    load, fault = done.stderr.splitlines()
    assert load == "bitfusion softgpu: cannot load code: line 1: a PTX module starts with .version"
    assert fault.startswith("bitfusion softgpu: kernel 'write_to', block (0,0,0), thread")
    assert "st.global.u32" in fault and "0x100" in fault


def test_a_refused_cluster_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(build("driver_clusters", tmp_path), environment())
    lines = done.stderr.splitlines()
    refused = (HERE / "expected" / "driver_clusters.txt").read_text().count("INVALID_CLUSTER_SIZE")
    assert len(lines) >= refused - 1  # a size of 0 needs no explanation
    assert all(line.startswith("bitfusion softgpu: kernel '") for line in lines)
    assert any("the grid is not a multiple of the cluster" in line for line in lines)


def test_nothing_is_said_unasked(tmp_path: Path) -> None:
    assert run(build("driver_modules", tmp_path), environment()).stderr == ""


def test_an_unsupported_function_is_named_once_when_debugging(tmp_path: Path) -> None:
    source = tmp_path / "absent.c"
    source.write_text(
        '#include "cuda.h"\n#include <stdio.h>\nint main(void)\n{\n'
        '\tprintf("%d\\n", cuVDPAUGetDevice(NULL, 0, NULL));\n'
        '\tprintf("%d\\n", cuVDPAUGetDevice(NULL, 0, NULL));\n\treturn 0;\n}\n'
    )
    done = run(build("absent", tmp_path, source=source), environment(BITFUSION_DEBUG="1"))
    assert done.stdout == "801\n801\n"
    assert done.stderr.count("cuVDPAUGetDevice") == 1


def devices(tmp_path: Path, **env: str) -> List[str]:
    return run(build("driver_devices", tmp_path), environment(LIBRARY, **env)).stdout.splitlines()


def test_several_devices(tmp_path: Path) -> None:
    lines = devices(tmp_path, BITFUSION_SOFTGPU_GPUS="3", BITFUSION_SOFTGPU_MEMORY="512M")
    assert [line.split(":")[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert all("512 MiB, 13.0" in line for line in lines[1:4])
    assert "over there and back: 123" in lines
    assert "the second block is on device 1" in lines


@pytest.mark.parametrize(
    "visible, last_bytes",
    [
        ("2,0", [2, 0]),
        ("1", [1]),
        ("0,9,1", [0]),
        ("GPU-b17f0510-50f7-4650-8012-000000000002", [2]),
        ("1,1", []),
        ("0x1", []),
        (" 2 , 0", [2, 0]),
        ("GPU-b17f", []),
        ("", []),
        ("none", []),
    ],
)
def test_visible_devices(visible: str, last_bytes: List[int], tmp_path: Path) -> None:
    lines = devices(tmp_path, BITFUSION_SOFTGPU_GPUS="3", CUDA_VISIBLE_DEVICES=visible)
    if not last_bytes:
        assert lines == ["cuInit: CUDA_ERROR_NO_DEVICE"]
    found = [line for line in lines if "last byte" in line]
    assert ["last byte of the UUID %d," % n in found[i] for i, n in enumerate(last_bytes)] == [
        True
    ] * len(last_bytes)
    assert len(found) == len(last_bytes)


@pytest.mark.skipif(NVCC is None, reason="no CUDA compiler here")
@pytest.mark.parametrize("default_stream", ["legacy", "per-thread"])
def test_runtime(default_stream: str, tmp_path: Path) -> None:
    assert NVCC is not None
    program = str(tmp_path / "runtime")
    source = str(HERE / "programs" / "runtime.cu")
    options = ["-arch=compute_75", "--default-stream", default_stream]
    options += ["-L", str(TOOLKIT / "lib")] if TOOLKIT else []
    subprocess.run([NVCC, *options, source, "-o", program], check=True)
    done = run(program, environment())
    assert done.stdout.splitlines() == expected("runtime")
    assert done.returncode == 0


@pytest.mark.skipif(NVCC is None, reason="no CUDA compiler here")
def test_textures(tmp_path: Path) -> None:
    assert NVCC is not None
    program = str(tmp_path / "textures")
    source = str(FOLDERS[0] / "textures.cu")
    options = ["-arch=compute_75", "-std=c++17", "-I", str(FOLDERS[0])]
    options += ["-L", str(TOOLKIT / "lib")] if TOOLKIT else []
    subprocess.run([NVCC, *options, source, "-o", program], check=True)
    done = run(program, environment())
    lines = done.stdout.splitlines()
    assert len(lines) == 24 and lines[-1] == "all ok"
    assert "kernel '_Z7trappedy'" in done.stderr and "outside of the surface" in done.stderr
