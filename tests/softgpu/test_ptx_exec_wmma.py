# SPDX-License-Identifier: Apache-2.0
"""wmma: fragments to and from memory in all shapes, layouts and spaces; ldmatrix and its kin."""

from __future__ import annotations

import itertools
import random
from typing import List, NamedTuple, Tuple

import numpy
import pytest
from forms import HEAD
from fragments import BITS, encode, number, rounded, shape_of
from machine import DeviceFault, aligned, array, machine, zeros

Matrix = List[List[int]]
SQUARE = ("m16n16k16", "m8n32k16", "m32n8k16")


class Case(NamedTuple):
    """One multiplication; ``types`` is how wmma.mma spells it."""

    shape: str
    d: str
    factor: str
    c: str
    types: str

    def __str__(self) -> str:
        return f"{self.shape}.{self.types}"


def _cases() -> List[Case]:
    cases = []
    for shape in SQUARE:
        for d, c in itertools.product(("f16", "f32"), repeat=2):
            cases.append(Case(shape, d, "f16", c, f"{d}.{c}"))
        cases.append(Case(shape, "f32", "bf16", "f32", "f32.bf16.bf16.f32"))
        for kind in ("s8", "u8"):
            cases.append(Case(shape, "s32", kind, "s32", f"s32.{kind}.{kind}.s32"))
    cases.append(Case("m16n16k8", "f32", "tf32", "f32", "f32.tf32.tf32.f32"))
    for kind in ("s4", "u4"):
        cases.append(Case("m8n8k32", "s32", kind, "s32", f"s32.{kind}.{kind}.s32"))
    cases.append(Case("m8n8k128", "s32", "b1", "s32", "s32.b1.b1.s32"))
    cases.append(Case("m8n8k4", "f64", "f64", "f64", "f64.f64.f64.f64"))
    return cases


CASES = _cases()

# how many registers the ISA gives a fragment: of a, b, and an accumulator of 32 bits
REGISTERS = {
    ("m16n16k16", 16): (4, 4, 8), ("m8n32k16", 16): (2, 8, 8), ("m32n8k16", 16): (8, 2, 8),
    ("m16n16k16", 8): (2, 2, 8), ("m8n32k16", 8): (1, 4, 8), ("m32n8k16", 8): (4, 1, 8),
    ("m16n16k8", 32): (4, 4, 8), ("m8n8k32", 4): (1, 1, 2), ("m8n8k128", 1): (1, 1, 2),
    ("m8n8k4", 64): (1, 1, 2),
}  # fmt: skip


def count(case: Case, part: str) -> int:
    a, b, c = REGISTERS[(case.shape, BITS[case.factor])]
    if case.factor == "f16":
        a = b = 8
    kind = {"a": case.factor, "b": case.factor, "c": case.c, "d": case.d}[part]
    return {"a": a, "b": b}.get(part, 4 if kind == "f16" else c)


def kind_of(case: Case, part: str) -> str:
    return {"a": case.factor, "b": case.factor, "c": case.c, "d": case.d}[part]


def extent(case: Case, part: str) -> Tuple[int, int]:
    m, n, k = shape_of(case.shape)
    return {"a": (m, k), "b": (k, n)}.get(part, (m, n))


def in_memory(values: Matrix, kind: str, layout: str, stride: int) -> numpy.ndarray:
    """Lay a matrix out: lines ``stride`` elements apart, ones between them."""
    lines = values if layout == "row" else [list(column) for column in zip(*values)]
    bits = BITS[kind]
    made = 0
    end = 0
    for i, line in enumerate(lines):
        for j, x in enumerate(line):
            made |= x << (i * stride + j) * bits
        end = (i * stride + len(line)) * bits // 8
    data = aligned(end)
    data[:] = numpy.frombuffer(made.to_bytes(end, "little"), numpy.uint8)
    return data


def from_memory(
    data: numpy.ndarray, kind: str, layout: str, stride: int, size: Tuple[int, int]
) -> Matrix:
    rows, columns = size
    bits = BITS[kind]
    all_ = int.from_bytes(data.tobytes(), "little")

    def at(i: int, j: int) -> int:
        place = i * stride + j if layout == "row" else j * stride + i
        return all_ >> place * bits & ((1 << bits) - 1)

    return [[at(i, j) for j in range(columns)] for i in range(rows)]


