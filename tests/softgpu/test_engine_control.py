# SPDX-License-Identifier: Apache-2.0
"""Divergence, barriers, waiting for one another, calls: what decides which lanes run when."""

from __future__ import annotations

from typing import Iterator

import pytest
from engine import Engine, Program

HEAD = ".version 8.5\n.target sm_90\n.address_size 64\n"
SLOT = """
    mov.u32 %r1, %tid.x;
    mad.lo.u32 %r2, %ctaid.x, %ntid.x, %r1;
    ld.param.u64 %rd1, [out];
    mad.wide.u32 %rd2, %r2, 4, %rd1;
"""


@pytest.fixture(params=[1, 3])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = Engine(threads=request.param)
    yield made
    made.close()


def entry(name: str, body: str, registers: str = "", shared: str = "") -> str:
    """A kernel with one pointer; %r2 is the thread's number, %rd2 points to its word of it."""
    return f"""
.visible .entry {name}(.param .u64 out)
{{
    .reg .pred %p<10>; .reg .b32 %r<40>; .reg .b64 %rd<20>; .reg .f32 %f<10>;
    {registers}
    {shared}
    {SLOT}
    {body}
    ret;
}}
"""


def kernel(engine: Engine, body: str, **more: str) -> Program:
    return engine.load(HEAD + entry("k", body, **more))


def run(
    engine: Engine, program: Program, blocks: int = 1, threads: int = 64, **more: object
) -> tuple[int, ...]:
    out = engine.buffer(4 * blocks * threads)
    program.launch("k", blocks, threads, out, **more)  # type: ignore[arg-type]
    return out.read("I")


def test_branches_rejoin(engine: Engine) -> None:
    """After an if/else the whole warp executes the shuffle, at once."""
    program = kernel(
        engine,
        """
        and.b32 %r3, %r1, 1;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra EVEN;
        mul.lo.u32 %r4, %r1, 10;
        bra JOIN;
    EVEN:
        add.u32 %r4, %r1, 1000;
    JOIN:
        activemask.b32 %r6;
        shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;
        setp.eq.u32 %p2, %r6, -1;
        selp.u32 %r5, %r5, 0, %p2;
        st.global.u32 [%rd2], %r5;
    """,
    )
    found = run(engine, program)
    assert found == tuple(10 * (t ^ 1) if (t ^ 1) & 1 else (t ^ 1) + 1000 for t in range(64))


def test_loops_of_different_length(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        mov.u32 %r3, 0; mov.u32 %r4, 0;
    OUTER:
        setp.ge.u32 %p1, %r3, %r1;
        @%p1 bra DONE;
        mov.u32 %r5, 0;
    INNER:
        add.u32 %r4, %r4, 1;
        add.u32 %r5, %r5, 1;
        setp.le.u32 %p2, %r5, %r3;
        @%p2 bra INNER;
        add.u32 %r3, %r3, 1;
        bra OUTER;
    DONE:
        st.global.u32 [%rd2], %r4;
    """,
    )
    assert run(engine, program, 2, 50) == tuple(t * (t + 1) // 2 for t in range(50)) * 2


def test_switch(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        and.b32 %r3, %r1, 3;
        TS: .branchtargets L0, L1, L2, L3;
        brx.idx %r3, TS;
    L0: mov.u32 %r4, 100; bra END;
    L1: mov.u32 %r4, 200;
    L2: mov.u32 %r4, 300; bra END;
    L3: mov.u32 %r4, 400;
    END:
        st.global.u32 [%rd2], %r4;
    """,
    )
    assert run(engine, program) == (100, 300, 300, 400) * 16


def test_some_lanes_leave(engine: Engine) -> None:
    """Lanes that have exited take no part in a warp's votes or a block's barrier."""
    program = kernel(
        engine,
        """
        mov.u32 %r4, 7;
        st.global.u32 [%rd2], %r4;
        setp.ge.u32 %p1, %r1, 40;
        @%p1 exit;
        bar.sync 0;
        mov.pred %p2, 1;
        vote.sync.ballot.b32 %r5, 1, -1;
        st.global.u32 [%rd2], %r5;
    """,
    )
    assert run(engine, program, 1, 70) == (0xFFFFFFFF,) * 32 + (0xFF,) * 8 + (7,) * 30


