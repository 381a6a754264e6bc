# SPDX-License-Identifier: Apache-2.0
"""Textures and surfaces against the formulas of CUDA's programming guide, in NumPy."""

from __future__ import annotations

import ctypes
import itertools
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, array, machine, zeros

FORMATS = {
    "u1": 1, "u2": 2, "u4": 3, "i1": 8, "i2": 9, "i4": 10, "f2": 16, "f4": 32,
}  # fmt: skip
WRAP, CLAMP, MIRROR, BORDER = range(4)
TEXTURE, SURFACE = 1, 2
RANDOM = numpy.random.RandomState(31)


class Level(ctypes.Structure):
    _fields_ = [
        ("offset", ctypes.c_uint64), ("pitch", ctypes.c_uint64), ("slice", ctypes.c_uint64),
        ("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("depth", ctypes.c_uint32),
    ]  # fmt: skip


class Described(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint64), ("size", ctypes.c_uint64), ("levels", ctypes.c_uint32),
        ("layers", ctypes.c_uint32), ("kind", ctypes.c_uint8), ("format", ctypes.c_uint8),
        ("channels", ctypes.c_uint8), ("linear_memory", ctypes.c_uint8),
        ("address_mode", ctypes.c_uint8 * 3), ("filter", ctypes.c_uint8),
        ("mip_filter", ctypes.c_uint8), ("normalised", ctypes.c_uint8),
        ("as_integer", ctypes.c_uint8), ("srgb", ctypes.c_uint8), ("border", ctypes.c_float * 4),
        ("bias", ctypes.c_float), ("min_level", ctypes.c_float), ("max_level", ctypes.c_float),
        ("level", Level * 18),
    ]  # fmt: skip


class Object:
    """A texture or surface over texels of shape (slices, height, width, channels)."""

    def __init__(
        self,
        texels: numpy.ndarray,
        kind: int = TEXTURE,
        layered: bool = False,
        modes: Sequence[int] = (CLAMP, CLAMP, CLAMP),
        **more: int,
    ) -> None:
        slices, height, width, channels = texels.shape
        self.texels, self.kind = texels, kind
        self.memory = array(texels, texels.dtype.str)
        made = Described(
            address=self.memory.ctypes.data, size=self.memory.nbytes, levels=1,
            layers=slices if layered else 1, kind=kind, format=FORMATS[texels.dtype.str[1:]],
            channels=channels, border=(0.5, -2, 3, 4), **more,
        )  # fmt: skip
        made.address_mode[:] = modes
        pitch = width * channels * texels.itemsize
        made.level[0] = Level(0, pitch, pitch * height, width, height, 1 if layered else slices)
        library = machine().library
        library.sg_texture_add.restype = ctypes.c_uint64
        self.number = int(library.sg_texture_add(ctypes.byref(made)))
        assert self.number

    def remove(self) -> None:
        number = ctypes.c_uint64(self.number)
        assert machine().library.sg_texture_remove(number, self.kind) == 0


def texels_of(kind: str, shape: Tuple[int, int, int, int]) -> numpy.ndarray:
    count = int(numpy.prod(shape))
    if kind[0] == "f":
        return (RANDOM.randint(-4096, 4096, count) / 64).astype(kind).reshape(shape)
    data = RANDOM.bytes(count * int(kind[1]))
    return numpy.frombuffer(data, kind).reshape(shape)