def line_of(case: Case, part: str, layout: str) -> int:
    rows, columns = extent(case, part)
    return columns if layout == "row" else rows


def names(part: str, registers: int) -> str:
    return "{" + ", ".join(f"{part}{i}" for i in range(registers)) + "}"


def load(case: Case, part: str, layout: str, stride: str) -> str:
    tail = f", {stride}" if stride else ""
    fragment = names(part, count(case, part))
    return (
        f"ld.param.u64 p, [x{part}];\nwmma.load.{part}.sync.aligned.{layout}.{case.shape}.global"
        f".{kind_of(case, part)} {fragment}, [p]{tail};"
    )


def kernel(case: Case, body: str) -> str:
    word = 64 if case.factor == "f64" else 32
    registers = " ".join(f".reg .b{word} {x}<{count(case, x)}>;" for x in "abcd")
    return f"""{HEAD}.visible .entry k(.param .u64 xa, .param .u64 xb, .param .u64 xc,
        .param .u64 xd, .param .u32 sa, .param .u32 sb, .param .u32 sc, .param .u32 sd) {{
        {registers} .reg .b64 p; .reg .b32 s;
        {body}
        ret; }}"""


def multiply(
    case: Case, layouts: Tuple[str, str, str, str], strides: Tuple[int, int, int, int],
    matrices: Tuple[Matrix, Matrix, Matrix], verb: str = "", tail: str = "", middle: str = "",
    named: bool = True,
) -> Matrix:  # fmt: skip
    """Load a, b, c, multiply, store d; all of global memory."""
    parts = []
    for part, layout in zip("abc", layouts):
        parts.append(f"ld.param.u32 s, [s{part}];" + load(case, part, layout, "s" * named))
    fragments = ", ".join(names(x, count(case, x)) for x in "dabc")
    parts.append(middle)
    parts.append(
        f"wmma.mma{verb}.sync.aligned.{layouts[0]}.{layouts[1]}.{case.shape}.{case.types}{tail}"
        f" {fragments};"
    )
    parts.append("ld.param.u64 p, [xd]; ld.param.u32 s, [sd];")
    parts.append(
        f"wmma.store.d.sync.aligned.{layouts[3]}.{case.shape}.global.{case.d} [p],"
        f" {names('d', count(case, 'd'))}{', s' * named};"
    )
    program = machine().compile(kernel(case, "\n".join(parts)))
    inputs = [
        in_memory(matrix, kind_of(case, part), layout, stride)
        for part, matrix, layout, stride in zip("abc", matrices, layouts, strides)
    ]
    size = extent(case, "d")
    lines = size[0] if layouts[3] == "row" else size[1]
    bits = ((lines - 1) * strides[3] + line_of(case, "d", layouts[3])) * BITS[case.d]
    out = aligned(bits // 8)
    program.launch("k", 1, 32, *inputs, out, *strides)
    return from_memory(out, case.d, layouts[3], strides[3], size)


def small(kind: str, size: Tuple[int, int], random_: random.Random) -> Matrix:
    low, high = (0, 1) if kind == "b1" else (0, 9) if kind[0] == "u" else (-7, 7)
    return [
        [encode(kind, random_.randint(low, high)) for _ in range(size[1])] for _ in range(size[0])
    ]


def exact(case: Case, a: Matrix, b: Matrix, c: Matrix, both: bool = False) -> List[List[int]]:
    left = numpy.array([[int(number(case.factor, x)) for x in row] for row in a], object)
    right = numpy.array([[int(number(case.factor, x)) for x in row] for row in b], object)
    start = numpy.array([[int(number(case.c, x)) for x in row] for row in c], object)
    if case.factor == "b1" and not both:
        return [[int(x) for x in row] for row in left @ (1 - right) + (1 - left) @ right + start]
    return [[int(x) for x in row] for row in left @ right + start]


def bits_of(case: Case, values: List[List[int]]) -> Matrix:
    return [[rounded(case.d, x) for x in row] for row in values]


def strides_of(case: Case, layouts: Tuple[str, str, str, str], more: int) -> Tuple[int, ...]:
    step = {1: 128, 4: 32}
    return tuple(
        line_of(case, part, layout) + more * step.get(BITS[kind_of(case, part)], 8)
        for part, layout in zip("abcd", layouts)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_layouts(case: Case) -> None:
    """Every layout of every matrix, lines together and apart."""
    random_ = random.Random(str(case))
    fixed = BITS[case.factor] < 8
    for a_layout, b_layout, c_layout in itertools.product(("row", "col"), repeat=3):
        if fixed and (a_layout, b_layout) != ("row", "col"):
            continue
        d_layout = "row" if a_layout == "col" else "col"
        layouts = (a_layout, b_layout, c_layout, d_layout)
        a, b, c = (small(kind_of(case, x), extent(case, x), random_) for x in "abc")
        more = random_.choice((0, 1, 3))
        strides = strides_of(case, layouts, more)
        verb = ".xor.popc" if case.factor == "b1" else ""
        got = multiply(case, layouts, strides, (a, b, c), verb, named=more > 0)  # type: ignore[arg-type]
        assert got == bits_of(case, exact(case, a, b, c)), layouts


def test_and_popc() -> None:
    case = next(case for case in CASES if case.factor == "b1")
    random_ = random.Random(1)
    a, b, c = (small(kind_of(case, x), extent(case, x), random_) for x in "abc")
    layouts = ("row", "col", "row", "row")
    strides = strides_of(case, layouts, 1)
    got = multiply(case, layouts, strides, (a, b, c), ".and.popc")  # type: ignore[arg-type]
    assert got == bits_of(case, exact(case, a, b, c, both=True))


@pytest.mark.parametrize("case", [c for c in CASES if c.d == "s32" and c.factor != "b1"], ids=str)
def test_saturation(case: Case) -> None:
    random_ = random.Random(2)
    a, b, c = (small(kind_of(case, x), extent(case, x), random_) for x in "abc")
    c = [[random_.choice((0x7FFFFFFF, 0x80000000, 5)) for _ in row] for row in c]
    layouts = ("row", "col", "row", "row")
    strides = strides_of(case, layouts, 0)
    values = exact(case, a, b, c)
    clamped = [[min(max(x, -(1 << 31)), (1 << 31) - 1) for x in row] for row in values]
    got = multiply(case, layouts, strides, (a, b, c), tail=".satfinite")  # type: ignore[arg-type]
    assert got == bits_of(case, clamped)
    got = multiply(case, layouts, strides, (a, b, c))  # type: ignore[arg-type]
    assert got == bits_of(case, values)


def test_f64_rounds_as_told() -> None:
    case = CASES[-1]
    one, tiny = encode("f64", 1), 1
    a = [[one, tiny, 0, 0]] + [[0] * 4 for _ in range(7)]
    b = [[one] * 8 for _ in range(4)]
    zero = [[0] * 8 for _ in range(8)]
    layouts = ("row", "col", "row", "row")
    for mode, wanted in (("rp", one + 1), ("rn", one), ("rz", one), ("rm", one)):
        got = multiply(case, layouts, (4, 4, 8, 8), (a, b, zero), tail=f".{mode}")
        assert got[0] == [wanted] * 8 and got[1] == [0] * 8


# ------------------------------------------------------------------ element by element


def test_the_elements_of_accumulators_agree_between_types() -> None:
    """Converting a fragment element by element is converting the matrix: x[i] is x[i]."""
    for shape in SQUARE:
        case = Case(shape, "f16", "f16", "f32", "f16.f32")
        m, n, _ = shape_of(shape)
        body = load(case, "c", "row", str(n))
        body += "".join(
            f"cvt.rn.f16x2.f32 d{i}, c{2 * i + 1}, c{2 * i};" for i in range(count(case, "d"))
        )
        body += "ld.param.u64 p, [xd];"
        body += f"wmma.store.d.sync.aligned.row.{shape}.global.f16 [p], {names('d', 4)}, {n};"
        program = machine().compile(kernel(case, body))
        values = numpy.arange(m * n, dtype="f4")
        out = zeros(m * n, "f2")
        dummy = zeros(1, "u4")
        program.launch("k", 1, 32, dummy, dummy, array(values, "f4"), out, 0, 0, 0, 0)
        assert out.tolist() == values.tolist()


@pytest.mark.parametrize("case", [c for c in CASES if c.factor == "f16"], ids=str)
def test_scaling_a_fragment_scales_the_matrix(case: Case) -> None:
    random_ = random.Random(3)
    a, b, c = (small(kind_of(case, x), extent(case, x), random_) for x in "abc")
    layouts = ("col", "row", "row", "row")
    doubled = "".join(f"add.f16x2 a{i}, a{i}, a{i};" for i in range(8))
    strides = strides_of(case, layouts, 0)
    got = multiply(case, layouts, strides, (a, b, c), middle=doubled)  # type: ignore[arg-type]
    twice = [[encode("f16", 2 * int(number("f16", x))) for x in row] for row in a]
    assert got == bits_of(case, exact(case, twice, b, c))


# ------------------------------------------------------------------ spaces and faults

SHARED = (
    HEAD
    + """.shared .align 32 .b8 tile[1024];
.visible .entry k(.param .u64 in, .param .u64 out) {
.reg .b32 a<8>, f<8>, t, s; .reg .b64 p, q, g;
ld.param.u64 p, [in]; mov.u32 t, %tid.x; mul.wide.u32 q, t, 16; add.u64 p, p, q;
.reg .b32 v<4>; ld.global.v4.u32 {v0, v1, v2, v3}, [p];
mov.u32 s, tile; mad.lo.u32 t, t, 16, s; st.shared.v4.u32 [t], {v0, v1, v2, v3};
bar.warp.sync -1; mov.u64 g, tile; cvta.shared.u64 g, g; ld.param.u64 q, [out];
"""
)


@pytest.mark.parametrize(
    ("first", "second"),
    [(".shared", "[s]"), (".shared::cta", "[s]"), ("", "[g]"), (".shared", "[tile]")],
)
def test_shared_and_generic_addresses(first: str, second: str) -> None:
    """16 by 16 halves through shared memory, transposed on the way out."""
    text = f"""{SHARED}
wmma.load.c.sync.aligned.row.m16n16k16{first}.f16 {{a0, a1, a2, a3}}, {second}, 16;
wmma.store.d.sync.aligned.col.m16n16k16{first}.f16 {second}, {{a0, a1, a2, a3}}, 16;
bar.warp.sync -1; ld.shared.v4.u32 {{v0, v1, v2, v3}}, [t];
sub.u32 t, t, s; cvt.u64.u32 p, t; add.u64 q, q, p; st.global.v4.u32 [q], {{v0, v1, v2, v3}};
ret; }}"""
    values = numpy.arange(256, dtype="u2").reshape(16, 16)
    out = zeros(256, "u2")
    machine().compile(text).launch("k", 1, 32, array(values, "u2"), out)
    assert (out.reshape(16, 16) == values.T).all()


def test_a_matrix_that_ends_too_early_faults() -> None:
    case = CASES[0]
    program = machine().compile(kernel(case, load(case, "a", "row", "16")))
    whole, short = zeros(256, "u2"), zeros(255, "u2")
    program.launch("k", 1, 32, whole, whole, whole, whole, 0, 0, 0, 0)
    with pytest.raises(DeviceFault, match="no global memory"):
        program.launch("k", 1, 32, short, whole, whole, whole, 0, 0, 0, 0)


# ------------------------------------------------------------------ ldmatrix, stmatrix, movmatrix


def fragment(rows: numpy.ndarray, lane: int) -> int:
    """The register of a lane for one 8 by 8 matrix: two neighbours of row lane / 4."""
    low, high = rows[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()
    return int(low | high << 16)


def _matrix_kernel(body: str) -> str:
    return (
        HEAD
        + f""".shared .align 16 .b8 tile[1024];
.visible .entry k(.param .u64 in, .param .u64 out) {{
.reg .b32 r<4>, v<4>, t, s, lane, at; .reg .b64 p, q, g; .reg .pred first;
ld.param.u64 p, [in]; mov.u32 lane, %tid.x; mul.wide.u32 q, lane, 16; add.u64 p, p, q;
mov.u32 s, tile; xor.b32 t, lane, 5; mad.lo.u32 t, t, 16, s;
ld.param.u64 g, [out]; add.u64 g, g, q;
mov.b32 r0, 0; mov.b32 r1, 0; mov.b32 r2, 0; mov.b32 r3, 0;
{body} ret; }}"""
    )


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("number_", [1, 2, 4])
@pytest.mark.parametrize("space", [".shared", ".shared::cta", ""])
def test_ldmatrix(trans: str, number_: int, space: str) -> None:
    """Rows lie in shared memory where the lanes say; here in an order of their own."""
    address = "[t]" if space else "[p]"
    generic = "" if space else "cvt.u64.u32 p, t; cvta.shared.u64 p, p;"
    registers = "{" + ", ".join(f"r{i}" for i in range(number_)) + "}"
    program = machine().compile(
        _matrix_kernel(
            f"""ld.global.v4.u32 {{v0, v1, v2, v3}}, [p]; st.shared.v4.u32 [t], {{v0, v1, v2, v3}};
            bar.warp.sync -1; {generic}
            ldmatrix.sync.aligned.m8n8.x{number_}{trans}{space}.b16 {registers}, {address};
            st.global.v4.u32 [g], {{r0, r1, r2, r3}};"""
        )
    )
    rows = numpy.random.default_rng(number_).integers(0, 1 << 16, (32, 8))
    out = zeros(128, "u4")
    program.launch("k", 1, 32, array(rows, "u2"), out)
    got = out.reshape(32, 4)
    for lane, k in itertools.product(range(32), range(4)):
        matrix = rows[8 * k : 8 * k + 8]
        wanted = fragment(matrix.T if trans else matrix, lane) if k < number_ else 0
        assert got[lane, k] == wanted, (lane, k)


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("number_", [1, 2, 4])
def test_stmatrix(trans: str, number_: int) -> None:
    registers = "{" + ", ".join(f"v{i}" for i in range(number_)) + "}"
    program = machine().compile(
        _matrix_kernel(
            f"""st.shared.v4.u32 [t], {{r0, r1, r2, r3}}; bar.warp.sync -1;
            ld.global.v4.u32 {{v0, v1, v2, v3}}, [p];
            stmatrix.sync.aligned.m8n8.x{number_}{trans}.shared.b16 [t], {registers};
            bar.warp.sync -1; ld.shared.v4.u32 {{r0, r1, r2, r3}}, [t];
            st.global.v4.u32 [g], {{r0, r1, r2, r3}};"""
        )
    )
    rows = numpy.random.default_rng(number_).integers(0, 1 << 16, (32, 8))
    registers_in = [
        [fragment(m.T if trans else m, lane) for m in (rows[8 * k : 8 * k + 8] for k in range(4))]
        for lane in range(32)
    ]
    out = zeros(256, "u2")
    program.launch("k", 1, 32, array(registers_in, "u4"), out)
    wanted = rows.copy()
    wanted[8 * number_ :] = 0
    assert (out.reshape(32, 8) == wanted).all()


def test_movmatrix() -> None:
    program = machine().compile(
        _matrix_kernel(
            """ld.global.u32 v0, [p]; movmatrix.sync.aligned.m8n8.trans.b16 r0, v0;
            st.global.u32 [g], r0;"""
        )
    )
    rows = numpy.random.default_rng(5).integers(0, 1 << 16, (8, 8))
    data = [[fragment(rows, lane), 0, 0, 0] for lane in range(32)]
    out = zeros(128, "u4")
    program.launch("k", 1, 32, array(data, "u4"), out)
    assert out.reshape(32, 4)[:, 0].tolist() == [fragment(rows.T, lane) for lane in range(32)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "add.u32 t, t, 2; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {r0}, [t];",
            "not aligned to 16",
        ),
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {r0}, [t+1024];", "no shared memory"),
        (
            "add.u32 t, t, 8; stmatrix.sync.aligned.m8n8.x1.shared.b16 [t], {r0};",
            "not aligned to 16",
        ),
        ("ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {r0, r1}, [t];", "ldmatrix"),
    ],
)
def test_rows_elsewhere_fault(body: str, message: str) -> None:
    program = machine().compile(_matrix_kernel(body))
    with pytest.raises(DeviceFault, match=message):
        program.launch("k", 1, 32, zeros(128, "u4"), zeros(128, "u4"))