def test_barrier_orders_shared_memory(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        mov.u32 %r10, s;
        mad.lo.u32 %r11, %r1, 4, %r10;
        mov.u32 %r12, 0;
        mov.u32 %r13, 0;
        mov.u32 %r20, %ntid.x;
    LOOP:
        add.u32 %r14, %r2, %r12;
        st.shared.u32 [%r11], %r14;
        bar.sync 0;
        add.u32 %r15, %r1, 33;
        rem.u32 %r15, %r15, %r20;
        mad.lo.u32 %r16, %r15, 4, %r10;
        ld.shared.u32 %r17, [%r16];
        add.u32 %r13, %r13, %r17;
        barrier.sync 0;
        add.u32 %r12, %r12, 1;
        setp.lt.u32 %p1, %r12, 5;
        @%p1 bra LOOP;
        st.global.u32 [%rd2], %r13;
    """,
        shared=".shared .align 4 .b8 s[1024];",
    )
    found = run(engine, program, 2, 100)
    assert found == tuple(
        5 * ((t + 33) % 100 + 100 * b) + 10 for b in range(2) for t in range(100)
    )


def test_barrier_at_two_places(engine: Engine) -> None:
    """barrier.sync may be met at different instructions; both halves of every warp do here."""
    program = kernel(
        engine,
        """
        mov.u32 %r10, s;
        and.b32 %r3, %r1, 1;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra EVEN;
        atom.shared.add.u32 %r4, [%r10], 1;
        barrier.sync 1;
        bra JOIN;
    EVEN:
        atom.shared.add.u32 %r4, [%r10], 100;
        barrier.sync 1;
    JOIN:
        ld.shared.u32 %r5, [%r10];
        st.global.u32 [%rd2], %r5;
    """,
        shared=".shared .align 4 .u32 s;",
    )
    assert run(engine, program) == (3232,) * 64


def test_producers_and_consumers(engine: Engine) -> None:
    """Warp 1 arrives at barrier 1 and goes on; warp 0 waits for it."""
    program = kernel(
        engine,
        """
        mov.u32 %r10, s;
        setp.ge.u32 %p1, %r1, 32;
        @%p1 bra PRODUCE;
        bar.sync 1, 64;
        ld.shared.u32 %r5, [%r10];
        st.global.u32 [%rd2], %r5;
        ret;
    PRODUCE:
        mov.u32 %r4, 77;
        st.shared.u32 [%r10], %r4;
        bar.arrive 1, 64;
        mov.u32 %r4, 5;
        st.global.u32 [%rd2], %r4;
    """,
        shared=".shared .align 4 .u32 s;",
    )
    assert run(engine, program) == (77,) * 32 + (5,) * 32


def test_barrier_reductions(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        rem.u32 %r3, %r1, 3;
        setp.eq.u32 %p1, %r3, 0;
        setp.lt.u32 %p2, %r1, 64;
        bar.red.popc.u32 %r4, 0, %p1;
        bar.red.and.pred %p3, 0, %p2;
        bar.red.or.pred %p4, 0, !%p2;
        bar.red.and.pred %p5, 0, %p1;
        selp.u32 %r5, 100, 0, %p3;
        selp.u32 %r6, 200, 0, %p4;
        selp.u32 %r7, 400, 0, %p5;
        add.u32 %r4, %r4, %r5;
        add.u32 %r4, %r4, %r6;
        add.u32 %r4, %r4, %r7;
        st.global.u32 [%rd2], %r4;
    """,
    )
    assert run(engine, program, 1, 64) == (22 + 100,) * 64
    assert run(engine, program, 1, 65) == (22 + 200,) * 65


