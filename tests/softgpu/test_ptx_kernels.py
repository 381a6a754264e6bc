# SPDX-License-Identifier: Apache-2.0
"""Whole kernels, as a compiler makes them, against NumPy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import numpy
import pytest
from machine import DeviceFault, Program, aligned, array, machine, zeros

KERNELS = Path(__file__).parent / "kernels" / "kernels.ptx"
random = numpy.random.default_rng(20)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    yield machine().compile(KERNELS.read_bytes())


def launch(
    program: Program, name: str, grid: object, block: object, *arguments: object, **more: object
) -> None:
    program.launch(program.find(name), grid, block, *arguments, **more)  # type: ignore[arg-type]


def test_saxpy(program: Program) -> None:
    n = 10007
    x = array(random.standard_normal(n), "f4")
    y = array(random.standard_normal(n), "f4")
    wide = numpy.float64(2.5) * x.astype("f8") + y.astype("f8")  # one rounding, as fma has
    launch(program, "saxpy", 13, 128, n, 2.5, x, y)
    assert numpy.array_equal(y, wide.astype("f4"))


def test_matmul(program: Program) -> None:
    n = 64
    a, b = (array(random.integers(-8, 8, n * n), "f4") for _ in range(2))
    c = zeros(n * n, "f4")
    launch(program, "matmul", (n // 16, n // 16), (16, 16), a, b, c, n)
    assert numpy.array_equal(c.reshape(n, n), a.reshape(n, n) @ b.reshape(n, n))


@pytest.mark.parametrize("n", [1, 1000, 20000])
def test_scan_with_look_back(program: Program, n: int) -> None:
    data = array(random.integers(0, 1000, n), "u4")
    out = zeros(n, "u4")
    blocks = (n + 255) // 256
    launch(program, "scan", blocks, 256, data, out, zeros(blocks + 2, "u4"), n)
    assert numpy.array_equal(out, numpy.cumsum(data, dtype="u4"))


def test_histogram(program: Program) -> None:
    data = array(random.integers(0, 256, 30000) ** 2 // 256, "u1")
    bins = zeros(256, "u4")
    launch(program, "histogram", 7, 200, data, len(data), bins)
    assert numpy.array_equal(bins, numpy.bincount(data, minlength=256))


def test_bitonic_sort(program: Program) -> None:
    data = array(random.integers(-1000, 1000, 4 * 256), "i4")
    wanted = numpy.sort(data.reshape(4, 256))
    launch(program, "bitonic", 4, 256, data, shared=1024)
    assert numpy.array_equal(data.reshape(4, 256), wanted)


def test_mandelbrot(program: Program) -> None:
    width, height, limit = 75, 50, 100
    out = zeros(width * height, "u4")
    launch(program, "mandelbrot", (5, 13), (16, 4), out, width, height, limit)
    x, y = numpy.meshgrid(numpy.arange(width), numpy.arange(height))
    cr, ci = -2.0 + 3.0 * x / width, -1.0 + 2.0 * y / height
    r, i = numpy.zeros_like(cr), numpy.zeros_like(cr)
    count = numpy.zeros(cr.shape, "u4")
    for _ in range(limit):
        inside = r * r + i * i <= 4
        r, i = numpy.where(inside, (r * r - i * i) + cr, r), numpy.where(inside, 2 * r * i + ci, i)
        count += inside
    same = out.reshape(height, width) == count
    # the compiler may contract the coordinates of a point into an fma
    assert same.mean() > 0.99


PARTICLE = numpy.dtype(
    [
        ("p", "f4", 3),
        ("v", "f4", 3),
        ("mass", "f8"),
        ("kind", "i2"),
        ("name", "S1", 3),
        ("pad", "V3"),
    ]
)


def test_structures(program: Program) -> None:
    n = 100
    all_ = aligned(n * PARTICLE.itemsize).view(PARTICLE)
    all_["p"] = random.standard_normal((n, 3))
    all_["v"] = random.standard_normal((n, 3))
    all_["mass"] = random.standard_normal(n)
    all_["kind"] = random.integers(-30000, 30000, n)
    all_["name"] = b"a"
    shift = numpy.zeros(1, PARTICLE)
    shift["p"], shift["mass"], shift["kind"], shift["name"] = 1.5, 3.0, 7, b"z"
    wanted = all_.copy()
    wide = wanted["v"][:, 0].astype("f8") * 2 + wanted["p"][:, 0].astype("f8")
    with numpy.errstate(over="ignore"):
        wanted["p"][:, 0] = wanted["p"][:, 0] + (
            wanted["v"][:, 0] * numpy.float32(2) + numpy.float32(1.5)
        )
        wanted["p"][:, 1] -= wanted["v"][:, 1]
        wanted["mass"] *= 3.0
        wanted["kind"] = (wanted["kind"].astype("i4") * 3 - 7).astype("i2")
    wanted["name"][:, 1] = b"z"
    launch(program, "particles", 2, 64, all_, n, shift.tobytes())
    assert numpy.allclose(all_["p"][:, 0], wide + 1.5, rtol=1e-6, atol=1e-6)
    for field in ("v", "mass", "kind", "name"):
        assert numpy.array_equal(all_[field], wanted[field]), field
    assert numpy.array_equal(all_["p"][:, 1:], wanted["p"][:, 1:])


def test_64_bit_divisions(program: Program) -> None:
    edges = [1, -1, 2, 3, -7, 1 << 31, (1 << 32) - 1, 1 << 33, (1 << 63) - 1, -(1 << 63), 10**18]
    pairs = [(a, b) for a in [0, *edges] for b in edges]
    pairs += [(int(a), int(b)) for a, b in random.integers(-(1 << 62), 1 << 62, (200, 2))]
    out = zeros(4 * len(pairs), "i8")
    columns = [array(column, "i8") for column in zip(*pairs)]
    launch(program, "divisions", (len(pairs) + 31) // 32, 32, *columns, out, len(pairs))

    def quotient(a: int, b: int) -> int:
        found = abs(a) // abs(b)
        return found if (a < 0) == (b < 0) else -found

    def cut(x: int, size: int) -> int:
        x &= (1 << size) - 1
        return x - (1 << size) if x >> (size - 1) else x

    for (a, b), got in zip(pairs, out.reshape(-1, 4).tolist()):
        if (a, b) == (-(1 << 63), -1):
            continue
        top = (1 << 64) - 1
        small = (
            quotient(cut(a, 32), cut(b, 32) | 1)
            if (cut(a, 32), cut(b, 32)) != (-(1 << 31), -1)
            else got[3]
        )
        wanted = [
            quotient(a, b),
            a - b * quotient(a, b),
            cut((a & top) // (b & top), 64),
            cut(small, 32),
        ]
        assert got == wanted, (a, b)


def _exponential(v: float) -> float:
    return math.exp(v * 0.01) if v < 70000 else math.inf


FUNCTIONS: List[Callable[[float], float]] = [
    math.sin, math.cos, math.tan, _exponential, lambda v: math.log(abs(v)),
    lambda v: abs(v) ** 0.3, lambda v: math.atan2(v, 2), math.tanh,
    lambda v: math.copysign(abs(v) ** (1 / 3), v), math.erf, lambda v: math.lgamma(abs(v) + 1),
    lambda v: math.hypot(v, 3), lambda v: math.fmod(v, 0.7), math.floor,
    lambda v: float(numpy.rint(v)), lambda v: math.sqrt(abs(v)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype", "bound"), [("mathematicsPKd", "f8", 4e-15), ("mathematics32", "f4", 3e-6)]
)
def test_mathematics(program: Program, name: str, dtype: str, bound: float) -> None:
    """The compiler's functions over our instructions; large arguments take their slow ways."""
    values = [
        *random.standard_normal(40) * 3,
        *random.standard_normal(20) * 200,
        1e-8,
        0.5,
        1.0,
        -2.0,
    ]
    values += [12345.678, -98765.4] + ([1e9, -3e15] if dtype == "f8" else [3e6])
    x = array(values, dtype)
    out = zeros(16 * len(x), dtype)
    launch(program, name, (len(x) + 31) // 32, 32, x, out, len(x))
    for value, got in zip(x.tolist(), out.reshape(-1, 16).tolist()):
        for n, function in enumerate(FUNCTIONS):
            if n == 12 and dtype == "f4":
                wanted = math.fmod(value, float(numpy.float32(0.7)))
            else:
                wanted = float(numpy.array(function(value), dtype))
            if math.isinf(wanted):
                assert got[n] == wanted, (value, n)
                continue
            assert abs(got[n] - wanted) <= bound * max(abs(wanted), 0.5), (
                value,
                n,
                got[n],
                wanted,
            )


def test_halves(program: Program) -> None:
    n = 300
    a, b = (array(random.standard_normal(n) * 4, "f2") for _ in range(2))
    out, brain = zeros(4 * n, "f2"), zeros(2 * n, "u2")
    launch(program, "halves", 3, 128, a, b, out, brain, n)
    rows = out.reshape(n, 4)
    assert numpy.array_equal(rows[:, 0], a + b)
    wide = a.astype("f8") * b.astype("f8") + a.astype("f8")
    assert numpy.array_equal(rows[:, 1], wide.astype("f2"))
    assert numpy.array_equal(rows[:, 2], b * b)
    assert numpy.array_equal(rows[:, 3], numpy.where(a > b, a, -b))

    def brain_of(x: numpy.ndarray) -> numpy.ndarray:
        bits = x.astype("f4").view("u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")

    pair = brain.reshape(n, 2)
    assert numpy.array_equal(pair[:, 0], brain_of(a))
    single = (pair[:, 0].astype("u4") << 16).view("f4")
    assert numpy.array_equal(pair[:, 1], brain_of(single * numpy.float32(3)))


def test_recursion(program: Program) -> None:
    def ackermann(m: int, n: int) -> int:
        if m == 0:
            return n + 1
        return ackermann(m - 1, ackermann(m, n - 1) if n else 1)

    out = zeros(64, "u4")
    launch(program, "recursion", 1, 64, out)
    assert out.tolist() == [ackermann(t % 3, t % 5) for t in range(64)]


def test_function_pointers(program: Program) -> None:
    steps = array([0, 1, 2, 0, 0, 1, 1, 2, 0], "i4")
    out = zeros(40, "i4")
    launch(program, "visit", 1, 40, out, steps, len(steps))

    def follow(thread: int) -> int:
        state = thread
        for i, step in enumerate(steps.tolist()):
            which = (step + thread) % 3
            state = [state + i + 1, state * (i + 1), 1][which]
        return state

    assert out.tolist() == [follow(t) for t in range(40)]


def test_the_heap_outlives_a_launch(program: Program) -> None:
    launch(program, "build", 1, 64, 20)
    out = zeros(64, "i4")
    launch(program, "consume", 1, 64, out)
    assert out.tolist() == [190 * t for t in range(64)]


def test_grid_wide_barriers(program: Program) -> None:
    n, steps = 8 * 64, 5
    a, b = array(random.integers(0, 64, n) * 1024, "f4"), zeros(n, "f4")
    wanted = a.copy()
    for _ in range(steps):
        wanted = 0.5 * wanted + 0.25 * (numpy.roll(wanted, -1) + numpy.roll(wanted, 1))
    launch(program, "jacobi", 8, 64, a, b, n, steps, cooperative=True)
    assert numpy.array_equal(b, wanted.astype("f4"))


def test_cooperative_groups_in_a_block(program: Program) -> None:
    data = array(random.integers(0, 100, 64), "i4")
    out = zeros(64, "i4")
    launch(program, "tiles", 1, 64, data, out)
    sums = data.reshape(8, 8).sum(axis=1)
    values = numpy.repeat(sums, 8)
    for warp in range(2):
        threes = [t for t in range(32 * warp, 32 * warp + 32) if t % 3 == 0]
        for rank, t in enumerate(threes):
            values[t] += 1000 * len(threes) + rank
    odd = numpy.repeat((values.reshape(8, 8) % 2).any(axis=1), 8)
    assert out.tolist() == (values + 100000 * odd).tolist()


def test_printf(program: Program) -> None:
    machine().output()
    launch(program, "report", 2, 32, array([1.25, -3, 0], "f4"))
    assert sorted(machine().output().splitlines()) == [
        f"block {b} thread {t}: {v} {w}"
        for b in range(2)
        for t, v, w in ((0, "1.25", "positive"), (1, "-3.00", "other"))
    ]


def test_constants_and_counters(program: Program) -> None:
    width, height = 37, 23
    image = array(random.integers(0, 256, width * height), "u1")
    out = zeros(width * height, "u1")
    counter = program.variables["launches"].view("u4")
    before = int(counter[0])
    launch(program, "smooth", (3, 6), (16, 4), image, out, width, height)
    assert int(counter[0]) == before + 1
    padded = numpy.pad(image.reshape(height, width).astype("i4"), 2, "edge")
    weights = numpy.array([1, 4, 6, 4, 1])
    rows = sum(w * padded[:, k : k + width] for k, w in enumerate(weights))
    wanted = (sum(w * rows[k : k + height] for k, w in enumerate(weights)) + 128) // 256
    assert numpy.array_equal(out.reshape(height, width), wanted)


def test_out_of_bounds_in_a_real_kernel(program: Program) -> None:
    with pytest.raises(DeviceFault) as caught:
        launch(program, "saxpy", 13, 128, 1000, 2.5, zeros(500, "f4"), zeros(1000, "f4"))
    assert caught.value.error == 700
    assert "saxpy" in caught.value.text


def test_kernels_say_what_they_need(program: Program) -> None:
    facts: Dict[str, Dict[str, int]] = {
        "matmul": {"static_shared": 16 * 16 * 4 + 16 * 17 * 4, "parameters_size": 28},
        "particles": {"parameters_size": 56},
        "histogram": {"static_shared": 1024},
        "bitonic": {"static_shared": 0, "max_threads": 1024},
    }
    for name, wanted in facts.items():
        kernel = program.kernels[program.find(name)].contents
        for field, value in wanted.items():
            assert getattr(kernel, field) == value, (name, field)
        assert kernel.registers > 0
        assert kernel.ptx_version == 90
        assert kernel.target == 90