def run(body: str, what: Object, words: numpy.ndarray, results: int = 4) -> numpy.ndarray:
    """Run ``body`` in a thread for each row of ``words``: words in, results out."""
    count, width = words.shape
    loads = " ".join(f"ld.global.b32 c{n}, [i+{4 * n}];" for n in range(width))
    stores = " ".join(f"st.global.b32 [o+{4 * n}], r{n};" for n in range(results))
    text = f"""{HEAD}.visible .entry k(.param .u64 number, .param .u64 in, .param .u64 out) {{
    .reg .b64 t, i, o, x, d<4>; .reg .b32 id, c<8>, r<8>, k; .reg .b16 h<4>; .reg .pred p;
    ld.param.u64 t, [number]; ld.param.u64 i, [in]; ld.param.u64 o, [out];
    mov.u32 id, %tid.x; setp.ge.u32 p, id, {count}; @p ret;
    mul.wide.u32 x, id, {4 * width}; add.u64 i, i, x;
    mul.wide.u32 x, id, {4 * results}; add.u64 o, o, x;
    {loads} {body} {stores} ret; }}"""
    given = array(words.astype("u4") if words.dtype.kind != "f" else words.view("u4"), "u4")
    out = zeros(count * results, "u4")
    block = (count + 31) // 32 * 32
    machine().compile(text).launch("k", 1, block, what.number, given, out, visible=[what.memory])
    return out.reshape(count, results)


def fractions(texels: numpy.ndarray) -> numpy.ndarray:
    """What a texture makes of its texels."""
    top = {"u1": 255, "u2": 65535, "i1": 127, "i2": 32767}.get(texels.dtype.str[1:])
    values = texels.astype("f8")
    return values if top is None else numpy.maximum(values / top, -1)


def fold(i: int, size: int, mode: int) -> Optional[int]:
    if mode == WRAP:
        return i % size
    if mode == MIRROR:
        return min(i % (2 * size), 2 * size - 1 - i % (2 * size))
    if mode == BORDER:
        return i if 0 <= i < size else None
    return min(max(i, 0), size - 1)


def sampled(
    values: numpy.ndarray,
    at: Sequence[float],
    sizes: Sequence[int],
    modes: Sequence[int],
    linear: bool,
    border: Sequence[float],
) -> List[float]:
    """The guide's formula in any number of dimensions; ``values`` is indexed x last."""
    axes: List[List[Tuple[Optional[int], float]]] = []
    for x, size, mode in zip(at, sizes, modes):
        low = int(numpy.floor(x - 0.5 if linear else x))
        weight = numpy.floor((x - 0.5 - low) * 256 + 0.5) / 256 if linear else 0
        axes.append([(fold(low, size, mode), 1 - weight), (fold(low + 1, size, mode), weight)])
    total = numpy.zeros(values.shape[-1])
    for corner in itertools.product(*axes):
        weight = float(numpy.prod([w for _, w in corner]))
        index = tuple(i for i, _ in corner)[::-1]
        outside = any(i is None for i in index)
        total += weight * (numpy.array(border)[: values.shape[-1]] if outside else values[index])
    return [*total, 0, 0, 0][:4]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("channels", (1, 2, 4))
def test_whole_coordinates_give_texels(kind: str, channels: int) -> None:
    texels = texels_of(kind, (1, 5, 9, channels))
    places = numpy.array([*itertools.product(range(-1, 10), range(-1, 6))], "i4")
    inside = texels[0, places[:, 1].clip(0, 4), places[:, 0].clip(0, 8)]
    for as_integer in (0, 1):
        what = Object(texels, as_integer=as_integer)
        out = run("tex.2d.v4.s32.s32 {r0, r1, r2, r3}, [t, {c0, c1}];", what, places)
        whole = kind in ("u4", "i4") or (as_integer and kind[0] != "f")
        found = out[:, :channels].view("i4" if whole else "f4")
        if whole:
            assert (found == inside.astype("i8").astype("u4").view("i4")).all()
        else:
            assert numpy.allclose(found, fractions(inside), rtol=1e-6)
        what.remove()


def spread(count: int, sizes: Sequence[int], normalised: int) -> numpy.ndarray:
    columns = [RANDOM.uniform(-1.5, 2.5, count) * (1 if normalised else size) for size in sizes]
    return numpy.stack(columns, 1).astype("f4")


CASES = [
    (dims, linear, normalised, mode)
    for dims in (1, 2, 3)
    for linear in (0, 1)
    for normalised, mode in ((0, CLAMP), (0, BORDER), *((1, mode) for mode in range(4)))
]


