# SPDX-License-Identifier: Apache-2.0
"""Branches, calls, barriers, waiting for each other, and what the device's runtime offers."""

from __future__ import annotations

import time
from typing import List

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, Program, array, machine, zeros

FULL = 0xFFFFFFFF


def compiled(text: str) -> Program:
    return machine().compile(HEAD + text)


def run(
    body: str, block: int = 32, grid: int = 1, head: str = "", cooperative: bool = False
) -> List[int]:
    """Each thread has its number in ``t`` and gives ``d``."""
    program = compiled(
        f"""{head} .visible .entry k(.param .u64 out) {{ .reg .b32 t, d, b, n, r<8>;
        .reg .b64 x, y, z, o; .reg .pred p<6>; mov.u32 t, %tid.x; mov.u32 b, %ctaid.x;
        mov.u32 n, %ntid.x; mad.lo.u32 r0, b, n, t; ld.param.u64 o, [out]; mul.wide.u32 x, r0, 4;
        add.u64 o, o, x; mov.u32 d, 0;
        {body}
        st.global.u32 [o], d; ret; }}"""
    )
    out = zeros(block * grid, "u4")
    program.launch("k", grid, block, out, cooperative=cooperative)
    return [int(x) for x in out]


# ---------------------------------------------------------------- branches


def test_loops_of_different_lengths() -> None:
    """Collatz: every lane has its own way through nested branches."""
    got = run(
        """add.u32 r1, t, 1;
        LOOP: setp.eq.u32 p0, r1, 1; @p0 bra DONE; add.u32 d, d, 1; and.b32 r2, r1, 1;
        setp.eq.u32 p1, r2, 0; @p1 bra EVEN; mad.lo.u32 r1, r1, 3, 1; bra LOOP;
        EVEN: shr.u32 r1, r1, 1; bra LOOP;
        DONE:""",
        block=70,
    )

    def steps(n: int) -> int:
        count = 0
        while n != 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    assert got == [steps(n + 1) for n in range(70)]


def test_predicated_returns_and_exits() -> None:
    head = """.func (.param .b32 r) f(.param .b32 a) { .reg .b32 v; .reg .pred p;
    ld.param.b32 v, [a]; st.param.b32 [r], 1; setp.lt.u32 p, v, 10; @p ret;
    st.param.b32 [r], 2; setp.lt.u32 p, v, 20; @p exit; st.param.b32 [r], 3; ret; }"""
    got = run(
        """mov.u32 d, 9; st.global.u32 [o], d; { .param .b32 a, r; st.param.b32 [a], t;
        call (r), f, (a); ld.param.b32 d, [r]; }""",
        head=head,
    )
    assert got == [1] * 10 + [9] * 10 + [3] * 12


def test_branch_tables() -> None:
    got = run(
        """ts: .branchtargets A, B, C, D; and.b32 r1, t, 3; brx.idx r1, ts;
        A: mov.u32 d, 10; bra E; B: mov.u32 d, 20; bra E; C: mov.u32 d, 30; bra E;
        D: mov.u32 d, 40; E: add.u32 d, d, t;"""
    )
    assert got == [10 * (n % 4 + 1) + n for n in range(32)]


def test_falling_off_the_end_is_a_return() -> None:
    program = compiled(".visible .entry k(.param .u64 out) { .reg .b64 x; ld.param.u64 x, [out];"
                       " st.global.u32 [x], 7; }")  # fmt: skip
    out = zeros(1, "u4")
    program.launch("k", 1, 1, out)
    assert out.tolist() == [7]


# ---------------------------------------------------------------- calls


def test_recursion_with_local_memory_in_every_frame() -> None:
    head = """.func (.param .b32 r) fib(.param .b32 a) { .local .align 4 .b8 l[8];
    .reg .b32 n, u, v;
    .reg .pred p; ld.param.b32 n, [a]; st.local.u32 [l+4], n; setp.lt.u32 p, n, 2; @p bra LEAF;
    sub.u32 u, n, 1; { .param .b32 q, s; st.param.b32 [q], u; call (s), fib, (q);
    ld.param.b32 v, [s]; } st.local.u32 [l], v; ld.local.u32 n, [l+4]; sub.u32 u, n, 2;
    { .param .b32 q, s; st.param.b32 [q], u; call (s), fib, (q); ld.param.b32 v, [s]; }
    ld.local.u32 u, [l]; add.u32 n, u, v; LEAF: st.param.b32 [r], n; ret; }"""
    got = run(
        """and.b32 r1, t, 15; { .param .b32 a, r; st.param.b32 [a], r1; call (r), fib, (a);
        ld.param.b32 d, [r]; }""",
        head=head,
        block=40,
    )
    fib = [0, 1]
    while len(fib) < 16:
        fib.append(fib[-1] + fib[-2])
    assert got == [fib[n % 16] for n in range(40)]


