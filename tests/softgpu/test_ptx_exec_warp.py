# SPDX-License-Identifier: Apache-2.0
"""Instructions of a whole warp: shuffles, votes, matches, reductions, and who takes part."""

from __future__ import annotations

import random
from typing import Callable, List, Optional

import numpy
import pytest
from forms import HEAD, signed
from machine import array, machine, zeros

FULL = 0xFFFFFFFF


def run(body: str, values: List[int], block: int = 32, outputs: int = 1) -> numpy.ndarray:
    """Each thread has its value in ``v`` and fills ``outputs`` words from ``d`` (and ``e``)."""
    program = machine().compile(
        f"""{HEAD}.visible .entry k(.param .u64 in, .param .u64 out) {{
        .reg .b32 t, v, d, e, r<6>; .reg .b64 x, y, o; .reg .pred p<6>;
        ld.param.u64 x, [in]; mov.u32 t, %tid.x; mul.wide.u32 y, t, 4; add.u64 x, x, y;
        ld.global.u32 v, [x]; ld.param.u64 o, [out]; mul.wide.u32 y, t, 8; add.u64 o, o, y;
        mov.u32 d, 0xAAAAAAAA; mov.u32 e, 0;
        {body}
        st.global.v2.u32 [o], {{d, e}}; ret; }}"""
    )
    out = zeros(2 * block, "u4")
    program.launch("k", 1, block, array((values * block)[:block], "u4"), out)
    return out.reshape(block, 2)


def numbers(seed: int = 1, count: int = 32) -> List[int]:
    random_ = random.Random(seed)
    return [random_.getrandbits(32) for _ in range(count)]


# ---------------------------------------------------------------- shuffles


def source_lane(mode: str, lane: int, b: int, c: int) -> Optional[int]:
    """The lane that shfl reads; None when it is out of range."""
    b, clamp, segment = b & 31, c & 31, c >> 8 & 31
    highest = (lane & segment) | (clamp & ~segment & 31)
    lowest = lane & segment
    if mode == "up":
        found = lane - b
        return found if found >= highest else None
    if mode == "down":
        found = lane + b
    elif mode == "bfly":
        found = lane ^ b
    else:
        found = lowest | (b & ~segment & 31)
    return found if found <= highest else None


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 8, 4, 1])
def test_shfl(mode: str, width: int) -> None:
    values = numbers()
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    for b in (0, 1, 2, 5, 16, 31, 37):
        got = run(f"shfl.sync.{mode}.b32 d|p0, v, {b}, {c:#x}, -1; selp.u32 e, 1, 0, p0;", values)
        for lane in range(32):
            source = source_lane(mode, lane, b, c)
            wanted = values[lane if source is None else source]
            assert got[lane].tolist() == [wanted, int(source is not None)], (b, lane)


def test_shfl_by_a_register_and_without_predicate() -> None:
    values = numbers()
    got = run("sub.u32 r0, 31, t; shfl.sync.idx.b32 d, v, r0, 31, 0xffffffff;", values)
    assert got[:, 0].tolist() == values[::-1]
    got = run("mov.u32 r1, -1; shfl.sync.down.b32 d|_, v, 1, 31, r1;", values)
    assert got[:, 0].tolist() == values[1:] + values[-1:]


def test_shfl_among_some_lanes() -> None:
    """The two halves of a diverged warp shuffle by themselves."""
    values = numbers()
    got = run(
        """setp.lt.u32 p0, t, 12; @p0 bra LOW;
        shfl.sync.down.b32 d, v, 1, 31, 0xfffff000; bra DONE;
        LOW: shfl.sync.bfly.b32 d, v, 1, 31, 0x00000fff;
        DONE:""",
        values,
    )
    for lane in range(12):
        assert int(got[lane][0]) == values[lane ^ 1]
    for lane in range(12, 31):
        assert int(got[lane][0]) == values[lane + 1]


def test_sync_instructions_wait_for_all_of_their_lanes() -> None:
    """Lanes come to the same shuffle by different ways."""
    values = numbers()
    got = run(
        """and.b32 r0, t, 3; mov.u32 r1, 0;
        LOOP: setp.ge.u32 p0, r1, r0; @p0 bra OUT; add.u32 r1, r1, 1; mul.lo.u32 v, v, 3; bra LOOP;
        OUT: shfl.sync.idx.b32 d, v, 3, 31, -1;""",
        values,
    )
    assert got[:, 0].tolist() == [values[3] * 27 & FULL] * 32


def test_a_partial_warp() -> None:
    """Lanes that were never there count as gone."""
    values = numbers(2, 40)
    got = run(
        "shfl.sync.down.b32 d, v, 1, 31, -1; vote.sync.ballot.b32 e, 1, -1;", values, block=40
    )
    assert got[32:39, 0].tolist() == values[33:40]
    assert got[32:, 1].tolist() == [0xFF] * 8