@pytest.mark.parametrize(("dims", "linear", "normalised", "mode"), CASES)
def test_addressing_and_filtering(dims: int, linear: int, normalised: int, mode: int) -> None:
    sizes = (9, 5, 4)[:dims]
    texels = texels_of("f4", (*((1, 1, *sizes[::-1])[-3:]), 4))
    modes = (mode, CLAMP if dims > 1 and normalised else mode, mode)
    what = Object(texels, modes=modes, filter=linear, normalised=normalised)
    at = spread(200, sizes, normalised)
    names = ("c0", "c0, c1", "c0, c1, c2, c2")[dims - 1]
    out = run(f"tex.{dims}d.v4.f32.f32 {{r0, r1, r2, r3}}, [t, {{{names}}}];", what, at)
    values = texels.reshape(*sizes[::-1], 4).astype("f8")
    for place, found in zip(at, out.view("f4")):
        scaled = [float(x) * (n if normalised else 1) for x, n in zip(place, sizes)]
        want = sampled(values, scaled, sizes, modes, bool(linear), (0.5, -2, 3, 4))
        assert numpy.allclose(found, want, rtol=1e-5, atol=1e-4), (place, found, want)
    what.remove()


def test_modes_that_need_normalised_coordinates_clamp() -> None:
    texels = texels_of("f4", (1, 1, 9, 1))
    at = numpy.array([[-3.5], [4.5], [12.5]], "f4")
    for mode in (WRAP, MIRROR):
        what = Object(texels, modes=(mode,) * 3)
        out = run("tex.1d.v4.f32.f32 {r0, r1, r2, r3}, [t, {c0}];", what, at)
        assert (out.view("f4")[:, 0] == texels[0, 0, [0, 4, 8], 0]).all()
        what.remove()


@pytest.mark.parametrize("geometry", ("a1d", "a2d"))
def test_layers(geometry: str) -> None:
    height = 1 if geometry == "a1d" else 5
    texels = texels_of("f2", (3, height, 9, 2))
    what = Object(texels, layered=True)
    rows = [(layer, x, y) for layer in range(5) for x in range(9) for y in range(height)]
    words = numpy.array(rows, "u4")
    words[:, 1:] = (words[:, 1:] + 0.5).astype("f4").view("u4")
    names = "c0, c1" if geometry == "a1d" else "c0, c1, c2, c2"
    out = run(f"tex.{geometry}.v4.f32.f32 {{r0, r1, r2, r3}}, [t, {{{names}}}];", what, words)
    for (layer, x, y), found in zip(rows, out.view("f4")):
        assert (found[:2] == texels[min(layer, 2), y, x]).all()
    what.remove()


def test_halves() -> None:
    texels = texels_of("f4", (1, 1, 16, 4))
    what = Object(texels)
    places = numpy.arange(16, dtype="u4").reshape(-1, 1)
    out = run("tex.1d.v2.f16x2.s32 {r0, r1}, [t, {c0}];", what, places, 2)
    assert (out.view("f2") == texels[0, 0].astype("f2")).all()
    body = """tex.1d.v4.f16.s32 {h0, h1, h2, h3}, [t, {c0}]; mov.b32 r0, {h0, h1};
        mov.b32 r1, {h2, h3};"""
    assert (run(body, what, places, 2) == out).all()
    what.remove()


def test_offsets_move_the_texel() -> None:
    texels = texels_of("f4", (1, 5, 9, 1))
    what = Object(texels)
    at = numpy.array([[3.5, 2.5]], "f4")
    out = run("tex.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {c0, c1}], {2, -1};", what, at)
    assert out.view("f4")[0, 0] == texels[0, 1, 5, 0]
    what.remove()


@pytest.mark.parametrize("fetch", ["tex.2d", "tld4.r.2d"])
def test_all_texels_are_resident(fetch: str) -> None:
    what = Object(texels_of("f4", (1, 5, 9, 1)))
    at = numpy.array([[3.5, 2.5], [-40, 2]], "f4")
    body = f"""{fetch}.v4.f32.f32 {{r0, r1, r2, r3}}|p, [t, {{c0, c1}}]; selp.b32 r4, 1, 0, p;
    {fetch}.v4.f32.f32 {{r5, _, _, _}}, [t, {{c0, c1}}]; setp.ne.b32 p, r0, r5;
    @p mov.b32 r4, 2;"""
    assert run(body, what, at, 5)[:, 4].tolist() == [1, 1]
    what.remove()


