# SPDX-License-Identifier: Apache-2.0
"""The engine against the plain NumPy one: random kernels, and kernels as a compiler makes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Tuple

import forms
import numpy
import plain_programs
import pytest
from machine import array, machine, zeros
from numpy import ndarray
from plain_engine import Grid

from bitfusion.softgpu.ptx.frontend import read_image

FIRST = int(os.environ.get("BITFUSION_TEST_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("BITFUSION_TEST_PROGRAMS", "24")))
KERNELS = Path(__file__).parent / "kernels" / "kernels.ptx"
KINDS = {"h": "f16", "r": "u32", "d": "u64", "e": "f32", "g": "f64", "p": "pred"}
NAN = 0x7FF8000000000000


def inputs(seed: int, threads: int) -> ndarray:
    """Of each thread a row of register values: half of them edges of their type."""
    pick = numpy.random.default_rng(seed)
    columns = []
    for name, (_, count, _) in reversed(plain_programs.CLASSES.items()):
        edges = numpy.array(forms.edges(KINDS[name]), "u8")
        for _ in range(count):
            wild = pick.integers(0, 1 << 64, threads, dtype="u8")
            if name == "p":
                wild &= numpy.uint64(1)
            edge = pick.random(threads) < 0.5
            columns.append(numpy.where(edge, pick.choice(edges, threads), wild))
            if name == "g":  # one NaN only: which of two an operation hands on, nobody says
                columns[-1][numpy.isnan(columns[-1].view("f8"))] = NAN
    return array(numpy.stack(columns, axis=1), "u8")


def test_random_kernels_have_all_forms() -> None:
    texts = [plain_programs.kernel(seed, 64) for seed in range(1, 25)]
    written = {word for text in texts for word in text.split()}
    assert [name for name, _ in plain_programs.FORMS if name not in written] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kernels(seed: int) -> None:
    threads, blocks = [(64, 2), (32, 3), (96, 1)][seed % 3]
    text = plain_programs.kernel(seed, threads)
    given = inputs(seed, threads * blocks)
    found, wanted = zeros(given.size, "u8"), zeros(given.size, "u8")
    machine().compile(text).launch("random", blocks, threads, given, found)
    parameters = [a.ctypes.data.to_bytes(8, "little") for a in (given, wanted)]
    module = read_image(text.encode())
    Grid(module, "random", (blocks, 1, 1), (threads, 1, 1), parameters, [given, wanted]).run()
    assert differences(found, wanted) == []


def differences(found: ndarray, wanted: ndarray) -> List[str]:
    """(thread, register): what the engine has, what the plain one has."""
    names = [
        f"%{name}{i}"
        for name, (_, count, _) in reversed(plain_programs.CLASSES.items())
        for i in range(count)
    ]
    found, wanted = (a.reshape(-1, len(names)) for a in (found, wanted))
    return [
        f"thread {t} {names[k]}: {int(found[t, k]):#x}, not {int(wanted[t, k]):#x}"
        for t, k in numpy.argwhere(found != wanted)[:10].tolist()
    ]


def run_both(
    part: str, grid: Tuple[int, int, int], block: Tuple[int, int, int], *arguments: object
) -> List[Tuple[ndarray, ndarray]]:
    """The arrays among the arguments after each engine has run the kernel on its own copies."""
    data = KERNELS.read_bytes()
    program = machine().compile(data)
    name = program.find(part)
    ours = [array(a, a.dtype.str) if isinstance(a, ndarray) else a for a in arguments]
    program.launch(name, grid, block, *ours)  # type: ignore[arg-type]
    plain = [array(a, a.dtype.str) if isinstance(a, ndarray) else a for a in arguments]
    parameters = []
    for value in plain:
        if isinstance(value, ndarray):
            parameters.append(value.ctypes.data.to_bytes(8, "little"))
        elif isinstance(value, float):
            parameters.append(numpy.float32(value).tobytes())
        else:
            parameters.append(int(value).to_bytes(4, "little", signed=True))  # type: ignore[call-overload]
    memory = [a for a in plain if isinstance(a, ndarray)]
    Grid(read_image(data), name, grid, block, parameters, memory).run()
    return [(a, b) for a, b in zip(ours, plain) if isinstance(a, ndarray)]  # type: ignore[misc]


random = numpy.random.default_rng(3)
LAUNCHES = {
    "saxpy": ((3, 1, 1), (64, 1, 1), 500, 2.5, random.random(500, "f4"), random.random(500, "f4")),
    "matmul": ((2, 2, 1), (16, 16, 1), random.random(1024, "f4"), random.random(1024, "f4"),
               numpy.zeros(1024, "f4"), 32),
    "scan": ((4, 1, 1), (256, 1, 1), random.integers(0, 99, 1000).astype("u4"),
             numpy.zeros(1000, "u4"), numpy.zeros(6, "u4"), 1000),
    "histogram": ((2, 1, 1), (64, 1, 1), random.integers(0, 256, 900).astype("u1"), 900,
                  numpy.zeros(256, "u4")),
    "mandelbrot": ((2, 3, 1), (16, 4, 1), numpy.zeros(32 * 12, "u4"), 32, 12, 40),
    "divisions": ((2, 1, 1), (32, 1, 1), random.integers(-(1 << 62), 1 << 62, 60),
                  random.integers(1, 1 << 40, 60), numpy.zeros(240, "i8"), 60),
}  # fmt: skip


@pytest.mark.parametrize("name", LAUNCHES)
def test_compiled_kernels(name: str) -> None:
    grid, block, *arguments = LAUNCHES[name]
    for ours, plain in run_both(name, grid, block, *arguments):  # type: ignore[arg-type]
        assert numpy.array_equal(ours.view("u1"), plain.view("u1"))