def test_warp_barrier_at_two_places(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        mov.u32 %r10, s;
        mad.lo.u32 %r11, %r1, 4, %r10;
        setp.lt.u32 %p1, %r1, 16;
        @%p1 bra LOW;
        st.shared.u32 [%r11], %r1;
        bar.warp.sync -1;
        ld.shared.u32 %r5, [%r11+-64];
        bra JOIN;
    LOW:
        st.shared.u32 [%r11], %r1;
        bar.warp.sync -1;
        ld.shared.u32 %r5, [%r11+64];
    JOIN:
        st.global.u32 [%rd2], %r5;
    """,
        shared=".shared .align 4 .b8 s[128];",
    )
    assert run(engine, program, 1, 32) == tuple(t ^ 16 for t in range(32))


def test_lanes_with_different_member_masks(engine: Engine) -> None:
    """Tiles of eight lanes shuffle and vote by one instruction, each tile for itself."""
    program = kernel(
        engine,
        """
        and.b32 %r3, %r1, 24;
        mov.u32 %r4, 255;
        shl.b32 %r4, %r4, %r3;
        setp.gt.u32 %p1, %r1, 4;
        vote.sync.ballot.b32 %r5, %p1, %r4;
        shfl.sync.idx.b32 %r6, %r5, 1, 0x181f, %r4;
        st.global.u32 [%rd2], %r6;
    """,
    )
    assert (
        run(engine, program, 1, 32)
        == (0xE0,) * 8 + (0xFF00,) * 8 + (0xFF0000,) * 8 + (0xFF000000,) * 8
    )


def test_shuffle_waits_for_its_members(engine: Engine) -> None:
    """Lanes 0-7 come late, from a loop; the others have to wait for them."""
    program = kernel(
        engine,
        """
        mov.u32 %r4, %r1;
        setp.lt.u32 %p1, %r1, 8;
        @!%p1 bra GO;
        mov.u32 %r5, 0;
    LOOP:
        add.u32 %r4, %r4, 100;
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p2, %r5, 300;
        @%p2 bra LOOP;
    GO:
        shfl.sync.bfly.b32 %r6, %r4, 16, 31, -1;
        st.global.u32 [%rd2], %r6;
    """,
    )
    found = run(engine, program, 1, 32)
    assert found == tuple(s + 30000 if s < 8 else s for s in (t ^ 16 for t in range(32)))


SPINS = {
    "loop until done": """
        mov.u32 %r5, 0;
    TRY:
        atom.global.cas.b32 %r6, [%rd3], 0, 1;
        setp.ne.u32 %p1, %r6, 0;
        @%p1 bra CHECK;
        ld.global.u32 %r7, [%rd3+4];
        add.u32 %r7, %r7, 1;
        st.global.u32 [%rd3+4], %r7;
        membar.gl;
        atom.global.exch.b32 %r8, [%rd3], 0;
        mov.u32 %r5, 1;
    CHECK:
        setp.eq.u32 %p2, %r5, 0;
        @%p2 bra TRY;
    """,
    "naive lock": """
    TRY:
        atom.global.cas.b32 %r6, [%rd3], 0, 1;
        setp.ne.u32 %p1, %r6, 0;
        @%p1 bra TRY;
        ld.global.u32 %r7, [%rd3+4];
        add.u32 %r7, %r7, 1;
        st.global.u32 [%rd3+4], %r7;
        membar.gl;
        atom.global.exch.b32 %r8, [%rd3], 0;
    """,
}


@pytest.mark.parametrize("pattern", SPINS)
def test_spin_locks(engine: Engine, pattern: str) -> None:
    program = engine.load(
        HEAD
        + entry("k", "add.u64 %rd3, %rd1, 0;" + SPINS[pattern].replace("membar.gl", "membar.gl"))
    )
    out = engine.buffer(8)
    program.launch("k", 4, 64, out)
    assert out.read("I") == (0, 256)


def test_a_warp_waits_for_a_later_one(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        mov.u32 %r10, s;
        setp.ge.u32 %p1, %r1, 32;
        @%p1 bra SET;
    SPIN:
        ld.volatile.shared.u32 %r3, [%r10];
        setp.eq.u32 %p2, %r3, 0;
        @%p2 bra SPIN;
        st.global.u32 [%rd2], %r3;
        ret;
    SET:
        mov.u32 %r4, 9;
        st.volatile.shared.u32 [%r10], %r4;
        st.global.u32 [%rd2], %r4;
    """,
        shared=".shared .align 4 .u32 s;",
    )
    # shared memory is not initialised in CUDA; the engine's first block finds zeros
    assert run(engine, program, 1, 64) == (9,) * 64