def test_indirect_calls_to_several_functions_at_once() -> None:
    head = """
    .func (.param .b32 r) double(.param .b32 a) { .reg .b32 v; ld.param.b32 v, [a];
    shl.b32 v, v, 1; st.param.b32 [r], v; ret; }
    .func (.param .b32 r) square(.param .b32 a) { .reg .b32 v; ld.param.b32 v, [a];
    mul.lo.u32 v, v, v; st.param.b32 [r], v; ret; }
    .global .align 8 .u64 table[2] = {double, square};"""
    got = run(
        """and.b32 r1, t, 1; mul.wide.u32 x, r1, 8; mov.u64 y, table; add.u64 y, y, x;
        ld.global.u64 z, [y]; { .param .b32 a, r; st.param.b32 [a], t;
        P: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (r), z, (a), P; ld.param.b32 d, [r]; }""",
        head=head,
    )
    assert got == [n * n if n % 2 else 2 * n for n in range(32)]


def test_structures_go_in_and_out() -> None:
    head = """.func (.param .align 8 .b8 r[16]) swap(.param .align 8 .b8 a[16], .param .b64 k) {
    .reg .b64 x, y, z; ld.param.b64 x, [a]; ld.param.b64 y, [a+8]; ld.param.b64 z, [k];
    add.u64 x, x, z; st.param.b64 [r], y; st.param.b64 [r+8], x; ret; }"""
    got = run(
        """cvt.u64.u32 x, t; { .param .align 8 .b8 a[16]; .param .b64 k; .param .align 8 .b8 r[16];
        st.param.v2.b64 [a], {x, 5}; st.param.b64 [k], 100; call (r), swap, (a, k);
        ld.param.b64 x, [r]; ld.param.b32 r1, [r+8]; } cvt.u32.u64 r2, x;
        mad.lo.u32 d, r2, 1000, r1;""",
        head=head,
    )
    assert got == [5100 + n for n in range(32)]


def test_only_some_lanes_call() -> None:
    head = """.func (.param .b32 r) f(.param .b32 a) { .reg .b32 v; activemask.b32 v;
    st.param.b32 [r], v; ret; }"""
    got = run(
        """mov.u32 d, 1; setp.lt.u32 p0, t, 7; @!p0 bra SKIP; { .param .b32 a, r;
        st.param.b32 [a], t; call (r), f, (a); ld.param.b32 d, [r]; } SKIP:""",
        head=head,
    )
    assert got == [0x7F] * 7 + [1] * 25


def test_registers_as_parameters() -> None:
    head = ".func (.reg .b32 r) f(.reg .b32 a, .reg .b32 b) { sub.u32 r, a, b; ret; }"
    assert run("call (d), f, (t, 3);", head=head) == [(n - 3) & FULL for n in range(32)]


def test_endless_recursion_is_a_fault() -> None:
    head = ".func f() { call f; ret; }"
    with pytest.raises(DeviceFault):
        run("call f;", head=head)


def test_aliases() -> None:
    head = """.func (.param .b32 r) f() { st.param.b32 [r], 6; ret; }
    .func (.param .b32 r) g(); .alias g, f;"""
    assert run("{ .param .b32 r; call (r), g; ld.param.b32 d, [r]; }", head=head) == [6] * 32


# ---------------------------------------------------------------- barriers


@pytest.mark.parametrize(
    "barrier",
    ["bar.sync 0;", "barrier.sync 0;", "barrier.cta.sync.aligned 0;", "bar.cta.sync 0;"],
)
def test_barriers_order_warps(barrier: str) -> None:
    got = run(
        f"""mov.u32 r1, s; shl.b32 r2, t, 2; add.u32 r2, r2, r1; mul.lo.u32 r3, t, 3;
        st.shared.u32 [r2], r3; {barrier} mov.u32 r4, 255; sub.u32 r4, r4, t; shl.b32 r4, r4, 2;
        add.u32 r4, r4, r1; ld.shared.u32 d, [r4]; {barrier} st.shared.u32 [r2], 1;""",
        block=256,
        head=".shared .align 4 .b8 s[1024];",
    )
    assert got == [3 * (255 - n) for n in range(256)]


