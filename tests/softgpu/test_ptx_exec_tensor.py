# SPDX-License-Identifier: Apache-2.0
"""Tensor copies against NumPy: tiles and im2col, strides, swizzles, what lies outside."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Dict, List, Optional, Sequence, Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, array, machine, zeros

TYPES = {
    "u8": (0, "u1"), "u16": (1, "u2"), "u32": (2, "u4"), "s32": (3, "i4"), "u64": (4, "u8"),
    "s64": (5, "i8"), "f16": (6, "f2"), "f32": (7, "f4"), "f64": (8, "f8"),
}  # fmt: skip
SHARED = 32768


def tensor_map(
    data: numpy.ndarray,
    kind: str,
    dims: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int] = (),
    steps: Sequence[int] = (),
    swizzle: int = 0,
    fill: int = 0,
    im2col: Optional[Tuple[Sequence[int], Sequence[int], int, int]] = None,
) -> bytes:
    """The bytes that the driver makes; strides are of dimension 1 and up, in bytes."""

    def padded(values: Sequence[int], count: int, missing: int) -> List[int]:
        return [*values, *[missing] * count][:count]

    lower, upper, channels, pixels = im2col or ((), (), 0, 0)
    packed = struct.pack(
        "<QQ4Q5I5H3h3hHH5B5B", 0x70616D2D72736E74, int(data.ctypes.data), *padded(strides, 4, 0),
        *padded([d - 1 for d in dims], 5, 0), *padded(box, 5, 0), *padded(lower, 3, 0),
        *padded(upper, 3, 0), channels, pixels, *padded(steps, 5, 1), TYPES[kind][0], len(dims),
        swizzle, fill, im2col is not None,
    )  # fmt: skip
    return packed.ljust(128, b"\0")


def entry(body: str, coordinates: int) -> str:
    """Thread 0 copies; ``c0``… are the coordinates, ``m`` the map; all write ``s`` to ``out``."""
    loads = " ".join(f"ld.global.u32 c{n}, [x+{4 * n}];" for n in range(coordinates))
    return f"""{HEAD}.visible .entry k(.param .align 64 .b8 map[128], .param .u64 out,
    .param .u64 at, .param .u64 in) {{
    .reg .b64 o, i, x, y, m; .reg .b32 t, c<5>, a; .reg .b16 w<3>; .reg .pred p, c;
    .reg .b64 q<2>; .shared .align 1024 .b8 s[{SHARED}]; .shared .align 8 .b64 bar;
    mov.u64 m, map; cvta.param.u64 m, m; ld.param.u64 o, [out]; ld.param.u64 x, [at];
    ld.param.u64 i, [in]; {loads} mov.u32 t, %tid.x; setp.eq.u32 c, t, 0;
    @c mbarrier.init.shared.b64 [bar], 1; fence.proxy.async; bar.sync 0;
    {body}
    mul.wide.u32 x, t, 16; add.u64 o, o, x; mov.u32 a, s; mad.lo.u32 a, t, 16, a;
    DUMP: ld.shared.v2.u64 {{q0, q1}}, [a]; st.global.v2.u64 [o], {{q0, q1}};
    add.u64 o, o, 1024; add.u32 a, a, 1024; add.u32 t, t, 64; setp.lt.u32 p, t, {SHARED // 16};
    @p bra DUMP; ret; }}"""


WAIT = "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 0; @!p bra AGAIN;"


def places(rows: int, row: int, swizzle: int) -> List[int]:
    """Where the bytes of rows of ``row`` bytes lie, in order."""
    span = {0: row, 1: 32, 2: 64, 3: 128, 4: 128}[swizzle]
    found = []
    for n, byte in itertools.product(range(rows), range(row)):
        at = n * max(row, span) + byte
        line, chunk, inside = at // span, at % span // 16, at % 16
        if swizzle in (1, 2, 3):
            chunk ^= line * span // 128 % (span // 16)
        elif swizzle == 4:
            chunk ^= 2 * (line % 4)
        found.append(line * span + 16 * chunk + inside if swizzle else at)
    return found


def load(
    map_bytes: bytes,
    coordinates: Sequence[int],
    size: int,
    data: numpy.ndarray,
    form: str = "tile",
    offsets: str = "",
    to: str = "shared::cluster",
) -> bytes:
    """Load into shared memory; returns all of it."""
    rank = 2 if "gather" in form else len(coordinates)
    names = ", ".join(f"c{n}" for n in range(len(coordinates)))
    mode = f".{form}" if form else ""
    out = zeros(SHARED, "u1")
    text = entry(
        f"""@c mbarrier.arrive.expect_tx.shared.b64 _, [bar], {size};
        @c cp.async.bulk.tensor.{rank}d.{to}.global{mode}.mbarrier::complete_tx::bytes
            [s], [m, {{{names}}}], [bar]{offsets}; {WAIT}""",
        len(coordinates),
    )
    where = array([c & 0xFFFFFFFF for c in coordinates], "u4")
    machine().compile(text).launch("k", 1, 64, map_bytes, out, where, data)
    return bytes(out)


def box_of(
    tensor: numpy.ndarray, at: Sequence[int], box: Sequence[int], steps: Sequence[int]
) -> numpy.ndarray:
    """The box at these coordinates (innermost first); what lies outside is zero."""
    counts = [-(-size // step) for size, step in zip(box, steps)]
    found = numpy.zeros(counts[::-1], tensor.dtype)
    for index in itertools.product(*(range(c) for c in counts[1:])):
        place = [start + n * step for start, n, step in zip(at[1:], index, steps[1:])]
        if any(not 0 <= p < size for p, size in zip(place, tensor.shape[-2::-1])):
            continue
        line = tensor[tuple(place[::-1])]
        for n in range(counts[0]):
            if 0 <= at[0] + n < len(line):
                found[(*index[::-1], n)] = line[at[0] + n]
    return found


def make(
    kind: str, dims: Sequence[int], pad: int = 0
) -> Tuple[numpy.ndarray, numpy.ndarray, List[int]]:
    """A tensor of random numbers: memory, its values (outermost first), strides in bytes."""
    dtype = numpy.dtype(TYPES[kind][1])
    pitch = (dims[0] * dtype.itemsize + 15) // 16 * 16 + 16 * pad
    strides = [pitch]
    for size in dims[1:-1]:
        strides.append(strides[-1] * size)
    rows = int(numpy.prod(dims[1:])) if len(dims) > 1 else 1
    generator = numpy.random.default_rng(len(dims) * 100 + dims[0])
    memory = array(generator.integers(0, 200, rows * pitch // dtype.itemsize), dtype.str[1:])
    values = memory.reshape(rows, -1)[:, : dims[0]].reshape(*dims[::-1])
    return memory, values, strides[: len(dims) - 1]


SHAPES: List[Tuple[List[int], List[int]]] = [
    ([100], [32]), ([40, 9], [16, 4]), ([20, 6, 5], [16, 3, 2]), ([16, 5, 4, 3], [16, 2, 3, 2]),
    ([16, 3, 4, 2, 3], [16, 2, 2, 2, 2]),
]  # fmt: skip


@pytest.mark.parametrize(("dims", "box"), SHAPES)
@pytest.mark.parametrize("kind", sorted(TYPES))
def test_tiles(kind: str, dims: List[int], box: List[int]) -> None:
    memory, values, strides = make(kind, dims, pad=1)
    random_ = random.Random(kind)
    for where in range(3):
        at = [0] * len(dims) if not where else [random_.randrange(-3, d) for d in dims]
        wanted = box_of(values, at, box, [1] * len(dims)).tobytes()
        encoded = tensor_map(memory, kind, dims, strides, box)
        form = ("tile", "", "tile")[where]
        to = ("shared::cluster", "shared::cluster", "shared::cta")[where]
        found = load(encoded, at, len(wanted), memory, form, to=to)
        assert found[: len(wanted)] == wanted, (kind, at)
        assert not any(found[len(wanted) :])


@pytest.mark.parametrize("steps", [[1, 2], [1, 3], [5, 2]])
def test_traversal_strides(steps: List[int]) -> None:
    """The first dimension's is ignored; others make the box smaller."""
    memory, values, strides = make("u16", [64, 30])
    steps_used = [1, steps[1]]
    for at in ([0, 0], [-5, 3], [50, 25]):
        wanted = box_of(values, at, [32, 8], steps_used).tobytes()
        encoded = tensor_map(memory, "u16", [64, 30], strides, [32, 8], steps_used)
        assert load(encoded, at, len(wanted), memory)[: len(wanted)] == wanted


@pytest.mark.parametrize(
    ("swizzle", "inner"), [(1, 16), (2, 32), (3, 64), (4, 64), (3, 32), (1, 8), (2, 8)]
)
def test_swizzles(swizzle: int, inner: int) -> None:
    memory, values, strides = make("u16", [inner, 40])
    wanted = values[3 : 3 + 24].tobytes()
    encoded = tensor_map(memory, "u16", [inner, 40], strides, [inner, 24], swizzle=swizzle)
    found = load(encoded, [0, 3], len(wanted), memory)
    assert bytes(found[p] for p in places(24, 2 * inner, swizzle)) == wanted


@pytest.mark.parametrize(("kind", "bits"), [("f16", 0xFFFF), ("f32", 0x7FFFFFFF)])
def test_nan_outside(kind: str, bits: int) -> None:
    memory, values, strides = make(kind, [16, 4])
    encoded = tensor_map(memory, kind, [16, 4], strides, [16, 4], fill=1)
    found = load(encoded, [8, 2], 64 * values.itemsize, memory)
    dtype = f"u{values.itemsize}"
    got = numpy.frombuffer(found, dtype)[:64].reshape(4, 16)
    wanted = numpy.full((4, 16), bits, dtype)
    wanted[:2, :8] = values[2:, 8:].view(dtype)
    assert got.tolist() == wanted.tolist()


@pytest.mark.parametrize("swizzle", [0, 3])
@pytest.mark.parametrize("verb", ["", "add", "min", "max", "inc", "dec", "and", "or", "xor"])
def test_stores_and_reductions(verb: str, swizzle: int) -> None:
    """What lies outside is not written, nor is anything between the rows."""
    memory, values, strides = make("u32", [50, 12], pad=1)
    before = memory.copy()
    source = numpy.random.default_rng(4).integers(0, 200, 8 * 32, numpy.uint32)
    staged = numpy.zeros(SHARED, "u1")
    staged[places(8, 128, swizzle)] = source.view("u1")
    copy = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group"
    if verb:
        copy = f"cp.reduce.async.bulk.tensor.2d.global.shared::cta.{verb}.tile.bulk_group"
    text = entry(
        f"""@c mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024;
        @c cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
            [s], [i], 1024, [bar]; {WAIT}
        @c {copy} [m, {{c0, c1}}], [s]; cp.async.bulk.commit_group;
        cp.async.bulk.wait_group.read 0;""",
        2,
    )
    encoded = tensor_map(memory, "u32", [50, 12], strides, [32, 8], swizzle=swizzle)
    for at in ([0, 0], [30, 7], [-4, -2]):
        memory[:] = before
        wanted = memory.copy().reshape(12, -1)
        lines = source.reshape(8, 32)
        for n, k in itertools.product(range(8), range(32)):
            y, x = at[1] + n, at[0] + k
            if not (0 <= y < 12 and 0 <= x < 50):
                continue
            a, b = int(wanted[y, x]), int(lines[n, k])
            results: Dict[str, int] = {
                "": b, "add": a + b, "min": min(a, b), "max": max(a, b), "and": a & b,
                "or": a | b, "xor": a ^ b, "inc": 0 if a >= b else a + 1,
                "dec": b if a == 0 or a > b else a - 1,
            }  # fmt: skip
            wanted[y, x] = results[verb]
        where = array([c & 0xFFFFFFFF for c in at], "u4")
        machine().compile(text).launch(
            "k", 1, 64, encoded, zeros(SHARED, "u1"), where, array(staged, "u1"),
            visible=[memory],
        )  # fmt: skip
        assert memory.reshape(12, -1).tolist() == wanted.tolist(), at
    del values


def pixels_of(
    tensor: numpy.ndarray,
    start: Sequence[int],
    shift: Sequence[int],
    corners: Tuple[Sequence[int], Sequence[int]],
    steps: Sequence[int],
    size: Tuple[int, int],
) -> numpy.ndarray:
    """im2col of a tensor (n, [[d], h,] w, c): pixels in order, each shifted by the offsets."""
    spatial = tensor.shape[1:-1][::-1]
    channels, count = size
    ranges = [
        range(low, extent + high, step)
        for low, high, extent, step in zip(*corners, spatial, steps)
    ]
    order = [
        (n, *place)
        for n in range(tensor.shape[0] + 1)
        for place in itertools.product(*ranges[::-1])
    ]
    first = order.index((start[-1], *start[1:-1][::-1]))
    found = numpy.zeros((count, channels), tensor.dtype)
    for k, (n, *place) in enumerate(order[first : first + count]):
        at = [p + s for p, s in zip(place, shift[::-1])]
        inside = all(0 <= p < extent for p, extent in zip(at, spatial[::-1]))
        if n >= tensor.shape[0] or not inside:
            continue
        line = tensor[(n, *at)]
        for channel in range(channels):
            if start[0] + channel < len(line):
                found[k, channel] = line[start[0] + channel]
    return found


IM2COL = [
    ([24, 7, 3], [-1], [1], [1], [2]),
    ([16, 9, 2], [-1], [-1], [2], [0]),
    ([24, 6, 5, 2], [-1, -1], [-1, -1], [1, 1], [1, 2]),
    ([16, 8, 7, 2], [-2, 0], [0, -2], [2, 1], [2, 0]),
    ([16, 4, 3, 3, 2], [-1, -1, 0], [-1, 0, -1], [1, 1, 1], [0, 1, 1]),
]


@pytest.mark.parametrize(("dims", "lower", "upper", "steps", "shift"), IM2COL)
def test_im2col(
    dims: List[int], lower: List[int], upper: List[int], steps: List[int], shift: List[int]
) -> None:
    memory, values, strides = make("u16", dims)
    channels, count = 16, 20
    start = [8, *(low + step for low, step in zip(lower, steps)), 0]
    wanted = pixels_of(values, start, shift, (lower, upper), steps, (channels, count)).tobytes()
    for swizzle in (0, 1):
        encoded = tensor_map(
            memory, "u16", dims, strides, [1] * len(dims), [1, *steps, 1], swizzle,
            im2col=(lower, upper, channels, count),
        )  # fmt: skip
        offsets = "{" + ", ".join(map(str, shift)) + "}"
        found = load(encoded, start, len(wanted), memory, "im2col", f", {offsets}")
        assert bytes(found[p] for p in places(count, 32, swizzle)) == wanted


def test_im2col_stores() -> None:
    memory, values, strides = make("u16", [16, 4, 4, 2])
    memory[:] = 0
    encoded = tensor_map(
        memory, "u16", [16, 4, 4, 2], strides, [1] * 4, im2col=((0, 0), (0, 0), 16, 10)
    )
    source = numpy.arange(1, 161, dtype="u2")
    text = entry(
        f"""@c mbarrier.arrive.expect_tx.shared.b64 _, [bar], 320;
        @c cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
            [s], [i], 320, [bar]; {WAIT}
        @c cp.async.bulk.tensor.4d.global.shared::cta.im2col_no_offs.bulk_group
            [m, {{c0, c1, c2, c3}}], [s]; cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;""",
        4,
    )
    machine().compile(text).launch(
        "k", 1, 64, encoded, zeros(SHARED, "u1"), array([0, 2, 3, 0], "u4"),
        array(numpy.pad(source, (0, 100)), "u2"), visible=[memory],
    )  # fmt: skip
    wanted = numpy.zeros((32, 16), "u2")
    wanted[14:24] = source.reshape(10, 16)
    assert values.reshape(32, 16).tolist() == wanted.tolist()


def test_gather_and_scatter_of_rows() -> None:
    memory, values, strides = make("u32", [40, 20])
    rows = [7, 3, 19, 25]
    encoded = tensor_map(memory, "u32", [40, 20], strides, [8, 1])
    found = load(encoded, [4, *rows], 128, memory, "tile::gather4", to="shared::cta")
    wanted = numpy.zeros((4, 8), "u4")
    for n, row in enumerate(rows[:3]):
        wanted[n] = values[row, 4:12]
    assert found[:128] == wanted.tobytes()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rank": 3}, 719, "another number of dimensions"),
        ({"data": bytes(128)}, 719, "not a tensor map"),
        ({"im2col": True}, 719, "other mode"),
        ({"dims": [64, 4000]}, 700, "of the tensor"),
    ],
)
def test_faults(change: Dict[str, object], error: int, words: str) -> None:
    memory, _, strides = make("u16", [64, 30])
    dims = change.get("dims", [64, 30])
    assert isinstance(dims, list)
    encoded = tensor_map(memory, "u16", dims, strides, [32, 8])
    data = change.get("data", encoded)
    assert isinstance(data, bytes)
    coordinates = [0, 3000, 0][: int(str(change.get("rank", 2)))]
    form, offsets = ("im2col", ", {0}") if "im2col" in change else ("tile", "")
    if "im2col" in change:
        coordinates = [0, 0, 0]
        data = tensor_map(memory, "u16", [64, 30, 1], [*strides, 4096], [32, 8, 1])
    with pytest.raises(DeviceFault) as caught:
        load(data, coordinates, 512, memory, form, offsets)
    assert caught.value.error == error and words in caught.value.text