@pytest.mark.parametrize("component", range(4))
def test_gather(component: int) -> None:
    texels = texels_of("u1", (1, 5, 9, 4))
    what = Object(texels, filter=1)
    at = numpy.array([*itertools.product(range(1, 9), range(1, 5))], "f4")
    name = "rgba"[component]
    out = run(f"tld4.{name}.2d.v4.f32.f32 {{r0, r1, r2, r3}}, [t, {{c0, c1}}];", what, at)
    for (x, y), found in zip(at.astype(int), out.view("f4")):
        four = [texels[0, y, x - 1], texels[0, y, x], texels[0, y - 1, x], texels[0, y - 1, x - 1]]
        want = fractions(numpy.array(four, "u1"))[:, component]
        assert numpy.allclose(found, want, rtol=1e-6)
    what.remove()


def test_questions() -> None:
    what = Object(texels_of("u1", (3, 5, 9, 4)), layered=True, normalised=1)
    words = zeros(1, "u4").reshape(1, 1)
    for question, value in (
        ("width", 9), ("height", 5), ("array_size", 3), ("normalized_coords", 1),
        ("num_mipmap_levels", 1), ("channel_data_type", 0x10D2), ("channel_order", 0x10B5),
        ("force_unnormalized_coords", 0),
    ):  # fmt: skip
        assert run(f"txq.{question}.b32 r0, [t];", what, words, 1)[0, 0] == value
    body = """istypep.texref p, t; selp.u32 r0, 1, 0, p; istypep.surfref p, t;
        selp.u32 r1, 1, 0, p; add.u64 d0, t, 1; istypep.texref p, d0; selp.u32 r2, 1, 0, p;"""
    assert run(body, what, words, 3).tolist() == [[1, 0, 0]]
    what.remove()


# ------------------------------------------------------------------ surfaces

SIZES = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (4, 4), (8, 1), (8, 2)]


def moves() -> Iterator[Tuple[int, int, str, str]]:
    """Bytes of an element, their number, a load and a store of the same value."""
    for size, count in SIZES:
        letters = {1: "h", 2: "h", 4: "r", 8: "d"}[size]
        registers = ", ".join(f"{letters}{n}" for n in range(count))
        vector = f".v{count}" if count > 1 else ""
        kind = f"{vector}.b{8 * size}"
        load = f"suld.b.2d{kind}.trap {{{registers}}}, [t, {{c0, c1}}];"
        yield size, count, load, f"sust.b.2d{kind}.trap [t, {{c2, c1}}], {{{registers}}};"


@pytest.mark.parametrize(("size", "count", "load", "store"), moves())
def test_surfaces_of_every_size(size: int, count: int, load: str, store: str) -> None:
    channels = {1: 1, 2: 2, 4: 4}[count if size < 8 else 2 * count]
    texels = texels_of({1: "u1", 2: "u2"}.get(size, "u4"), (1, 4, 16, channels))
    what = Object(texels, SURFACE)
    step = size * count
    rows = [(x * step, y, (15 - x) * step) for y in range(4) for x in range(8)]
    run(load + store, what, numpy.array(rows, "u4"), 1)
    after = what.memory.reshape(texels.shape)
    assert (after[:, :, :8] == texels[:, :, :8]).all()
    assert (after[:, :, 8:] == texels[:, :, 7::-1]).all()
    what.remove()


