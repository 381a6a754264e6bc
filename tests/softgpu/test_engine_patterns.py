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
# How an access is written, and the register that holds its address.
SPACES = {
    "global": ("global", "a"),
    "generic": ("", "a"),
    "shared": ("shared", "s"),
    "shared by 64 bits": ("shared", "sw"),
    "shared, generic": ("", "sg"),
}
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


def access(verb: str, space: str, kind: str, value: str, offset: int = 0) -> str:
    """One load or store by an address of a space."""
    word, base = SPACES[space]
    place = f"[{base}+{offset}]"
    operands = f"{value}, {place}" if verb == "ld" else f"{place}, {value}"
    return f"{verb}.{word + '.' if word else ''}{kind} {operands};"


def numpy_type(kind: str) -> numpy.dtype:
    letter = "i" if kind[0] == "s" else "u"
    return numpy.dtype(f"{letter}{int(kind[1:]) // 8}")


def kernel(space: str, body: str) -> str:
    """a: the lane's address; s, sw, sg: its addresses of the data's copy in shared memory."""
    words = range(0, BYTES // 32, 8)
    there = "".join(f"ld.global.u64 w0, [y+{k}]; st.shared.u64 [c+{k}], w0;" for k in words)
    back = "".join(f"ld.shared.u64 w0, [c+{k}]; st.global.u64 [y+{k}], w0;" for k in words)
    return f"""{HEAD}.visible .entry k(.param .u64 data, .param .u64 places, .param .u64 out) {{
        .shared .align 16 .b8 copy[{BYTES}];
        .reg .b64 rd, rp, ro, o, x, y, w0, w1; .reg .b32 t, s, c, v0, v1, u;
        .reg .b16 h0, h1; .reg .b64 a, sw, sg;
        ld.param.u64 rd, [data]; ld.param.u64 rp, [places]; ld.param.u64 ro, [out];
        mov.u32 t, %tid.x; mul.wide.u32 x, t, 8; add.u64 ro, ro, x; add.u64 ro, ro, x;
        add.u64 rp, rp, x; ld.global.u64 o, [rp];
        add.u64 a, rd, o; cvt.u32.u64 s, o; mov.u32 u, copy; add.u32 s, s, u;
        mul.wide.u32 x, t, {BYTES // 32}; add.u64 y, rd, x; cvt.u32.u64 c, x; add.u32 c, c, u;
        cvt.u64.u32 sw, s; cvta.shared.u64 sg, sw; {there if "shared" in space else ""}
        bar.sync 0;
        {body}
        bar.sync 0;
        {back if "shared" in space else ""} ret; }}"""


def register(bits: int, which: int) -> str:
    return f"{ {16: 'h', 32: 'v', 64: 'w'}[bits] }{which}"


def offsets(name: str, size: int) -> numpy.ndarray:
    return numpy.array(PLACES[name], "u8") * size


def some_data() -> numpy.ndarray:
    return numpy.random.default_rng(3).integers(0, 256, BYTES, dtype="u1")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind, bits", LOADS)
def test_loads(kind: str, bits: int, space: str) -> None:
    one, two = (register(bits, which) for which in (0, 1))
    wide = {16: "cvt.u64.u16 x, {}", 32: "cvt.u64.u32 x, {}", 64: "mov.u64 x, {}"}[bits]
    program = ALONE.compile(
        kernel(
            space,
            f"""{access("ld", space, kind, one)} {access("ld", space, kind, two, STEP)}
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
    one, two = (register(bits, which) for which in (0, 1))
    fill = {16: "cvt.u16.u64 {}, {}", 32: "cvt.u32.u64 {}, {}", 64: "mov.u64 {}, {}"}[bits]
    program = ALONE.compile(
        kernel(
            space,
            f"""ld.global.u64 x, [ro]; {fill.format(one, "x")};
            ld.global.u64 x, [ro+8]; {fill.format(two, "x")}; mul.wide.u32 x, t, {BYTES // 32};
            {access("st", space, kind, one)} {access("st", space, kind, two, STEP)}""",
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
    program = ALONE.compile(kernel(space, access(verb, space, kind, value)))
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
    assert access(verb, space, kind, value).split()[0] in raised.value.text


@pytest.mark.parametrize("kind", ["u8", "u16", "u32", "u64"])
@pytest.mark.parametrize("generic", [False, True])
def test_local_memory_by_registers(kind: str, generic: bool) -> None:
    """Each lane writes its number at a place of its own, and finds it and what was there."""
    size, space = int(kind[1:]) // 8, "" if generic else "local."
    value = register({1: 16, 2: 16, 4: 32, 8: 64}[size], 0)
    program = ALONE.compile(
        f"""{HEAD}.visible .entry k(.param .u64 places, .param .u64 out) {{
        .local .align 16 .b8 mine[{BYTES}]; .reg .b64 rp, ro, o, x, w0; .reg .b32 t, v0;
        .reg .b16 h0; .reg .pred p; ld.param.u64 rp, [places]; ld.param.u64 ro, [out];
        mov.u32 t, %tid.x; mul.wide.u32 x, t, 8; add.u64 rp, rp, x; add.u64 ro, ro, x;
        ld.global.u64 o, [rp]; mov.u64 x, mine; {"cvta.local.u64 x, x;" if generic else ""}
        add.u64 x, x, o; cvt.u64.u32 w0, t; cvt.u32.u64 v0, w0; cvt.u16.u64 h0, w0;
        st.{space}{kind} [x], {value}; mov.u64 w0, 0; mov.u32 v0, 0; mov.u16 h0, 0;
        setp.eq.u32 p, t, 7; @p bra DONE; ld.{space}{kind} {value}, [x];
        DONE: {{}} ret; }}""".replace(
            "{}",
            {
                16: "cvt.u64.u16 w0, h0; st.global.u64 [ro], w0;",
                32: "cvt.u64.u32 w0, v0; st.global.u64 [ro], w0;",
                64: "st.global.u64 [ro], w0;",
            }[max(16, 8 * size)],
        )
    )
    for name in PLACES:
        out = zeros(32, "u8")
        program.launch("k", 1, 32, offsets(name, size), out)
        assert out.tolist() == [0 if lane == 7 else lane for lane in LANES], name
    with pytest.raises(DeviceFault, match=r"thread \(9,0,0\).*address"):
        places = offsets("anywhere", size)
        places[9] = 1 << 20
        program.launch("k", 1, 32, places, zeros(32, "u8"))


def test_parameters_by_registers() -> None:
    """Code that indexes an array in its parameters, each lane its own element."""
    program = ALONE.compile(f"""{HEAD}.visible .entry k(.param .u64 places, .param .u64 out,
        .param .align 8 .b8 table[320]) {{ .reg .b64 rp, ro, o, x, w0; .reg .b32 t;
        ld.param.u64 rp, [places]; ld.param.u64 ro, [out];
        mov.u32 t, %tid.x; mul.wide.u32 x, t, 8; add.u64 rp, rp, x; add.u64 ro, ro, x;
        ld.global.u64 o, [rp]; mov.u64 x, table; add.u64 x, x, o;
        ld.param.u64 w0, [x]; st.global.u64 [ro], w0; ret; }}""")
    table = numpy.arange(40, dtype="u8") * 1000003
    for name in PLACES:
        out = zeros(32, "u8")
        program.launch("k", 1, 32, offsets(name, 8), out, table.tobytes())
        assert out.tolist() == table[PLACES[name]].tolist(), name
    for place, error in ((320, 700), (4, 716)):
        places = offsets("consecutive", 8)
        places[30] = place
        with pytest.raises(DeviceFault) as raised:
            program.launch("k", 1, 32, places, zeros(32, "u8"), table.tobytes())
        assert raised.value.error == error and "thread (30,0,0)" in raised.value.text
