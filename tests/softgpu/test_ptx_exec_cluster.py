# SPDX-License-Identifier: Apache-2.0
"""Clusters: their registers, their barrier, and the shared memory of other blocks."""

from __future__ import annotations

from typing import List, Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, machine, zeros

SIZES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (4, 2, 1), (2, 2, 4)]
REGISTERS = ["clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid"]


def entry(body: str, threads: int = 32, head: str = "") -> str:
    """A kernel; ``o`` is the thread's word, ``t`` its number in the block, ``b`` the rank."""
    return f"""{HEAD}{head}.visible .entry k(.param .u64 out) {{
    .reg .b64 o, x, y, z; .reg .b32 t, b, n, q, r, s, a; .reg .pred p, c; .reg .b32 v<8>;
    .shared .align 16 .b8 data[512]; .shared .align 8 .b64 bar;
    ld.param.u64 o, [out]; mov.u32 t, %tid.x; mov.u32 b, %cluster_ctarank;
    mov.u32 n, %cluster_nctarank;
    mov.u32 q, %ctaid.z; mov.u32 r, %nctaid.y; mov.u32 s, %ctaid.y; mad.lo.u32 q, q, r, s;
    mov.u32 r, %nctaid.x; mov.u32 s, %ctaid.x; mad.lo.u32 q, q, r, s;
    mad.lo.u32 q, q, {threads}, t; mul.wide.u32 x, q, 4; add.u64 o, o, x;
    {body} ret; }}"""


def run(
    body: str,
    cluster: Tuple[int, ...] = (4, 1, 1),
    grid: Tuple[int, ...] = (8, 1, 1),
    threads: int = 32,
    head: str = "",
) -> numpy.ndarray:
    blocks = grid[0] * grid[1] * grid[2]
    out = zeros(blocks * threads, "u4")
    out[:] = 0xABABABAB
    program = machine().compile(entry(body, threads, head))
    program.launch("k", grid, threads, out, cluster=cluster)
    return out.reshape(blocks, threads)


SYNC = "barrier.cluster.arrive; barrier.cluster.wait;"