def test_lanes_that_left_are_not_waited_for() -> None:
    values = numbers()
    got = run(
        """setp.ge.u32 p0, t, 20; @p0 st.global.v2.u32 [o], {t, t}; @p0 exit;
        vote.sync.ballot.b32 d, 1, -1; shfl.sync.idx.b32 e, v, 5, 31, -1;""",
        values,
    )
    assert got[:20].tolist() == [[0xFFFFF, values[5]]] * 20
    assert got[20:].tolist() == [[n, n] for n in range(20, 32)]


# ---------------------------------------------------------------- votes, matches, reductions


@pytest.mark.parametrize("spelling", ["vote.sync.{}", "vote.{}.sync"])
def test_votes(spelling: str) -> None:
    for values in (
        [0] * 32,
        [1] * 32,
        [n & 1 for n in range(32)],
        [int(n == 9) for n in range(32)],
    ):
        body = "setp.ne.u32 p0, v, 0;"
        for n, mode in enumerate(("all", "any", "uni")):
            body += f"{spelling.format(mode)}.pred p1, p0, -1; selp.u32 r0, {1 << n}, 0, p1;"
            body += "or.b32 e, e, r0;"
        body += f"{spelling.format('ballot')}.b32 d, !p0, -1;"
        got = run(body, values)
        ballot = sum(1 << n for n in range(32) if not values[n])
        flags = all(values) | any(values) << 1 | (len(set(values)) == 1) << 2
        assert got.tolist() == [[ballot, int(flags)]] * 32


def test_votes_of_some_lanes() -> None:
    got = run(
        """setp.ge.u32 p0, t, 8; @p0 bra OTHER; setp.lt.u32 p1, t, 4;
        vote.sync.ballot.b32 d, p1, 0xff; activemask.b32 e; bra DONE;
        OTHER: vote.sync.ballot.b32 d, 1, 0xffffff00; activemask.b32 e;
        DONE:""",
        [0],
    )
    assert got[:8].tolist() == [[0xF, 0xFF]] * 8
    assert got[8:].tolist() == [[0xFFFFFF00, 0xFFFFFF00]] * 24


def test_match() -> None:
    values = [n * 7 % 5 for n in range(32)]
    got = run("match.any.sync.b32 d, v, -1; match.all.sync.b32 e|p0, v, -1;", values)
    for lane in range(32):
        same = sum(1 << n for n in range(32) if values[n] == values[lane])
        assert got[lane].tolist() == [same, 0]
    got = run("mov.b64 x, {v, v}; match.all.sync.b64 d|p0, x, -1; selp.u32 e, 1, 0, p0;", [5] * 32)
    assert got.tolist() == [[FULL, 1]] * 32
    got = run("mov.b64 x, {e, v}; match.any.sync.b64 d, x, -1;", values)
    assert int(got[3][0]) == sum(1 << n for n in range(32) if values[n] == values[3])


REDUCTIONS: dict[str, Callable[[List[int]], int]] = {
    "add.u32": sum,
    "add.s32": sum,
    "min.u32": min,
    "max.u32": max,
    "min.s32": lambda v: min(signed(x, 32) for x in v),
    "max.s32": lambda v: max(signed(x, 32) for x in v),
    "and.b32": lambda v: numpy.bitwise_and.reduce(numpy.array(v, "u4")),
    "or.b32": lambda v: numpy.bitwise_or.reduce(numpy.array(v, "u4")),
    "xor.b32": lambda v: numpy.bitwise_xor.reduce(numpy.array(v, "u4")),
}


@pytest.mark.parametrize("operation", list(REDUCTIONS))
def test_redux(operation: str) -> None:
    for seed in (3, 4):
        values = numbers(seed)
        got = run(
            f"""redux.sync.{operation} d, v, -1; setp.lt.u32 p0, t, 5; @!p0 bra DONE;
            redux.sync.{operation} e, v, 0x1f; DONE:""",
            values,
        )
        assert got[:, 0].tolist() == [int(REDUCTIONS[operation](values)) & FULL] * 32
        assert got[:5, 1].tolist() == [int(REDUCTIONS[operation](values[:5])) & FULL] * 5


def test_elect_chooses_one() -> None:
    got = run("elect.sync d|p0, -1; selp.u32 e, 1, 0, p0;", [0])
    leader = int(got[0][0])
    assert got.tolist() == [[leader, int(n == leader)] for n in range(32)]


def test_bar_warp_sync_orders_shared_memory() -> None:
    program = machine().compile(
        HEAD
        + """.visible .entry k(.param .u64 out) { .shared .u32 s[64]; .reg .b32 t, r<6>;
        .reg .b64 x, y; .reg .pred p; mov.u32 t, %tid.x; mov.u32 r0, s; shl.b32 r1, t, 2;
        add.u32 r1, r1, r0; mul.lo.u32 r2, t, t; st.shared.u32 [r1], r2; bar.warp.sync -1;
        xor.b32 r3, r1, 124; ld.shared.u32 r4, [r3]; ld.param.u64 x, [out];
        mul.wide.u32 y, t, 4; add.u64 x, x, y; st.global.u32 [x], r4; ret; }"""
    )
    out = zeros(64, "u4")
    program.launch("k", 1, 64, out)
    assert out.tolist() == [(n ^ 31) ** 2 for n in range(64)]