def test_blocks_wait_for_later_blocks(engine: Engine) -> None:
    """A barrier made by hand over a grid larger than the number of host threads."""
    program = engine.load(
        HEAD
        + entry(
            "k",
            """
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra WAIT;
        atom.global.add.u32 %r3, [%rd1], 1;
    SPIN:
        ld.acquire.gpu.global.u32 %r4, [%rd1];
        setp.lt.u32 %p2, %r4, 24;
        @%p2 bra SPIN;
    WAIT:
        bar.sync 0;
        atom.global.add.u32 %r5, [%rd1+4], 1;
    """,
        )
    )
    out = engine.buffer(8)
    program.launch("k", 24, 32, out)
    assert out.read("I") == (24, 24 * 32)


def test_nanosleep_and_clocks_advance(engine: Engine) -> None:
    program = kernel(
        engine,
        """
        mov.u64 %rd3, %globaltimer;
    AGAIN:
        nanosleep.u32 100;
        mov.u64 %rd4, %globaltimer;
        sub.u64 %rd5, %rd4, %rd3;
        setp.lt.u64 %p1, %rd5, 20000;
        @%p1 bra AGAIN;
        mov.u64 %rd6, %clock64;
        mov.u32 %r5, %clock;
        mov.u32 %r3, 1;
        st.global.u32 [%rd2], %r3;
    """,
    )
    assert run(engine, program, 2, 32) == (1,) * 64


FUNCTIONS = """
.func (.param .b32 result) twice(.param .b32 x)
{
    .reg .b32 %a<3>;
    ld.param.u32 %a1, [x];
    shl.b32 %a2, %a1, 1;
    st.param.b32 [result], %a2;
    ret;
}
.func (.param .b32 result) depth(.param .b32 n)
{
    .reg .b32 %a<9>; .reg .pred %q;
    .local .align 4 .b8 mine[4];
    ld.param.u32 %a1, [n];
    mov.u32 %a2, 0;
    setp.eq.u32 %q, %a1, 0;
    @%q bra LEAVE;
    st.local.u32 [mine], %a1;
    sub.u32 %a3, %a1, 1;
    {
        .param .b32 p0; .param .b32 r0;
        st.param.b32 [p0], %a3;
        call.uni (r0), depth, (p0);
        ld.param.b32 %a4, [r0];
    }
    ld.local.u32 %a5, [mine];
    add.u32 %a2, %a4, %a5;
LEAVE:
    st.param.b32 [result], %a2;
    ret;
}
.func (.reg .b32 y) old(.reg .b32 x, .reg .b32 z)
{
    mad.lo.u32 y, x, 3, z;
    ret;
}
.func (.param .align 8 .b8 result[16]) pair(.param .align 8 .b8 x[16])
{
    .reg .b64 %d<3>;
    ld.param.b64 %d1, [x];
    ld.param.b64 %d2, [x+8];
    st.param.b64 [result], %d2;
    st.param.b64 [result+8], %d1;
    ret;
}
"""


def calls(engine: Engine, body: str) -> Program:
    return engine.load(HEAD + FUNCTIONS + entry("k", body))