@pytest.mark.parametrize("size", SIZES)
def test_registers(size: Tuple[int, int, int]) -> None:
    grid = (size[0] * 3, size[1] * 2, size[2])
    index = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]

    def wanted(name: str, axis: int) -> List[int]:
        values = {
            "clusterid": [at[axis] // size[axis] for at in index],
            "nclusterid": [grid[axis] // size[axis]] * len(index),
            "cluster_ctaid": [at[axis] % size[axis] for at in index],
            "cluster_nctaid": [size[axis]] * len(index),
        }
        return values[name]

    for name in REGISTERS:
        for axis, letter in enumerate("xyz"):
            found = run(f"mov.u32 r, %{name}.{letter}; st.global.u32 [o], r;", size, grid, 1)
            assert found[:, 0].tolist() == wanted(name, axis), (name, letter)
    ranks = [
        at[0] % size[0] + size[0] * (at[1] % size[1] + size[1] * (at[2] % size[2])) for at in index
    ]
    assert run("st.global.u32 [o], b;", size, grid, 1)[:, 0].tolist() == ranks
    total = size[0] * size[1] * size[2]
    assert set(run("st.global.u32 [o], n;", size, grid, 1)[:, 0].tolist()) == {total}


def test_explicit_cluster() -> None:
    body = "mov.pred p, %is_explicit_cluster; selp.u32 r, 1, 0, p; st.global.u32 [o], r;"
    assert run(body, (2, 1, 1)).all()
    assert not run(body, (0, 0, 0)).any()
    without = run("mov.u32 r, %clusterid.x; st.global.u32 [o], r;", (0, 0, 0))
    assert without[:, 0].tolist() == list(range(8))


WAYS = {
    "mapa of a 32-bit address": """mov.u32 a, data; mapa.shared::cluster.u32 a, a, r;
        mad.lo.u32 a, t, 4, a; ld.shared::cluster.u32 q, [a];""",
    "mapa of a variable": """mapa.shared::cluster.u32 a, data, r;
        mad.lo.u32 a, t, 4, a; ld.shared::cluster.u32 q, [a];""",
    "mapa of a 64-bit address": """mov.u64 x, data; mapa.shared::cluster.u64 x, x, r;
        mul.wide.u32 y, t, 4; add.u64 x, x, y; ld.shared::cluster.u32 q, [x];""",
    "mapa of a generic address": """mov.u64 x, data; cvta.shared.u64 x, x; mapa.u64 x, x, r;
        mul.wide.u32 y, t, 4; add.u64 x, x, y; ld.u32 q, [x];""",
    "cvta of a cluster address": """mov.u32 a, data; mapa.shared::cluster.u32 a, a, r;
        cvt.u64.u32 x, a; cvta.shared::cluster.u64 x, x; mul.wide.u32 y, t, 4; add.u64 x, x, y;
        ld.relaxed.cluster.u32 q, [x];""",
    "back to a cluster address": """mov.u64 x, data; cvta.shared.u64 x, x; mapa.u64 x, x, r;
        cvta.to.shared::cluster.u64 x, x; mul.wide.u32 y, t, 4; add.u64 x, x, y;
        ld.acquire.cluster.shared::cluster.u32 q, [x];""",
    "vectors": """mov.u32 a, data; mapa.shared::cluster.u32 a, a, r; and.b32 s, t, 28;
        mad.lo.u32 a, s, 4, a; ld.shared::cluster.v4.u32 {v0, v1, v2, v3}, [a];
        and.b32 s, t, 3; setp.eq.u32 p, s, 0; @p mov.u32 q, v0; setp.eq.u32 p, s, 1;
        @p mov.u32 q, v1; setp.eq.u32 p, s, 2; @p mov.u32 q, v2; setp.eq.u32 p, s, 3;
        @p mov.u32 q, v3;""",
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_loads_from_the_next_block(way: str) -> None:
    found = run(
        f"""mov.u32 a, data; mad.lo.u32 a, t, 4, a; mad.lo.u32 q, b, 1000, t;
        st.shared.u32 [a], q; {SYNC} add.u32 r, b, 1; rem.u32 r, r, n;
        {WAYS[way]} st.global.u32 [o], q; {SYNC}"""
    )
    wanted = [[(block + 1) % 4 * 1000 + t for t in range(32)] for block in range(8)]
    assert found.tolist() == wanted


def test_stores_and_atomics_into_all_blocks() -> None:
    """Each thread adds, exchanges and stores in each block of the cluster."""
    found = run(
        f"""mov.u32 a, data; setp.lt.u32 p, t, 4; mad.lo.u32 s, t, 4, a;
        @p st.shared.u32 [s], 0; {SYNC}
        mov.u32 r, 0; NEXT: mapa.shared::cluster.u32 s, a, r;
        red.shared::cluster.add.u32 [s], t; atom.shared::cluster.inc.u32 q, [s+4], 1000;
        cvt.u64.u32 x, s; cvta.shared::cluster.u64 x, x; red.max.u32 [x+8], b;
        mad.lo.u32 q, b, 4, s; st.shared::cluster.u32 [q+64], b;
        add.u32 r, r, 1; setp.lt.u32 p, r, n; @p bra NEXT;
        {SYNC} and.b32 s, t, 3; mad.lo.u32 s, s, 4, a; ld.shared.u32 q, [s];
        setp.ge.u32 p, t, 16; mad.lo.u32 s, t, 4, a; @p ld.shared.u32 q, [s];
        setp.ge.u32 p, t, 20; @p mov.u32 q, 7; st.global.u32 [o], q;"""
    )
    line = [4 * sum(range(32)), 128, 3, 0]
    assert found.tolist() == [line * 4 + [0, 1, 2, 3] + [7] * 12] * 8


def test_ranks_of_addresses_and_windows() -> None:
    found = run(
        """mov.u32 a, data; getctarank.shared::cluster.u32 q, a; st.global.u32 [o], q;
        setp.lt.u32 p, t, 4; rem.u32 r, t, n; mapa.shared::cluster.u32 s, a, r;
        getctarank.shared::cluster.u32 q, s; mov.u64 x, data; cvta.shared.u64 x, x;
        mapa.u64 y, x, r; getctarank.u64 v0, y; getctarank.u64 v1, x;
        isspacep.shared::cluster c, y; selp.u32 v2, 1, 0, c;
        isspacep.shared::cta c, y; selp.u32 v3, 2, 0, c; isspacep.shared c, x;
        selp.u32 v4, 4, 0, c; isspacep.global c, y; selp.u32 v5, 8, 0, c;
        isspacep.shared::cluster c, o; selp.u32 v6, 16, 0, c;
        mad.lo.u32 q, v0, 10, q; mad.lo.u32 q, v1, 100, q;
        add.u32 v2, v2, v3; add.u32 v2, v2, v4; add.u32 v2, v2, v5; add.u32 v2, v2, v6;
        mad.lo.u32 q, v2, 1000, q; @p st.global.u32 [o], q;"""
    )
    for block in range(8):
        own = block % 4
        wanted = [r + 10 * r + 100 * own + 1000 * (5 + 2 * (r == own)) for r in range(4)]
        assert found[block].tolist() == wanted + [own] * 28


@pytest.mark.parametrize(
    "wait",
    [
        "barrier.cluster.arrive; barrier.cluster.wait;",
        "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;",
        "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
        "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait.acquire;",
    ],
)
def test_the_barrier_orders_phases(wait: str) -> None:
    """Many rounds of: add to the next block's cell, wait, look at the own one, wait."""
    found = run(
        f"""mov.u32 a, data; st.shared.u32 [a], 0; {wait} add.u32 r, b, 1; rem.u32 r, r, n;
        mapa.shared::cluster.u32 s, a, r; mov.u32 v0, 0; mov.u32 v1, 0;
        NEXT: red.shared::cluster.add.u32 [s], 1; {wait} add.u32 v0, v0, 1;
        ld.volatile.shared.u32 q, [a]; mul.lo.u32 r, v0, 96; setp.ne.u32 p, q, r;
        @p add.u32 v1, v1, 1; {wait} setp.lt.u32 p, v0, 20; @p bra NEXT;
        st.global.u32 [o], v1;""",
        threads=96,
    )
    assert not found.any()


def test_work_between_arrival_and_waiting() -> None:
    """An arrival alone holds nobody; lanes of one warp may wait at different places."""
    found = run(
        """mov.u32 a, data; mad.lo.u32 s, t, 4, a; mad.lo.u32 q, b, 100, t;
        st.shared.u32 [s], q; barrier.cluster.arrive.release; bar.sync 0;
        and.b32 r, t, 1; setp.eq.u32 p, r, 0; @p bra EVEN; barrier.cluster.wait.acquire;
        mov.u32 r, 1; bra JOIN; EVEN: mov.u32 r, 2; barrier.cluster.wait.acquire; JOIN:
        add.u32 r, r, b; rem.u32 r, r, n; mapa.shared::cluster.u32 s, s, r;
        ld.shared::cluster.u32 q, [s]; st.global.u32 [o], q;
        barrier.cluster.arrive; barrier.cluster.wait;"""
    )
    assert found.tolist() == [
        [(block + (1 if t & 1 else 2)) % 4 * 100 + t for t in range(32)] for block in range(8)
    ]


def test_who_exits_is_not_waited_for() -> None:
    """Before arriving, and after it without waiting."""
    found = run(
        """st.global.u32 [o], 1; setp.eq.u32 p, b, 2; @p exit; setp.lt.u32 p, t, 5; @p exit;
        barrier.cluster.arrive; setp.lt.u32 p, t, 9; @p exit; barrier.cluster.wait;
        barrier.cluster.arrive; barrier.cluster.wait; st.global.u32 [o], 2;"""
    )
    line = [1] * 9 + [2] * 23
    assert found.tolist() == [line, line, [1] * 32, line] * 2


def test_a_flag_in_another_block() -> None:
    """Block 0 waits, spinning, for what block 3 writes into it: all blocks are resident."""
    found = run(
        f"""mov.u32 a, data; st.shared.u32 [a], 0; {SYNC} mapa.shared::cluster.u32 s, a, 0;
        setp.eq.u32 p, b, 3; @p st.release.cluster.shared::cluster.u32 [s], 5;
        AGAIN: ld.acquire.cluster.shared::cluster.u32 q, [s]; setp.ne.u32 p, q, 5; @p bra AGAIN;
        st.global.u32 [o], q; {SYNC}"""
    )
    assert (found == 5).all()


def test_remote_mbarriers() -> None:
    """All blocks arrive at the barrier of block 1, with and without bytes."""
    found = run(
        f"""setp.eq.u32 c, t, 0; @c mbarrier.init.shared.b64 [bar], 132;
        fence.mbarrier_init.release.cluster; {SYNC}
        mov.u32 a, bar; mapa.shared::cluster.u32 a, a, 1;
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [a];
        @c mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [a], 16;
        @c mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [a], 16;
        setp.ne.u32 p, b, 1; @p bra END;
        AGAIN: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [bar], 0;
        @!p bra AGAIN; st.global.u32 [o], 4; END: {SYNC}"""
    )
    assert (found[[1, 5]] == 4).all()


@pytest.mark.parametrize("kind", ["b32", "u64", "v2.b32", "v4.f32", "v2.s64"])
def test_st_async(kind: str) -> None:
    """Each thread stores into the next block, whose barrier counts the bytes."""
    count, scalar = (int(kind[1]), kind[3:]) if kind[0] == "v" else (1, kind)
    wide = scalar.endswith("64")
    size = count * (8 if wide else 4)
    register = "x" if wide else "f" if scalar == "f32" else "q"
    vector = f"{{{', '.join([register] * count)}}}" if count > 1 else register
    dot = f".v{count}" if count > 1 else ""
    found = run(
        f"""{{ .reg .f32 f; setp.eq.u32 c, t, 0; @c mbarrier.init.shared.b64 [bar], 1;
        {SYNC} @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], {8 * size};
        add.u32 r, b, 1; rem.u32 r, r, n; mov.u32 a, data; mad.lo.u32 a, t, {size}, a;
        mapa.shared::cluster.u32 a, a, r; mov.u32 s, bar; mapa.shared::cluster.u32 s, s, r;
        mad.lo.u32 q, b, 100, t; cvt.u64.u32 x, q; mov.b32 f, q; setp.lt.u32 p, t, 8;
        @p st.async.weak.shared::cluster.mbarrier::complete_tx::bytes{dot}.{scalar}
            [a], {vector}, [s];
        AGAIN: mbarrier.try_wait.parity.shared::cta.b64 c, [bar], 0; @!c bra AGAIN;
        mov.u32 a, data; mad.lo.u32 a, t, {size}, a;
        @p ld.shared.u32 q, [a+{size - (8 if wide else 4)}]; @p st.global.u32 [o], q; {SYNC} }}"""
    )
    for block in range(8):
        assert found[block, :8].tolist() == [(block + 3) % 4 * 100 + t for t in range(8)]


def test_red_async() -> None:
    """Every thread of the cluster adds to block 0, by each of the operations."""
    operations = [
        ("add", "u32", "t"), ("min", "u32", "t"), ("max", "s32", "t"), ("inc", "u32", "1000"),
        ("dec", "u32", "1000"), ("and", "b32", "t"), ("or", "b32", "t"), ("xor", "b32", "t"),
    ]  # fmt: skip
    actions = " ".join(
        f"red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.{op}.{kind} "
        f"[a+{4 * k}], {value}, [s];"
        for k, (op, kind, value) in enumerate(operations)
    )
    found = run(
        f"""setp.eq.u32 c, t, 0; @c mbarrier.init.shared.b64 [bar], 1; mov.u32 a, data;
        setp.lt.u32 p, t, 10; mad.lo.u32 s, t, 4, a; @p st.shared.u32 [s], 50; {SYNC}
        setp.eq.u32 c, t, 0; @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], {4 * 32 * 40};
        mapa.shared::cluster.u32 a, a, 0; mov.u32 s, bar; mapa.shared::cluster.u32 s, s, 0;
        {actions} cvt.u64.u32 x, t;
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u64
            [a+32], x, [s];
        setp.ne.u32 p, b, 0; @p bra END;
        AGAIN: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra AGAIN;
        mov.u32 a, data; mad.lo.u32 a, t, 4, a; ld.shared.u32 q, [a]; st.global.u32 [o], q;
        END: {SYNC}"""
    )
    total = 4 * sum(range(32))
    wanted = [50 + total, 0, 50, 178, (50 - 128) % 1001, 0, 63, 50]
    assert found[0, :8].tolist() == wanted
    assert found[4, 8] == (50 + total) & 0xFFFFFFFF


def test_addresses_outside_the_cluster() -> None:
    for rank in (4, 5, 200, 0xFFFFFFFF):
        with pytest.raises(DeviceFault) as caught:
            run(
                f"mov.u32 a, data; mapa.shared::cluster.u32 a, a, {rank};"
                "ld.shared::cluster.u32 q, [a];"
            )
        assert caught.value.error == 700


def test_deadlock_is_found() -> None:
    with pytest.raises(DeviceFault) as caught:
        run(
            "setp.eq.u32 p, b, 1; @!p bra OTHER; bar.sync 0, 64; OTHER:"
            "barrier.cluster.arrive; barrier.cluster.wait;"
        )
    assert caught.value.error == 702
    assert "cluster" in caught.value.text or "block" in caught.value.text


def test_sizes_that_cannot_be() -> None:
    for size, grid in (((3, 1, 1), (8, 1, 1)), ((17, 1, 1), (17, 1, 1)), ((5, 5, 1), (5, 5, 1))):
        with pytest.raises(DeviceFault) as caught:
            run("st.global.u32 [o], 1;", size, grid)
        assert caught.value.error == 912


def test_many_clusters_in_parallel() -> None:
    """A reduction over each cluster through the shared memory of its first block."""
    found = run(
        f"""mov.u32 a, data; setp.eq.u32 c, t, 0; @c st.shared.u32 [a], 0; {SYNC}
        mov.u32 r, %ctaid.x; mapa.shared::cluster.u32 s, a, 0;
        mad.lo.u32 q, r, 64, t; red.shared::cluster.add.u32 [s], q; {SYNC}
        ld.shared::cluster.u32 q, [s]; st.global.u32 [o], q; {SYNC}""",
        (8, 1, 1),
        (400, 1, 1),
        64,
    )
    for first in range(0, 400, 8):
        wanted = sum(range(64 * first, 64 * (first + 8)))
        assert (found[first : first + 8] == wanted).all()