# ---------------------------------------------------------------- special registers


def test_lane_registers() -> None:
    names = ["laneid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"]
    for name in names:
        got = run(f"mov.u32 d, %{name}; mov.u32 e, %warpid;", [0], block=64)
        for thread in range(64):
            lane = thread % 32
            wanted = {
                "laneid": lane, "lanemask_eq": 1 << lane, "lanemask_lt": (1 << lane) - 1,
                "lanemask_le": (2 << lane) - 1, "lanemask_gt": FULL & ~((2 << lane) - 1),
                "lanemask_ge": FULL & ~((1 << lane) - 1),
            }[name]  # fmt: skip
            assert got[thread].tolist() == [wanted, thread // 32], name


def test_thread_and_block_numbers() -> None:
    """x is the fastest, in warps too."""
    program = machine().compile(
        HEAD
        + """.visible .entry k(.param .u64 out) { .reg .b32 a, b, c, n, m; .reg .b64 x, y;
        mov.u32 a, %tid.x; mov.u32 b, %tid.y; mov.u32 c, %tid.z; mov.u32 n, %ntid.x;
        mad.lo.u32 m, b, n, a; mov.u32 b, %ntid.y; mul.lo.u32 n, n, b; mad.lo.u32 m, c, n, m;
        mov.u32 a, %ntid.z; mul.lo.u32 n, n, a; mov.u32 a, %ctaid.z; mov.u32 b, %nctaid.y;
        mov.u32 c, %ctaid.y; mad.lo.u32 a, a, b, c; mov.u32 b, %nctaid.x; mov.u32 c, %ctaid.x;
        mad.lo.u32 a, a, b, c; mad.lo.u32 m, a, n, m; ld.param.u64 x, [out];
        mul.wide.u32 y, m, 4; add.u64 x, x, y; mov.u32 a, %laneid; mov.u32 b, %warpid;
        mad.lo.u32 a, b, 32, a; mov.u32 c, %nctaid.z; mad.lo.u32 a, c, 10000, a;
        st.global.u32 [x], a; ret; }"""
    )
    block, grid = (5, 3, 4), (2, 3, 2)
    out = zeros(60 * 12, "u4")
    program.launch("k", grid, block, out)
    assert out.tolist() == [20000 + n % 60 for n in range(60 * 12)]


def test_clocks_advance() -> None:
    got = run(
        """mov.u64 x, %globaltimer; mov.u32 r0, %clock; mov.u64 y, %clock64; mov.u32 r1, 0;
        LOOP: add.u32 r1, r1, 1; setp.lt.u32 p0, r1, 3000; @p0 bra LOOP;
        mov.u64 o, o; mov.u32 r2, %clock; sub.u32 d, r2, r0; setp.gt.s32 p1, d, 0;
        selp.u32 d, 1, 0, p1; .reg .b64 z; mov.u64 z, %clock64; setp.gt.u64 p1, z, y;
        selp.u32 r3, 2, 0, p1; or.b32 d, d, r3; mov.u64 z, %globaltimer; setp.gt.u64 p1, z, x;
        selp.u32 r3, 4, 0, p1; or.b32 d, d, r3;""",
        [0],
    )
    assert got[:, 0].tolist() == [7] * 32


def test_waiting_for_the_clock_ends() -> None:
    run(
        """mov.u64 x, %globaltimer; add.u64 x, x, 200000;
        LOOP: mov.u64 y, %globaltimer; setp.lt.u64 p0, y, x; @p0 bra LOOP; nanosleep.u32 100;""",
        [0],
    )


def test_machine_registers_make_sense() -> None:
    got = run(
        """mov.u32 r0, %smid; mov.u32 r1, %nsmid; setp.lt.u32 p0, r0, r1; selp.u32 d, 1, 0, p0;
        mov.u32 r0, %warpid; mov.u32 r1, %nwarpid; setp.le.u32 p0, r0, r1; selp.u32 e, 1, 0, p0;
        mov.u32 r2, %envreg3; mov.u64 x, %gridid; mov.u32 r3, %total_smem_size;
        mov.u32 r3, WARP_SZ; setp.ne.u32 p1, r3, 32; @p1 trap;""",
        [0],
    )
    assert got.tolist() == [[1, 1]] * 32


def test_a_block_without_clusters_is_its_own() -> None:
    got = run(
        """mov.u32 d, %cluster_ctarank; mov.u32 r0, %cluster_nctarank; mad.lo.u32 d, d, 10, r0;
        mov.u32 e, %clusterid.x; mov.pred p0, %is_explicit_cluster; @p0 trap;""",
        [0],
    )
    assert got.tolist() == [[1, 0]] * 32