def test_a_map_travels_through_shared_memory() -> None:
    """tensormap.cp_fenceproxy puts it into global memory, where a copy uses it."""
    memory, values, strides = make("u32", [32, 8])
    encoded = tensor_map(memory, "u32", [32, 8], strides, [32, 8])
    text = entry(
        f"""mov.u32 a, s; mad.lo.u32 a, t, 4, a; mul.wide.u32 x, t, 4; add.u64 x, m, x;
        .reg .b32 v; setp.lt.u32 p, t, 32; @p ld.u32 v, [x]; @p st.shared.u32 [a], v;
        bar.sync 0; @!p bra SKIP;
        tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned
            [i], [s], 128; SKIP: bar.sync 0;
        fence.proxy.tensormap::generic.acquire.gpu [i], 128;
        cp.async.bulk.prefetch.tensor.2d.L2.global.tile [i, {{c0, c1}}];
        @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024;
        @c cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
            [s], [i, {{c0, c1}}], [bar]; {WAIT}""",
        2,
    )
    out, place = zeros(SHARED, "u1"), zeros(128, "u1")
    machine().compile(text).launch(
        "k", 1, 64, encoded, out, array([0, 0], "u4"), place, visible=[memory]
    )
    assert bytes(out[:1024]) == values.tobytes() and bytes(place) == encoded