def test_a_barrier_in_diverged_code() -> None:
    """barrier.sync without .aligned may be reached by different instructions."""
    got = run(
        """mov.u32 r1, s; setp.eq.u32 p0, t, 5; @p0 bra WRITE; barrier.sync 0;
        ld.shared.u32 d, [r1]; bra DONE;
        WRITE: st.shared.u32 [r1], 42; barrier.sync 0; mov.u32 d, 1; DONE:""",
        block=64,
        head=".shared .u32 s;",
    )
    assert got == [1 if n == 5 else 42 for n in range(64)]


def test_threads_that_left_do_not_hold_a_barrier() -> None:
    got = run(
        """mov.u32 d, 3; setp.ge.u32 p0, t, 40; @p0 bra OUT; bar.sync 0; mov.u32 d, 4; bar.sync 0;
        OUT:""",
        block=96,
    )
    assert got == [4] * 40 + [3] * 56


def test_named_barriers_with_counts() -> None:
    """Warp 0 produces for warp 1 by bar.arrive and bar.sync; warp 2 has nothing to do with it."""
    got = run(
        """mov.u32 r1, s; setp.ge.u32 p0, t, 64; @p0 bra DONE; setp.ge.u32 p0, t, 32; @p0 bra READ;
        mov.u32 r2, 0; SPIN: add.u32 r2, r2, 1; setp.lt.u32 p1, r2, 500; @p1 bra SPIN;
        shl.b32 r2, t, 2; add.u32 r2, r2, r1; mul.lo.u32 r3, t, 7; st.shared.u32 [r2], r3;
        bar.arrive 3, 64; bra DONE;
        READ: bar.sync 3, 64; sub.u32 r2, t, 32; shl.b32 r2, r2, 2; add.u32 r2, r2, r1;
        ld.shared.u32 d, [r2]; DONE:""",
        block=96,
        head=".shared .align 4 .b8 s[128];",
    )
    assert got == [0] * 32 + [7 * n for n in range(32)] + [0] * 32


def test_barriers_that_count() -> None:
    got = run(
        """setp.lt.u32 p0, t, 37; bar.red.popc.u32 d, 0, p0; bar.red.and.pred p1, 0, p0;
        selp.u32 r1, 1000, 0, p1; add.u32 d, d, r1; bar.red.or.pred p1, 0, !p0;
        selp.u32 r1, 2000, 0, p1; add.u32 d, d, r1; setp.lt.u32 p2, t, 4000;
        barrier.red.and.pred p1, 1, p2; selp.u32 r1, 10000, 0, p1; add.u32 d, d, r1;""",
        block=80,
    )
    assert got == [12037] * 80


# ---------------------------------------------------------------- waiting for each other


LOCKS = {
    "taken inside of the loop": """mov.u32 r5, 0; LOOP: atom.global.cas.b32 r1, [x], 0, 1;
        setp.ne.u32 p0, r1, 0; @p0 bra NEXT; ld.volatile.global.u32 r2, [x+4];
        add.u32 r2, r2, 1; st.volatile.global.u32 [x+4], r2; membar.gl; mov.u32 r5, 1;
        atom.global.exch.b32 r1, [x], 0; NEXT: setp.eq.u32 p0, r5, 0; @p0 bra LOOP;""",
    "waited for first": """LOOP: atom.global.cas.b32 r1, [x], 0, 1; setp.ne.u32 p0, r1, 0;
        @p0 bra LOOP; ld.volatile.global.u32 r2, [x+4]; add.u32 r2, r2, 1;
        st.volatile.global.u32 [x+4], r2; membar.gl; atom.global.exch.b32 r1, [x], 0;""",
}


@pytest.mark.parametrize("name", list(LOCKS))
def test_spin_locks(name: str) -> None:
    program = compiled(
        f""".visible .entry k(.param .u64 lock) {{ .reg .b32 r<8>; .reg .b64 x; .reg .pred p<3>;
        ld.param.u64 x, [lock]; {LOCKS[name]} ret; }}"""
    )
    lock = array([0, 0], "u4")
    program.launch("k", 4, 96, lock)
    assert lock.tolist() == [0, 4 * 96]


