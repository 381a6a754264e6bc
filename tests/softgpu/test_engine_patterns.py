# SPDX-License-Identifier: Apache-2.0
"""Loads and stores whose lanes' addresses follow each other, are one, are so in parts, or neither.

The handlers have a way of their own for each of these; all must do what one lane after the other
does. Every place is used twice: the second access knows by then what the addresses look like.
"""

from __future__ import annotations

import random
from typing import Dict, List, Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, Machine, zeros

ALONE = Machine(1)
SPACES = ("global", "shared")
BYTES = 1024  # of the memory that is read or written
STEP = 320  # to the second access
LANES = range(32)
# Element that each lane names.
PLACES: Dict[str, List[int]] = {
    "consecutive": [3 + lane for lane in LANES],
    "uniform": [5] * 32,
    "halves follow": [7 * (lane // 16) + lane % 16 for lane in LANES],
    "halves are uniform": [9 - 4 * (lane // 16) for lane in LANES],
    "quarters follow": [(20, 0, 9, 9)[lane // 8] + lane % 8 for lane in LANES],
    "quarters are uniform": [(1, 30, 0, 30)[lane // 8] for lane in LANES],
    "quarters but one lane": [8 * (lane // 8) + (lane % 8 if lane != 29 else 0) for lane in LANES],
    "backwards": [31 - lane for lane in LANES],
    "every second": [2 * (lane % 16) for lane in LANES],
    "anywhere": random.Random(5).choices(range(39), k=32),
}
# PTX type, the register's bits
LOADS = [
    ("u8", 16), ("u8", 32), ("u8", 64), ("s8", 16), ("s8", 32), ("u16", 16), ("u16", 32),
    ("s16", 32), ("u32", 32), ("s32", 64), ("b64", 64), ("f32", 32),
]  # fmt: skip
STORES = [("u8", 16), ("u8", 32), ("u16", 16), ("u16", 32), ("u32", 32), ("u32", 64), ("u64", 64)]


def numpy_type(kind: str) -> numpy.dtype:
    letter = "i" if kind[0] == "s" else "u"
    return numpy.dtype(f"{letter}{int(kind[1:]) // 8}")


def kernel(space: str, body: str, back: str = "") -> str:
    """a and s: the lane's address and its address of the data's copy in shared memory."""
    return f"""{HEAD}.visible .entry k(.param .u64 data, .param .u64 places, .param .u64 out) {{
        .shared .align 16 .b8 copy[{BYTES}];
        .reg .b64 rd, rp, ro, o, x, y, w0, w1; .reg .b32 t, s, c, v0, v1, u;
        .reg .b16 h0, h1; .reg .b64 a; .reg .pred p;
        ld.param.u64 rd, [data]; ld.param.u64 rp, [places]; ld.param.u64 ro, [out];
        mov.u32 t, %tid.x; mul.wide.u32 x, t, 8; add.u64 ro, ro, x; add.u64 ro, ro, x;
        add.u64 rp, rp, x; ld.global.u64 o, [rp];
        add.u64 a, rd, o; cvt.u32.u64 s, o; mov.u32 u, copy; add.u32 s, s, u;
        mul.wide.u32 x, t, {BYTES // 32}; add.u64 y, rd, x; cvt.u32.u64 c, x; add.u32 c, c, u;
        {
        "".join(
            f"ld.global.u64 w0, [y+{k}]; st.shared.u64 [c+{k}], w0;" if space == "shared" else ""
            for k in range(0, BYTES // 32, 8)
        )
    }
        bar.sync 0;
        {body}
        bar.sync 0;
        {
        "".join(
            f"ld.shared.u64 w0, [c+{k}]; st.global.u64 [y+{k}], w0;"
            for k in range(0, BYTES // 32, 8)
            if back
        )
    }
        ret; }}"""


def register(bits: int, which: int) -> str:
    return f"{ {16: 'h', 32: 'v', 64: 'w'}[bits] }{which}"


def offsets(name: str, size: int) -> numpy.ndarray:
    return numpy.array(PLACES[name], "u8") * size


def some_data() -> numpy.ndarray:
    return numpy.random.default_rng(3).integers(0, 256, BYTES, dtype="u1")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind, bits", LOADS)
def test_loads(kind: str, bits: int, space: str) -> None:
    base = "a" if space == "global" else "s"
    one, two = (register(bits, which) for which in (0, 1))
    wide = {16: "cvt.u64.u16 x, {}", 32: "cvt.u64.u32 x, {}", 64: "mov.u64 x, {}"}[bits]
    program = ALONE.compile(
        kernel(
            space,
            f"""ld.{space}.{kind} {one}, [{base}]; ld.{space}.{kind} {two}, [{base}+{STEP}];
            {wide.format(one)}; st.global.u64 [ro], x;
            {wide.format(two)}; st.global.u64 [ro+8], x;""",
        )
    )
    made = numpy_type(kind)
    data = some_data()
    for name in PLACES:
        places = offsets(name, made.itemsize)
        out = zeros(64, "u8")
        program.launch("k", 1, 32, data, places, out)
        wanted = []
        for place in places.tolist():
            for at in (place, place + STEP):
                value = int(data[at : at + made.itemsize].view(made)[0])
                wanted.append(value & (1 << bits) - 1)
        assert out.tolist() == wanted, name


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind, bits", STORES)
def test_stores(kind: str, bits: int, space: str) -> None:
    base = "a" if space == "global" else "s"
    one, two = (register(bits, which) for which in (0, 1))
    fill = {16: "cvt.u16.u64 {}, {}", 32: "cvt.u32.u64 {}, {}", 64: "mov.u64 {}, {}"}[bits]
    program = ALONE.compile(
        kernel(
            space,
            f"""ld.global.u64 x, [ro]; {fill.format(one, "x")};
            ld.global.u64 x, [ro+8]; {fill.format(two, "x")}; mul.wide.u32 x, t, {BYTES // 32};
            st.{space}.{kind} [{base}], {one}; st.{space}.{kind} [{base}+{STEP}], {two};""",
            "back" if space == "shared" else "",
        )
    )
    made = numpy_type(kind)
    values = numpy.random.default_rng(4).integers(0, 1 << 64, 64, dtype="u8")
    for name in PLACES:
        places = offsets(name, made.itemsize)
        data = some_data()
        allowed: Dict[int, List[bytes]] = {}  # of several lanes for one place, one wins
        for lane, place in enumerate(places.tolist()):
            for which in (0, 1):
                bits_of = values[2 * lane + which : 2 * lane + which + 1].view("u1")
                cut = bits_of[: made.itemsize].tobytes()
                allowed.setdefault(place + which * STEP, []).append(cut)
        untouched = numpy.ones(BYTES, bool)
        for at in allowed:
            untouched[at : at + made.itemsize] = False
        before = data.copy()
        program.launch("k", 1, 32, data, places, values.copy())
        assert (data[untouched] == before[untouched]).all(), name
        for at, choices in allowed.items():
            assert data[at : at + made.itemsize].tobytes() in choices, (name, at)


@pytest.mark.parametrize("threads", [1, 8, 24, 31, 40])
def test_parts_of_a_warp_that_are_not_there(threads: int) -> None:
    """Warps that are not whole, and what their other lanes would name."""
    program = ALONE.compile(
        kernel("global", "ld.global.u8 h0, [a]; cvt.u64.u16 x, h0; st.global.u64 [ro], x;")
    )
    data = some_data()
    places = numpy.array([8 * (t // 8) + 700 - t for t in range(threads)], "u8")
    out = zeros(2 * threads, "u8")
    program.launch("k", 1, threads, data, places, out)
    assert out[::2].tolist() == data[places].tolist()


FAULTS: List[Tuple[str, str, int, int]] = [
    # place, type, the lane that is wrong, error
    ("halves follow", "u32", 20, 700),
    ("quarters follow", "u8", 31, 700),
    ("quarters follow", "u16", 24, 716),
    ("halves are uniform", "u8", 16, 700),
    ("halves are uniform", "u32", 16, 716),
    ("consecutive", "u8", 31, 700),
    ("consecutive", "u16", 31, 700),
    ("uniform", "u16", 0, 716),
]


@pytest.mark.parametrize("verb", ["ld", "st"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name, kind, lane, error", FAULTS)
def test_faults_name_the_lane(
    name: str, kind: str, lane: int, error: int, space: str, verb: str
) -> None:
    """One lane, and those that follow it in its part, lie past the end or are not aligned."""
    size = int(kind[1:]) // 8
    value = "v0" if size > 2 else "h0"
    base = "a" if space == "global" else "s"
    operands = f"{value}, [{base}]" if verb == "ld" else f"[{base}], {value}"
    program = ALONE.compile(kernel(space, f"{verb}.{space}.{kind} {operands};"))
    places = offsets(name, size)
    if error == 716:
        start, shift = lane // 8 * 8, 1
    else:
        start, shift = (lane // 8 * 8, BYTES - int(places[lane]))
    if name == "consecutive":
        start = 0
    stop = 32 if name in ("consecutive", "uniform") else start + 8
    places[start:stop] += shift
    with pytest.raises(DeviceFault) as raised:
        program.launch("k", 1, 32, some_data(), places, zeros(64, "u8"))
    assert raised.value.error == error
    assert f"thread ({lane},0,0)" in raised.value.text
    assert f"{verb}.{space}.{kind}" in raised.value.text
