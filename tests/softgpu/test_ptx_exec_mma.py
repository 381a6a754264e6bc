# SPDX-License-Identifier: Apache-2.0
"""mma and mma.sp in every shape and type, against exact sums over the ISA's fragment layouts."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import fragments
import numpy
import pytest
from forms import HEAD
from fragments import (
    BITS,
    Number,
    encode,
    number,
    pack,
    place_a,
    place_b,
    place_c,
    rounded,
    unpack,
)
from machine import DeviceFault, array, machine, zeros
from softfloat import F16, F32, F64

from bitfusion.softgpu.engine import ops_matrix

Matrix = List[List[int]]


class Case(NamedTuple):
    """``text`` is the instruction without its operands."""

    text: str
    shape: str
    d: str
    a: str
    b: str
    c: str
    sparse: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def sizes(self) -> Tuple[int, int, int]:
        return fragments.shape_of(self.shape)

    def registers(self) -> Tuple[int, int, int, int]:
        """How many of d, a, b, c a lane has."""
        m, n, k = self.sizes
        stored = k // 2 if self.sparse else k
        word = 64 if self.a == "f64" else 32
        return (
            m * n * max(BITS[self.d], 16) // 32 // (64 if self.d == "f64" else 32),
            m * stored * BITS[self.a] // 32 // word,
            n * k * BITS[self.b] // 32 // word,
            m * n * max(BITS[self.c], 16) // 32 // (64 if self.c == "f64" else 32),
        )


FP8 = [*itertools.product(("e4m3", "e5m2"), repeat=2)]
INT8 = [*itertools.product(("s8", "u8"), repeat=2)]
INT4 = [*itertools.product(("s4", "u4"), repeat=2)]


def _dense() -> List[Case]:
    cases = []

    def add(shapes: Sequence[str], a: str, b: str, d: str, tail: str = "") -> None:
        for shape in shapes:
            text = f"mma.sync.aligned.{shape}.row.col.{d}.{a}.{b}.{d}{tail}"
            cases.append(Case(text, shape, d, a, b, d))

    for d in ("f16", "f32"):
        add(("m16n8k8", "m16n8k16"), "f16", "f16", d)
        for a, b in FP8:
            add(("m16n8k16", "m16n8k32"), a, b, d)
    add(("m16n8k8", "m16n8k16"), "bf16", "bf16", "f32")
    add(("m16n8k4", "m16n8k8"), "tf32", "tf32", "f32")
    for a, b in INT8:
        add(("m8n8k16", "m16n8k16", "m16n8k32"), a, b, "s32")
    for a, b in INT4:
        add(("m8n8k32", "m16n8k32", "m16n8k64"), a, b, "s32")
    add(("m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"), "f64", "f64", "f64")
    for verb in ("xor", "and"):
        add(("m8n8k128", "m16n8k128", "m16n8k256"), "b1", "b1", "s32", f".{verb}.popc")
    return cases


def _sparse() -> List[Case]:
    cases = []

    def add(shapes: Sequence[str], a: str, b: str, d: str) -> None:
        for shape in shapes:
            for verb in ("mma.sp", "mma.sp::ordered_metadata"):
                text = f"{verb}.sync.aligned.{shape}.row.col.{d}.{a}.{b}.{d}"
                cases.append(Case(text, shape, d, a, b, d, True))

    for d in ("f16", "f32"):
        add(("m16n8k16", "m16n8k32"), "f16", "f16", d)
    add(("m16n8k16", "m16n8k32"), "bf16", "bf16", "f32")
    add(("m16n8k8", "m16n8k16"), "tf32", "tf32", "f32")
    for a, b in FP8:
        add(("m16n8k64",), a, b, "f32")
    for a, b in INT8:
        add(("m16n8k32", "m16n8k64"), a, b, "s32")
    for a, b in INT4:
        add(("m16n8k64", "m16n8k128"), a, b, "s32")
    return cases


DENSE, SPARSE = _dense(), _sparse()
BY_TEXT: Dict[str, Case] = {case.text: case for case in DENSE + SPARSE}

# ------------------------------------------------------------------ running one


def _vector(prefix: str, count: int) -> str:
    return "{" + ", ".join(f"{prefix}{i}" for i in range(count)) + "}"


def _moves(prefix: str, count: int, word: int, pointer: str, store: bool) -> List[str]:
    """Load or store the registers of each lane, one after the other."""
    lines = [f"ld.param.u64 p, [{pointer}];", f"mad.wide.u32 p, lane, {count * word}, p;"]
    for i in range(count):
        at, name = f"[p+{i * word}]", f"{prefix}{i}"
        pair = f"{at}, {name}" if store else f"{name}, {at}"
        lines.append(f"{'st' if store else 'ld'}.global.b{8 * word} {pair};")
    return lines


def kernel(name: str, case: Case, tail: str = "") -> str:
    """Build a kernel of one warp; ``tail`` are operands behind c."""
    word = 8 if case.a == "f64" else 4
    counts = dict(zip("dabc", case.registers()))
    lines = [f".visible .entry {name}(.param .u64 xd, .param .u64 xa, .param .u64 xb,"]
    lines.append(" .param .u64 xc, .param .u64 xe) {")
    lines += [f".reg .b{8 * word} {x}<{counts[x]}>;" for x in "dabc"]
    lines.append(".reg .b32 lane, e0; .reg .b64 p; mov.u32 lane, %tid.x;")
    for x in "abc":
        lines += _moves(x, counts[x], word, f"x{x}", False)
    lines += _moves("e", 1, 4, "xe", False)
    operands = ", ".join(_vector(x, counts[x]) for x in "dabc")
    lines.append(f"{case.text} {operands}{tail};")
    lines += _moves("d", counts["d"], word, "xd", True)
    return "\n".join([*lines, "ret; }"])


def run(
    case: Case, a: Matrix, b: Matrix, c: Matrix, text: str = "", tail: str = "",
    metadata: Sequence[int] = (),
) -> Matrix:  # fmt: skip
    """Give d as a matrix of bits; ``a`` is what is stored of it when it is sparse."""
    m, n, k = case.sizes
    one = case._replace(text=text or case.text)
    program = machine().compile(HEAD + kernel("k", one, tail))
    stored = k // 2 if case.sparse else k
    # what is stored of a sparse matrix lies as the dense one of half the K does
    small = f"m{m}n{n}k{stored}"
    dtype = "u8" if case.a == "f64" else "u4"
    inputs = [
        pack(a, place_a(small, case.a), case.a, m * stored // 32),
        pack(b, place_b(case.shape, case.b), case.b, n * k // 32),
        pack(c, place_c(case.shape), case.c, m * n // 32),
    ]
    out = zeros(32 * case.registers()[0], dtype)
    arrays = [array(lanes, dtype) for lanes in inputs]
    program.launch("k", 1, 32, out, *arrays, array(list(metadata) or [0] * 32, "u4"))
    lanes = out.reshape(32, -1).tolist()
    return unpack(lanes, place_c(case.shape), case.d, m, n)


def expected(case: Case, a: Matrix, b: Matrix, c: Matrix) -> List[List[Number]]:
    """Exact sums of a dense a."""
    m, n, k = case.sizes
    if case.a == "b1":
        join: Callable[[int, int], int] = (
            (lambda x, y: x & y) if ".and" in case.text else (lambda x, y: x ^ y)
        )
        return [
            [
                sum(join(a[i][s], b[s][j]) for s in range(k)) + number("s32", c[i][j])
                for j in range(n)
            ]
            for i in range(m)
        ]
    left = [[number(case.a, x) for x in row] for row in a]
    right = [[number(case.b, x) for x in row] for row in b]
    return [
        [
            fragments.total([(left[i][s], right[s][j]) for s in range(k)], number(case.c, c[i][j]))
            for j in range(n)
        ]
        for i in range(m)
    ]


def small_numbers(kind: str, rows: int, columns: int, random_: random.Random) -> Matrix:
    low, high = (0, 1) if kind == "b1" else (0, 7) if kind[0] == "u" else (-7, 7)
    return [
        [encode(kind, random_.randint(low, high)) for _ in range(columns)] for _ in range(rows)
    ]


# types of d and c of m8n8k4 of f16
QUARTERS = [("f16", "f16"), ("f32", "f16"), ("f32", "f32")]


# ------------------------------------------------------------------ tests


def test_the_tables_agree_on_what_there_is() -> None:
    def key(case: Case) -> Tuple[str, ...]:
        return ("mma.sp" if case.sparse else "mma", case.shape, case.d, case.a, case.b, case.c)

    quarters = {("mma", "m8n8k4", d, "f16", "f16", c) for d, c in QUARTERS}
    known = {row for row in ops_matrix.FORM_ROWS if row[0] != "wmma"}
    assert known == {key(case) for case in DENSE + SPARSE} | quarters


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_whole_numbers(case: Case) -> None:
    """Sums that every type holds exactly, so that only places can be wrong."""
    m, n, k = case.sizes
    random_ = random.Random(case.text)
    a, b = small_numbers(case.a, m, k, random_), small_numbers(case.b, k, n, random_)
    c = small_numbers(case.c, m, n, random_)
    wanted = [[rounded(case.d, x) for x in row] for row in expected(case, a, b, c)]
    if case.d == "f16":  # f16 sums are rounded once, and may be odd numbers above 2048
        assert all(abs(x) <= 2048 for row in expected(case, a, b, c) for x in row)
    assert run(case, a, b, c) == wanted


def _chosen(random_: random.Random) -> int:
    first, second = sorted(random_.sample(range(4), 2))
    return first | second << 2


def _sparse_a(case: Case, random_: random.Random) -> Tuple[Matrix, Matrix, List[List[int]]]:
    """What is stored, the dense matrix, and the 4 bits of each chunk."""
    m, _, k = case.sizes
    stored = small_numbers(case.a, m, k // 2, random_)
    dense = [[0] * k for _ in range(m)]
    chunks = []
    for row in range(m):
        line = []
        if case.a == "tf32":  # one of two
            for at in range(k // 2):
                index = random_.randint(0, 1)
                line.append((0b0100, 0b1110)[index])
                dense[row][2 * at + index] = stored[row][at]
        else:  # two of four, of pairs for four bits
            width = 2 if BITS[case.a] == 4 else 1
            for at in range(k // (4 * width)):
                line.append(_chosen(random_))
                for half in (0, 1):
                    index = line[-1] >> 2 * half & 3
                    for one in range(width):
                        to = (4 * at + index) * width + one
                        dense[row][to] = stored[row][(2 * at + half) * width + one]
        chunks.append(line)
    return stored, dense, chunks


def _metadata(case: Case, chunks: List[List[int]], selector: int) -> List[int]:
    """The threads' words, by the ISA's figures; the other threads hold rubbish."""
    words = [0xDEADBEEF] * 32
    for g in range(8):
        upper, lower = chunks[g], chunks[g + 8]

        def join(line: List[int]) -> int:
            return sum(bits << 4 * place for place, bits in enumerate(line))

        if BITS[case.a] >= 16:  # row g in the low half of a word, row g + 8 in the high one
            each = len(upper) // 4
            for q in range(each):
                thread = selector if each == 1 else 2 * selector + q
                low, high = join(upper[4 * q : 4 * q + 4]), join(lower[4 * q : 4 * q + 4])
                words[4 * g + thread] = low | high << 16
        elif len(upper) == 8:  # a thread for row g, the next one for row g + 8
            words[4 * g + 2 * selector] = join(upper)
            words[4 * g + 2 * selector + 1] = join(lower)
        else:  # the first two threads have the left half, the others the right one
            for q in range(2):
                words[4 * g + 2 * q] = join(upper[8 * q : 8 * q + 8])
                words[4 * g + 2 * q + 1] = join(lower[8 * q : 8 * q + 8])
    return words


def _selectors(case: Case) -> range:
    units = case.sizes[2] * BITS[case.a] // 8 // (2 if BITS[case.a] >= 16 else 1)
    return range(64 // units)


@pytest.mark.parametrize("case", SPARSE, ids=str)
def test_sparse(case: Case) -> None:
    m, n, k = case.sizes
    random_ = random.Random(case.text)
    for selector in _selectors(case):
        stored, dense, chunks = _sparse_a(case, random_)
        b, c = small_numbers(case.b, k, n, random_), small_numbers(case.c, m, n, random_)
        wanted = [[rounded(case.d, x) for x in row] for row in expected(case, dense, b, c)]
        metadata = _metadata(case, chunks, selector)
        assert run(case, stored, b, c, tail=f", e0, {selector}", metadata=metadata) == wanted


def _edge_bits(kind: str) -> List[int]:
    """Zeros, ones, subnormals, the largest numbers, infinities, NaN."""
    if kind == "e4m3":
        return [0x00, 0x80, 0x01, 0x87, 0x38, 0x7E, 0xFE, 0x7F, 0x55]
    if kind == "e5m2":
        return [0x00, 0x80, 0x01, 0x83, 0x3C, 0x7B, 0xFB, 0x7C, 0xFC, 0x7D, 0x55]
    if kind == "f16":
        return [0, 0x8000, 1, 0x83FF, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x3555]
    if kind == "bf16":
        return [0, 0x8000, 1, 0x3F80, 0xBF81, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0x1234, 0x4049]
    if kind == "tf32":
        return [0, 0x80000000, 0x3F800000, 0x3F801FFF, 0x7F7FE000, 0x7F800000, 0xFF800000,
                0x7FC00000, 0x40490FDB]  # fmt: skip
    return [0, 1 << 63, 1, 0x3FF0000000000000, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000,
            0xFFF0000000000000, 0x7FF8000000000000, 0x400921FB54442D18]  # fmt: skip


def _same(kind: str, got: int, wanted: int) -> bool:
    f = {"f16": F16, "f32": F32, "f64": F64}[kind]
    zero = not (got | wanted) & (f.sign - 1)  # the sign of a zero sum is not said
    return got == wanted or zero or (f.is_nan(got) and f.is_nan(wanted))


@pytest.mark.parametrize(
    "text",
    [case.text for case in DENSE if case.a[0] not in "sub" or case.a == "bf16"],
)
def test_edge_values(text: str) -> None:
    """One product in each sum, so that what it must be is known to the last bit."""
    case = BY_TEXT[text]
    m, n, k = case.sizes
    lefts, rights = _edge_bits(case.a), _edge_bits(case.b)
    pairs = [*itertools.product(lefts, rights)]
    for start in range(0, len(pairs), m):
        a, c = [[0] * k for _ in range(m)], [[0] * n for _ in range(m)]
        b = [[0] * n for _ in range(k)]
        # row i has its factor in column i % k; all columns of b are alike
        for i, (x, y) in enumerate(pairs[start : start + min(m, k)]):
            a[i][i] = x
            b[i] = [y] * n
        got = run(case, a, b, c)
        for i, row in enumerate(expected(case, a, b, c)):
            # inf * 0 of the other rows' factors is part of the sum as well
            for j, value in enumerate(row):
                wanted = rounded(case.d, value)
                if case.a == "bf16" and not isinstance(value, float):
                    product = abs(Fraction(value))
                    if product and product < Fraction(1, 1 << 126):
                        continue  # below f32's normal numbers
                assert _same(case.d, got[i][j], wanted), (i, j, hex(got[i][j]), hex(wanted))


@pytest.mark.parametrize("text", [c.text for c in DENSE if c.d in ("f16", "f32")])
def test_any_values_within_a_tolerance(text: str) -> None:
    """Sums of f32 roundings: each may lose half of the last bit of the largest partial sum."""
    case = BY_TEXT[text]
    m, n, k = case.sizes
    random_ = random.Random(text)

    def some(kind: str, rows: int, columns: int) -> Matrix:
        def one() -> int:
            x = random_.uniform(-2, 2)
            if kind in fragments.TINY:
                return random_.choice([v for v in range(256) if v & 0x7F < 0x48])
            return fragments._FORMATS[kind].round(Fraction(x))

        return [[one() for _ in range(columns)] for _ in range(rows)]

    a, b, c = some(case.a, m, k), some(case.b, k, n), some(case.c, m, n)
    got, exact = run(case, a, b, c), expected(case, a, b, c)
    for i, j in itertools.product(range(m), range(n)):
        size = Fraction(
            sum(abs(number(case.a, a[i][s]) * number(case.b, b[s][j])) for s in range(k))
        ) + abs(Fraction(number(case.c, c[i][j])))
        error = abs(Fraction(number(case.d, got[i][j])) - Fraction(exact[i][j]))
        allowed = size * (k + 2) / (1 << 24)
        if case.d == "f16":
            allowed += abs(Fraction(exact[i][j])) / (1 << 11) + Fraction(1, 1 << 25)
        assert error <= allowed, (i, j, float(error), float(allowed))


@pytest.mark.parametrize("shape", ["m8n8k4", "m16n8k8"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_f64_rounding(shape: str, mode: str) -> None:
    """A chain of fused steps in the order of K, each rounded as it says."""
    text = f"mma.sync.aligned.{shape}.row.col.f64.f64.f64.f64"
    case = BY_TEXT[text]
    m, n, k = case.sizes
    random_ = random.Random(mode + shape)

    def some(rows: int, columns: int) -> Matrix:
        return [
            [F64.round(Fraction(random_.uniform(-3, 3))) for _ in range(columns)]
            for _ in range(rows)
        ]

    a, b, c = some(m, k), some(k, n), some(m, n)
    wanted = []
    for i in range(m):
        row = []
        for j in range(n):
            x = c[i][j]
            for s in range(k):
                x = fragments.softfloat.fma(F64, a[i][s], b[s][j], x, mode)
            row.append(x)
        wanted.append(row)
    spelled = text.replace(".row.col.", f".row.col.{mode}.")
    assert run(case, a, b, c, spelled) == wanted
    assert run(case, a, b, c, f"{text}.{mode}") == wanted


@pytest.mark.parametrize("text", [c.text for c in DENSE if c.a in ("s8", "u8", "s4", "u4")])
def test_integers_wrap_or_saturate(text: str) -> None:
    case = BY_TEXT[text]
    m, n, k = case.sizes
    random_ = random.Random(text)
    top = (1 << BITS[case.a]) - 1
    a = [[random_.choice((0, 1, top, top // 2, top // 2 + 1)) for _ in range(k)] for _ in range(m)]
    b = [[random_.choice((0, 1, top, top // 2, top // 2 + 1)) for _ in range(n)] for _ in range(k)]
    ends = (0x7FFFFFFF, 0x80000000, 0x7FFFFFF0, 0x80000010, 0)
    c = [[random_.choice(ends) for _ in range(n)] for _ in range(m)]
    exact = [[int(x) for x in row] for row in expected(case, a, b, c)]
    assert run(case, a, b, c) == [[x & 0xFFFFFFFF for x in row] for row in exact]
    clamped = [[min(max(x, -(1 << 31)), (1 << 31) - 1) & 0xFFFFFFFF for x in r] for r in exact]
    for spelled in (text + ".satfinite", text.replace(".s32.", ".satfinite.s32.", 1)):
        assert run(case, a, b, c, spelled) == clamped


# ------------------------------------------------------------------ m8n8k4 of f16


def _quarter_a(lane: int, i: int, layout: str) -> Tuple[int, int]:
    if layout == "row":
        return (lane % 4 if lane < 16 else lane % 4 + 4), i
    return (i % 4 if lane < 16 else i % 4 + 4), lane % 4


def _quarter_b(lane: int, i: int, layout: str) -> Tuple[int, int]:
    if layout == "row":
        return lane % 4, (i if lane < 16 else i + 4)
    return i, (lane % 4 if lane < 16 else lane % 4 + 4)


def _quarter_c(lane: int, i: int, kind: str) -> Tuple[int, int]:
    if kind == "f16":
        return (lane % 4 if lane < 16 else lane % 4 + 4), i
    x = (lane & 0b1) + (i & 0b10)
    return (x if lane < 16 else x + 4), (i & 0b100) + (lane & 0b10) + (i & 0b1)


@pytest.mark.parametrize("layouts", ["row.col", "col.row", "row.row", "col.col"])
@pytest.mark.parametrize(("d", "c"), QUARTERS)
def test_four_multiplications_of_quarter_warps(layouts: str, d: str, c: str) -> None:
    """m8n8k4: lanes 0-3 and 16-19 compute one, lanes 4-7 and 20-23 the next, and so on."""
    random_ = random.Random(layouts + d + c)
    first, second = layouts.split(".")
    case = Case(f"mma.sync.aligned.m8n8k4.{layouts}.{d}.f16.f16.{c}", "m8n8k4", d, "f16", "f16", c)
    a, b, cs = numpy.zeros((4, 8, 4)), numpy.zeros((4, 4, 8)), numpy.zeros((4, 8, 8))
    lanes: Dict[str, List[List[int]]] = {"a": [], "b": [], "c": []}

    def fill(
        lane: int,
        count: int,
        kind: str,
        place: Callable[[int, int, str], Tuple[int, int]],
        how: str,
        matrix: numpy.ndarray,
    ) -> List[int]:
        bits = []
        for i in range(count):
            value = random_.randint(-9, 9)
            matrix[lane % 16 // 4][place(lane, i, how)] = value
            bits.append(encode(kind, value))
        if kind == "f16":
            return [low | high << 16 for low, high in zip(bits[::2], bits[1::2])]
        return bits

    for lane in range(32):
        lanes["a"].append(fill(lane, 4, "f16", _quarter_a, first, a))
        lanes["b"].append(fill(lane, 4, "f16", _quarter_b, second, b))
        lanes["c"].append(fill(lane, 8, c, _quarter_c, c, cs))
    wanted = a @ b + cs

    class Quarters(Case):
        def registers(self) -> Tuple[int, int, int, int]:
            return (4 if self.d == "f16" else 8, 2, 2, 4 if self.c == "f16" else 8)

    quarters = Quarters(*case)
    program = machine().compile(HEAD + kernel("k", quarters))
    out = zeros(32 * quarters.registers()[0], "u4")
    arrays = [array(lanes[x], "u4") for x in "abc"]
    program.launch("k", 1, 32, out, *arrays, zeros(32, "u4"))
    got = out.view("f2" if d == "f16" else "f4").reshape(32, 8)
    for lane in range(32):
        for i in range(8):
            assert got[lane, i] == wanted[lane % 16 // 4][_quarter_c(lane, i, d)], (lane, i)


# ------------------------------------------------------------------ the warp


def test_a_part_of_the_warp_is_an_error() -> None:
    """Some threads that never come are a fault which says so, not a wrong sum."""
    case = BY_TEXT["mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"]
    text = (
        kernel("k", case)
        .replace(case.text, f"setp.lt.u32 half, lane, 16; @half {case.text}")
        .replace(".reg .b64 p;", ".reg .b64 p; .reg .pred half;")
    )
    program = machine().compile(HEAD + text)
    data = zeros(32 * 8, "u4")
    with pytest.raises(DeviceFault, match="not all 32 threads of the warp"):
        program.launch("k", 1, 32, zeros(128, "u4"), data, data, data, data)


def test_lanes_that_come_one_after_the_other_meet() -> None:
    case = BY_TEXT["mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"]
    text = (
        kernel("k", case)
        .replace(
            case.text,
            "setp.lt.u32 half, lane, 16; @half bra LATE; mov.u32 e0, 1; LATE: " + case.text,
        )
        .replace(".reg .b64 p;", ".reg .b64 p; .reg .pred half;")
    )
    program = machine().compile(HEAD + text)
    ones = array([0x3C003C00] * 128, "u4")
    out = zeros(128, "f4")
    program.launch("k", 1, 32, out, ones, ones, zeros(128, "f4"), zeros(32, "u4"))
    assert out.tolist() == [8.0] * 128


@pytest.mark.parametrize(
    "text",
    [
        "mma.sync.aligned.m16n8k8.col.row.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32.satfinite",
        "mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e4m3.f32",
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.bf16.f32",
    ],
)
def test_unknown_forms_fault(text: str) -> None:
    case = Case(text, "m16n8k8", "f32", "f16", "f16", "f32")
    program = machine().compile(HEAD + kernel("k", case))
    data = zeros(256, "u4")
    with pytest.raises(DeviceFault) as caught:
        program.launch("k", 1, 32, data, data, data, data, data)
    assert caught.value.error == 715 and "mma.sync" in caught.value.text