def test_a_warp_waits_for_another() -> None:
    got = run(
        """mov.u32 r1, s; setp.ge.u32 p0, t, 32; @p0 bra SET;
        WAIT: ld.volatile.shared.u32 d, [r1]; setp.ne.u32 p1, d, 5; @p1 bra WAIT; bra DONE;
        SET: mov.u32 r2, 5; st.volatile.shared.u32 [r1], r2; mov.u32 d, 5; DONE:""",
        block=64,
        head=".shared .u32 s;",
    )
    assert got == [5] * 64


def test_a_lane_waits_for_another_of_its_warp() -> None:
    got = run(
        """mov.u32 r1, s; setp.eq.u32 p0, t, 31; @p0 bra SET;
        WAIT: ld.volatile.shared.u32 d, [r1]; setp.ne.u32 p1, d, 5; @p1 bra WAIT; bra DONE;
        SET: mov.u32 r2, 5; st.volatile.shared.u32 [r1], r2; mov.u32 d, 6; DONE:""",
        head=".shared .u32 s;",
    )
    assert got == [5] * 31 + [6]


def test_later_blocks_wait_for_earlier_ones() -> None:
    """A chain through all blocks, numbered by an atomic ticket as look-back scans do."""
    program = compiled(
        """.visible .entry k(.param .u64 s, .param .u64 out) { .shared .u32 ticket;
        .reg .b32 t, m, v;
        .reg .b64 x, y, z; .reg .pred p; ld.param.u64 x, [s]; mov.u32 t, %tid.x;
        setp.ne.u32 p, t, 0; @p bra GO; atom.global.add.u32 m, [x], 1; st.shared.u32 [ticket], m;
        WAIT: ld.acquire.gpu.global.u32 v, [x+4]; setp.ne.u32 p, v, m; @p bra WAIT;
        add.u32 v, v, 1; st.release.gpu.global.u32 [x+4], v; GO: bar.sync 0;
        ld.shared.u32 m, [ticket]; ld.param.u64 y, [out]; mul.wide.u32 z, m, 4; add.u64 y, y, z;
        st.global.u32 [y], m; ret; }"""
    )
    state, out = zeros(2, "u4"), zeros(60, "u4")
    program.launch("k", 60, 64, state, out)
    assert state.tolist() == [60, 60]
    assert out.tolist() == list(range(60))


def test_a_cooperative_grid_waits_for_all_blocks() -> None:
    """Each block waits until all have come: they must all be there at once."""
    program = compiled(
        """.visible .entry k(.param .u64 s, .param .u64 out) { .reg .b32 t, v, n;
        .reg .b64 x, y, z;
        .reg .pred p; ld.param.u64 x, [s]; mov.u32 t, %tid.x; mov.u32 n, %nctaid.x; bar.sync 0;
        setp.ne.u32 p, t, 0; @p bra GO; red.release.gpu.global.add.u32 [x], 1;
        WAIT: ld.acquire.gpu.global.u32 v, [x]; setp.lt.u32 p, v, n; @p bra WAIT; GO: bar.sync 0;
        ld.global.u32 v, [x]; mov.u32 n, %ctaid.x; ld.param.u64 y, [out]; mul.wide.u32 z, n, 4;
        add.u64 y, y, z; st.global.u32 [y], v; ret; }"""
    )
    state, out = zeros(1, "u4"), zeros(48, "u4")
    program.launch("k", 48, 96, state, out, cooperative=True)
    assert out.tolist() == [48] * 48