def test_call_under_a_predicate(engine: Engine) -> None:
    program = calls(
        engine,
        """
        setp.lt.u32 %p1, %r1, 10;
        mov.u32 %r5, 0;
        {
            .param .b32 p0; .param .b32 r0;
            st.param.b32 [p0], %r1;
            @%p1 call (r0), twice, (p0);
            @%p1 ld.param.b32 %r5, [r0];
        }
        st.global.u32 [%rd2], %r5;
    """,
    )
    assert run(engine, program) == tuple(2 * t if t < 10 else 0 for t in range(64))


def test_recursion_to_different_depths(engine: Engine) -> None:
    """Each call has its own local memory; lanes come back at different times and rejoin."""
    program = calls(
        engine,
        """
        {
            .param .b32 p0; .param .b32 r0;
            st.param.b32 [p0], %r1;
            call.uni (r0), depth, (p0);
            ld.param.b32 %r5, [r0];
        }
        shfl.sync.idx.b32 %r6, %r5, 31, 31, -1;
        sub.u32 %r5, %r6, %r5;
        st.global.u32 [%rd2], %r5;
    """,
    )
    total = [t * (t + 1) // 2 for t in range(64)]
    assert run(engine, program) == tuple(
        (total[t | 31] - total[t]) & 0xFFFFFFFF for t in range(64)
    )


def test_register_parameters(engine: Engine) -> None:
    program = calls(
        engine,
        """
        call (%r5), old, (%r1, 100);
        st.global.u32 [%rd2], %r5;
    """,
    )
    assert run(engine, program) == tuple(3 * t + 100 for t in range(64))


def test_structures_by_value(engine: Engine) -> None:
    program = calls(
        engine,
        """
        cvt.u64.u32 %rd3, %r1;
        add.u64 %rd4, %rd3, 1000;
        {
            .param .align 8 .b8 p0[16]; .param .align 8 .b8 r0[16];
            st.param.v2.b64 [p0], {%rd3, %rd4};
            call (r0), pair, (p0);
            ld.param.v2.b64 {%rd5, %rd6}, [r0];
        }
        sub.u64 %rd7, %rd5, %rd6;
        cvt.u32.u64 %r5, %rd7;
        st.global.u32 [%rd2], %r5;
    """,
    )
    assert run(engine, program) == (1000,) * 64


def test_calls_through_registers(engine: Engine) -> None:
    """The lanes of a warp call two functions by one instruction."""
    program = calls(
        engine,
        """
        and.b32 %r3, %r1, 1;
        setp.eq.u32 %p1, %r3, 0;
        mov.u64 %rd3, twice;
        mov.u64 %rd4, depth;
        selp.b64 %rd5, %rd3, %rd4, %p1;
        {
            .param .b32 p0; .param .b32 r0;
            st.param.b32 [p0], %r1;
            PROTO: .callprototype (.param .b32 _) _ (.param .b32 _);
            call (r0), %rd5, (p0), PROTO;
            ld.param.b32 %r5, [r0];
        }
        st.global.u32 [%rd2], %r5;
    """,
    )
    assert run(engine, program) == tuple(t * (t + 1) // 2 if t & 1 else 2 * t for t in range(64))


def test_cooperative_blocks_are_all_there(engine: Engine) -> None:
    """envreg1 (high) and envreg2 point to the grid's workspace; its barrier starts at 0."""
    program = engine.load(
        HEAD
        + entry(
            "k",
            """
        mov.u32 %r3, %envreg1;
        mov.u32 %r4, %envreg2;
        mov.b64 %rd3, {%r4, %r3};
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra WAIT;
        atom.add.release.gpu.u32 %r5, [%rd3+4], 1;
    SPIN:
        ld.acquire.gpu.u32 %r6, [%rd3+4];
        setp.lt.u32 %p2, %r6, 200;
        @%p2 bra SPIN;
    WAIT:
        barrier.sync 0;
        atom.global.add.u32 %r7, [%rd1], 1;
    """,
        )
    )
    out = engine.buffer(4)
    program.launch("k", 200, 64, out, cooperative=True)
    assert out.read("I") == (200 * 64,)
