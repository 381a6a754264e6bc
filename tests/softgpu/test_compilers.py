# SPDX-License-Identifier: Apache-2.0
"""What stands in front of NVIDIA's compilers on a software GPU, with a stand-in for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from instrumented import compiler
from test_driver_programs import environment

HERE = Path(__file__).resolve().parent
OURS = HERE.parents[1] / "build" / "lib" / "softgpu" / "libbitfusion-compilers.so"

SCRIPT = """
import ctypes, sys
compiler = ctypes.CDLL(sys.argv[1])
compiler.options_given.restype = ctypes.c_char_p

def strings(*words):
    return len(words), (ctypes.c_char_p * len(words))(*(word.encode() for word in words))

def options(function, *words):
    return function(None, *strings(*words)), compiler.options_given().decode().split()

def cubin():
    size = ctypes.c_size_t()
    assert compiler.nvrtcGetCUBINSize(None, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert compiler.nvrtcGetCUBIN(None, text) == 0
    return text.value

def archs():
    count = ctypes.c_int()
    assert compiler.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
    found = (ctypes.c_int * count.value)()
    assert compiler.nvrtcGetSupportedArchs(found) == 0
    return list(found)

print(*(%s), sep="\\n")
"""


@pytest.fixture(scope="session")
def nvrtc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("compiler") / "libnvrtc.so.13"
    source = str(HERE / "fake_compiler.c")
    subprocess.run([*compiler(), "-shared", "-fPIC", "-o", str(library), source], check=True)
    return library


def ask(nvrtc: Path, questions: str, preload: Any = OURS) -> list[str]:
    environment = dict(os.environ)
    if preload:
        environment["LD_PRELOAD"] = str(preload)
    command = [sys.executable, "-c", SCRIPT % questions, str(nvrtc)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_cubin_is_ptx(nvrtc: Path) -> None:
    questions = "cubin(), compiler.make_ptx(0) and 0, cubin()"
    assert ask(nvrtc, questions)[0] == "b'.version 9.0'"
    assert ask(nvrtc, questions)[2] == "b'\\x7fELF of a real GPU'", "without PTX, what it made"
    assert ask(nvrtc, questions, None)[0] == "b'\\x7fELF of a real GPU'"


def test_it_says_that_it_knows_the_software_gpu(nvrtc: Path) -> None:
    assert ask(nvrtc, "archs(),") == ["[90, 121, 130]"]
    assert ask(nvrtc, "archs(),", None) == ["[90, 121]"]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["-arch=sm_130"], ["-arch=sm_121"]),
        (["--gpu-architecture=compute_130", "-G"], ["--gpu-architecture=compute_121", "-G"]),
        (["-arch", "sm_130"], ["-arch", "sm_121"]),
        (["-arch=compute_130a"], ["-arch=compute_121"]),
        (["-arch=sm_90a", "-DX=sm_900"], ["-arch=sm_90a", "-DX=sm_900"]),
        (["-DNAME=compute_130"], ["-DNAME=compute_130"]),
        (["-arch=" + "x" * 90], ["-arch=" + "x" * 90]),
    ],
)
def test_an_arch_that_nvrtc_does_not_know(
    nvrtc: Path, given: list[str], passed: list[str]
) -> None:
    questions = f"options(compiler.nvrtcCompileProgram, *{given})[1],"
    assert ask(nvrtc, questions) == [str(passed)]


def test_nvvm_is_asked_until_it_knows_a_newer_arch(nvrtc: Path) -> None:
    questions = (
        "options(compiler.nvvmCompileProgram, '-opt=3', '-arch=compute_130a'),"
        "options(compiler.nvvmCompileProgram, '-arch=compute_120'),"
    )
    assert ask(nvrtc, questions) == [
        "(0, ['-opt=3', '-arch=compute_90'])",
        "(7, ['-arch=compute_120'])",
    ]


def test_other_names_are_found_as_ever(nvrtc: Path) -> None:
    questions = (
        "hasattr(compiler, 'nvrtcNothing'), hasattr(compiler, 'nvvmVerifyProgram'),"
        "ctypes.CDLL(None).dlsym is not None, ctypes.CDLL(None).getpid() > 0"
    )
    assert ask(nvrtc, questions) == ["False", "False", "True", "True"]


LIMITED = """
import ctypes
linker, cuda = ctypes.CDLL(None), ctypes.CDLL("libcuda.so.1")
moves = "".join(f"mov.b64 %d{i}, 1;" for i in range(99))
TEXT = (".version 9.0 .target sm_90 .address_size 64 .visible .entry k() "
    "{ .reg .b64 %d<99>; " + moves + " ret; }").encode()

def check(result):
    assert result == 0, result

def registers(*options):
    link, module, kernel = (ctypes.c_void_p() for _ in range(3))
    size, count = ctypes.c_size_t(), ctypes.c_int()
    words = (ctypes.c_char_p * len(options))(*options)
    check(linker.nvJitLinkCreate(ctypes.byref(link), len(options), words))
    check(linker.nvJitLinkAddData(link, 2, TEXT, ctypes.c_size_t(len(TEXT)), b"name"))
    check(linker.nvJitLinkComplete(link))
    check(linker.nvJitLinkGetLinkedCubinSize(link, ctypes.byref(size)))
    code = ctypes.create_string_buffer(size.value)
    check(linker.nvJitLinkGetLinkedCubin(link, code))
    check(linker.nvJitLinkDestroy(ctypes.byref(link)))
    check(cuda.cuModuleLoadData(ctypes.byref(module), code))
    check(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"k"))
    check(cuda.cuFuncGetAttribute(ctypes.byref(count), 4, kernel))  # NUM_REGS
    return count.value

context = ctypes.c_void_p()
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
print(registers(b"-arch=sm_130"), registers(b"-arch=sm_130", b"-maxrregcount=38"))
"""


def test_a_link_limits_the_registers_of_its_kernels() -> None:
    env = environment(LD_PRELOAD=str(OURS))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "64 38\n"