@pytest.mark.parametrize(("cooperative", "status"), [(True, 0), (False, 1)])
def test_the_grids_barrier_by_name(cooperative: bool, status: int) -> None:
    """Each round, a block reads what its neighbour wrote before the barrier."""
    program = compiled(
        """.extern .func (.param .b64 r) cudaCGGetIntrinsicHandle(.param .b32 a);
        .extern .func (.param .b32 r) cudaCGSynchronize(.param .b64 a, .param .b32 b);
        .visible .entry k(.param .u64 s, .param .u64 out) { .reg .b32 t, v, n, i, own, bad;
        .reg .b64 x, y, z, h; .reg .pred p; .param .b64 h64; .param .b32 n32, o32;
        ld.param.u64 x, [s]; ld.param.u64 y, [out]; mov.u32 own, %ctaid.x; mov.u32 n, %nctaid.x;
        mov.u32 t, %tid.x; mov.u32 i, 0; mov.u32 bad, 0;
        st.param.b32 [n32], 1; call (h64), cudaCGGetIntrinsicHandle, (n32); ld.param.b64 h, [h64];
        AGAIN: add.u32 i, i, 1; mul.wide.u32 z, own, 4; add.u64 z, x, z; st.global.u32 [z], i;
        st.param.b64 [h64], h; st.param.b32 [n32], 0;
        call (o32), cudaCGSynchronize, (h64, n32); ld.param.b32 v, [o32];
        setp.ne.u32 p, v, 0; @p mov.u32 bad, v; @p bra END;
        add.u32 v, own, 1; rem.u32 v, v, n; mul.wide.u32 z, v, 4; add.u64 z, x, z;
        ld.global.u32 v, [z]; setp.ne.u32 p, v, i; @p add.u32 bad, bad, 100;
        st.param.b64 [h64], h; st.param.b32 [n32], 0; call (o32), cudaCGSynchronize, (h64, n32);
        setp.lt.u32 p, i, 3; @p bra AGAIN;
        END: mul.wide.u32 z, own, 4; add.u64 z, y, z; atom.global.max.u32 v, [z], bad; ret; }"""
    )
    state, out = zeros(17, "u4"), zeros(17, "u4")
    program.launch("k", 17, 40, state, out, cooperative=cooperative)
    assert out.tolist() == [status] * 17


# ---------------------------------------------------------------- the device's runtime


VPRINTF = ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);\n"


def test_printf() -> None:
    machine().output()
    text = rb"n=%d u=%u x=%08x c=%c f=%.3f g=%g e=%e s=%s ll=%lld p%% %5d|%-5d|%+d|"
    data = ", ".join(map(str, text.replace(rb"\n", b"\n") + b"\n\0"))
    word = ", ".join(map(str, b"word\0"))
    program = compiled(
        VPRINTF
        + f""".global .align 1 .b8 fmt[] = {{{data}}}; .global .align 1 .b8 word[] = {{{word}}};
        .visible .entry k() {{ .local .align 8 .b8 l[128]; .reg .b64 x, y; .reg .b32 r;
        .reg .pred p;
        .reg .f64 f; mov.u32 r, %tid.x; setp.ne.u32 p, r, 2; @p ret; mov.u64 x, l;
        st.local.u32 [l], -5; st.local.u32 [l+4], -5; st.local.u32 [l+8], 48879;
        st.local.u32 [l+12], 90; mov.f64 f, 2.5; st.local.f64 [l+16], f; st.local.f64 [l+24], f;
        st.local.f64 [l+32], f; mov.u64 y, word; cvta.global.u64 y, y; st.local.u64 [l+40], y;
        mov.u64 y, -7000000000; st.local.u64 [l+48], y; st.local.u32 [l+56], 42;
        st.local.u32 [l+60], 42; st.local.u32 [l+64], 42; cvta.local.u64 x, x; mov.u64 y, fmt;
        cvta.global.u64 y, y; {{ .param .b64 a, b; .param .b32 r0; st.param.b64 [a], y;
        st.param.b64 [b], x; call (r0), vprintf, (a, b); ld.param.b32 r, [r0]; }} ret; }}"""
    )
    program.launch("k", 1, 32)
    assert machine().output() == (
        "n=-5 u=4294967291 x=0000beef c=Z f=2.500 g=2.5 e=2.500000e+00 s=word ll=-7000000000 p%"
        "    42|42   |+42|\n"
    )


def test_printf_of_many_threads_comes_line_by_line() -> None:
    machine().output()
    data = ", ".join(map(str, b"thread %d of block %d\n\0"))
    program = compiled(
        VPRINTF
        + f""".global .align 1 .b8 fmt[] = {{{data}}};
        .visible .entry k() {{ .local .align 8 .b8 l[8]; .reg .b64 x, y; .reg .b32 r;
        mov.u32 r, %tid.x; st.local.u32 [l], r; mov.u32 r, %ctaid.x; st.local.u32 [l+4], r;
        mov.u64 x, l; cvta.local.u64 x, x; mov.u64 y, fmt; cvta.global.u64 y, y;
        {{ .param .b64 a, b; .param .b32 r0; st.param.b64 [a], y; st.param.b64 [b], x;
        call (r0), vprintf, (a, b); ld.param.b32 r, [r0]; }} ret; }}"""
    )
    program.launch("k", 8, 48)
    lines = machine().output().splitlines()
    assert sorted(lines) == sorted(f"thread {t} of block {b}" for t in range(48) for b in range(8))