def test_outside_of_a_surface() -> None:
    texels = texels_of("u4", (3, 4, 8, 1))
    what = Object(texels, SURFACE)
    at = numpy.array([*itertools.product((-4, 0, 28, 32), (-1, 0, 3, 4), (-1, 0, 2, 3))], "i4")
    place = "{r0}, [t, {c0, c1, c2, c2}];"
    clamped = run(f"suld.b.3d.b32.clamp {place}", what, at, 1).ravel()
    x, y, z = (at[:, n].clip(0, most) for n, most in enumerate((28, 3, 2)))
    assert (clamped == texels[z, y, x // 4, 0]).all()
    inside = ((at >= 0) & (at < (32, 4, 3))).all(1)
    zero = run(f"suld.b.3d.b32.zero {place}", what, at, 1).ravel()
    assert (zero == numpy.where(inside, clamped, 0)).all()
    run("mov.u32 r0, 5; sust.b.3d.b32.zero [t, {c0, c1, c2, c2}], {r0};", what, at, 1)
    assert (what.memory == 5).sum() == inside.sum()
    with pytest.raises(DeviceFault, match="outside of the surface") as fault:
        run(f"suld.b.3d.b32.trap {place}", what, at, 1)
    assert fault.value.error == 700
    with pytest.raises(DeviceFault, match="not aligned to 4"):
        run(f"suld.b.3d.b32.trap {place}", what, numpy.array([[2, 0, 0]], "i4"), 1)
    what.remove()


@pytest.mark.parametrize("kind", FORMATS)
def test_formatted_stores_convert(kind: str) -> None:
    values = numpy.array([0, 1, -1, 100, -100, 300, -300, 70000, -70000, 2**31 - 1], "i4")
    what = Object(numpy.zeros((1, 1, 16, 1), kind), SURFACE)
    words = numpy.stack([numpy.arange(len(values)), values.view("u4")], 1).astype("u4")
    signed = kind[0] != "u"
    given = values.astype("i8") if signed else values.view("u4").astype("i8")
    if kind[0] == "f":
        words[:, 1] = values.astype("f4").view("u4")
        run("sust.p.1d.f32.trap [t, {c0}], {c1};", what, words, 1)
        with numpy.errstate(over="ignore"):
            want = values.astype("f4").astype(kind)
    else:
        run(f"sust.p.1d.{'s' if signed else 'u'}32.trap [t, {{c0}}], {{c1}};", what, words, 1)
        limits = numpy.iinfo(kind)
        want = given.clip(limits.min, limits.max).astype(kind)
    assert (what.memory[: len(values)] == want).all()
    what.remove()


@pytest.mark.parametrize(
    ("verb", "kind", "want"),
    [("add", "u32", 496 + 7), ("min", "s32", 0), ("max", "u32", 31), ("or", "b32", 31),
     ("and", "b32", 0), ("max", "s32", 31)],
)  # fmt: skip
def test_reductions(verb: str, kind: str, want: int) -> None:
    what = Object(numpy.full((1, 2, 4, 1), 7, "u4"), SURFACE)
    words = numpy.arange(32, dtype="u4").reshape(-1, 1)
    body = f"mov.u32 r0, 8; mov.u32 r1, 1; sured.b.{verb}.2d.{kind}.trap [t, {{r0, r1}}], c0;"
    run(body, what, words, 1)
    assert what.memory.reshape(2, 4)[1, 2] == want and (what.memory == 7).sum() >= 7
    what.remove()


@pytest.mark.parametrize(
    ("kind", "verb", "wanted"),
    [("u4", "max", 0xFFFFFFFF), ("i4", "max", 26), ("i4", "min", -5), ("u4", "add", 371)],
)
def test_reductions_by_the_format(kind: str, verb: str, wanted: int) -> None:
    """Of .p, x counts texels, and the format says whether they have a sign."""
    what = Object(numpy.full((1, 2, 4, 1), 7, kind), SURFACE)
    words = numpy.arange(-5, 27).astype("u4").reshape(-1, 1)
    run(f"mov.u32 r0, 2; mov.u32 r1, 1; sured.p.{verb}.2d.b32.trap [t, {{r0, r1}}], c0;",
        what, words, 1)  # fmt: skip
    found = what.memory.reshape(2, 4)
    expected = numpy.full((2, 4), 7, kind)
    expected[1, 2] = wanted if verb != "add" else 7 + sum(range(-5, 27))
    assert found.tolist() == expected.tolist()
    what.remove()


def test_a_reduction_of_another_format_is_a_fault() -> None:
    what = Object(numpy.zeros((1, 2, 4, 1), "f4"), SURFACE)
    words = zeros(1, "u4").reshape(1, 1)
    with pytest.raises(DeviceFault, match="another format"):
        run("mov.u32 r0, 0; sured.p.add.1d.b32.trap [t, {r0}], c0;", what, words, 1)
    what.remove()


def test_numbers_of_nothing_are_faults() -> None:
    what = Object(texels_of("f4", (1, 1, 8, 1)))
    words = zeros(1, "u4").reshape(1, 1)
    fetch = "tex.1d.v4.f32.s32 {r0, r1, r2, r3}, [t, {c0}];"
    run(fetch, what, words)
    with pytest.raises(DeviceFault, match="no surface object"):
        run("suld.b.1d.b32.trap {r0}, [t, {c0}];", what, words, 1)
    old, what.number = what.number, (1 << 64) - 1
    with pytest.raises(DeviceFault, match="no texture object 0xffffffffffffffff"):
        run(fetch, what, words)
    what.number = old
    what.remove()
    with pytest.raises(DeviceFault, match=f"no texture object {old:#x}"):
        run(fetch, what, words)


@pytest.mark.parametrize("mode", [CLAMP, BORDER])
@pytest.mark.parametrize("fetch", ["tex.2d.v4.f32.f32", "tld4.g.2d.v4.f32.f32"])
def test_a_sampler_of_its_own(fetch: str, mode: int) -> None:
    """Texels and their size are the texture's, addressing and filtering the sampler's."""
    texels = texels_of("f4", (1, 4, 8, 4))
    plain = Object(texels)
    other = Object(texels_of("f4", (1, 2, 2, 1)), modes=(mode,) * 3, filter=1)
    same = Object(texels, modes=(mode,) * 3, filter=1)
    words = spread(40, (8, 4), 0)
    given = f"mov.u64 d0, {other.number};"
    apart = f"{given} {fetch} {{r0, r1, r2, r3}}, [t, d0, {{c0, c1}}];"
    alone = f"{fetch} {{r0, r1, r2, r3}}, [t, {{c0, c1}}];"
    got = run(apart, plain, words).tolist()
    assert got == run(alone, same, words).tolist()
    if mode == BORDER or "tld4" not in fetch:  # a gather looks at nothing but the edges
        assert got != run(alone, plain, words).tolist()
    with pytest.raises(DeviceFault, match="no sampler 0x7"):
        run("mov.u64 d0, 7; tex.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, d0, {c0, c1}];", plain, words)


def test_memory_that_is_gone_is_a_fault() -> None:
    what, other = (Object(texels_of("f4", (1, 1, 8, 1))) for _ in range(2))
    what.memory = other.memory
    with pytest.raises(DeviceFault, match="is gone"):
        run("tex.1d.v4.f32.s32 {r0, r1, r2, r3}, [t, {c0}];", what, zeros(1, "u4").reshape(1, 1))
    for one in (what, other):
        one.remove()


def test_references_fault_with_their_reason() -> None:
    """The driver of CUDA 12 has nothing that could bind them. Other kernels of the module run."""
    head = HEAD + ".global .texref t; .global .samplerref s = { filter_mode = linear };"
    body = ".reg .f32 f<4>; .reg .b32 i; mov.u32 i, 0;"
    text = f"""{head}
    .visible .entry reads() {{ {body} tex.1d.v4.f32.s32 {{f0, f1, f2, f3}}, [t, {{i}}]; ret; }}
    .visible .entry other() {{ ret; }}"""
    program = machine().compile(text)
    program.launch("other", 1, 1)
    with pytest.raises(DeviceFault, match="'t': references are removed from CUDA 12"):
        program.launch("reads", 1, 1)