def test_malloc_and_free() -> None:
    head = """.extern .func (.param .b64 r) malloc(.param .b64 n);
    .extern .func free(.param .b64 p);"""
    got = run(
        """mov.u32 r1, 0; LOOP: { .param .b64 n, r; st.param.b64 [n], 64; call (r), malloc, (n);
        ld.param.b64 x, [r]; } setp.eq.u64 p0, x, 0; @p0 trap; st.u32 [x+60], t; bar.sync 0;
        ld.u32 r2, [x+60]; add.u32 d, d, r2; { .param .b64 p; st.param.b64 [p], x;
        call free, (p); }
        add.u32 r1, r1, 1; setp.lt.u32 p0, r1, 600; @p0 bra LOOP;""",
        head=head,
        block=64,
    )
    assert got == [600 * n for n in range(64)]


def test_malloc_gives_null_when_there_is_no_more() -> None:
    head = ".extern .func (.param .b64 r) malloc(.param .b64 n);"
    got = run(
        """{ .param .b64 n, r; st.param.b64 [n], 1099511627776; call (r), malloc, (n);
        ld.param.b64 x, [r]; } setp.eq.u64 p0, x, 0; selp.u32 d, 1, 2, p0;""",
        head=head,
    )
    assert got == [1] * 32


def test_a_failed_assertion_says_where() -> None:
    machine().assertions()
    head = """.extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l,
    .param .b64 n, .param .b64 c);\n"""
    for name, text in (("m", b"x > 0\0"), ("f", b"a.cu\0"), ("n", b"kernel\0")):
        head += f".global .b8 {name}0[] = {{{', '.join(map(str, text))}}};\n"
    body = "setp.eq.u32 p0, t, 3; @!p0 bra FINE; { .param .b64 m, f, n, c; .param .b32 l;"
    for name in "mfn":
        body += f"mov.u64 x, {name}0; cvta.global.u64 x, x; st.param.b64 [{name}], x;"
    body += (
        "st.param.b32 [l], 17; st.param.b64 [c], 1; call __assertfail, (m, f, l, n, c); } FINE:"
    )
    with pytest.raises(DeviceFault) as caught:
        run(body, head=head)
    assert caught.value.error == 710
    shown = machine().assertions()
    assert "a.cu:17" in shown
    assert "x > 0" in shown
    assert "kernel" in shown


@pytest.mark.parametrize("stop", ["trap", "brkpt"])
def test_trap(stop: str) -> None:
    """It ends the kernel where a thread comes to it, and there alone."""
    assert run(f"setp.eq.u32 p0, t, 99; @p0 {stop}; mov.u32 d, 5;") == [5] * 32
    with pytest.raises(DeviceFault) as caught:
        run(f"setp.eq.u32 p0, t, 3; @p0 {stop};")
    assert caught.value.error in (715, 719)
    assert "'k'" in caught.value.text


def test_functions_that_are_not_there_fail_when_called() -> None:
    head = ".extern .func (.param .b32 r) cudaGetDeviceCount(.param .b64 p);"
    body = """setp.ne.u32 p0, 1, {}; @p0 bra SKIP; {{ .param .b64 p; .param .b32 r;
    st.param.b64 [p], 0; call (r), cudaGetDeviceCount, (p); ld.param.b32 d, [r]; }} SKIP:"""
    assert run(body.format(2), head=head) == [0] * 32
    with pytest.raises(DeviceFault) as caught:
        run(body.format(1), head=head)
    assert "cudaGetDeviceCount" in caught.value.text


def test_many_small_blocks() -> None:
    program = compiled(
        """.visible .entry k(.param .u64 out) { .reg .b32 i; .reg .b64 x, y; mov.u32 i, %ctaid.x;
        ld.param.u64 x, [out]; mul.wide.u32 y, i, 4; add.u64 x, x, y; add.u32 i, i, 1;
        st.global.u32 [x], i; ret; }"""
    )
    out = zeros(50000, "u4")
    began = time.process_time()
    program.launch("k", 50000, 1, out)
    assert time.process_time() - began < 20
    assert numpy.array_equal(out, numpy.arange(1, 50001))
