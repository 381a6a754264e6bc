# SPDX-License-Identifier: Apache-2.0
"""Local memory that calls take while they run: alloca, stacksave, stackrestore."""

from __future__ import annotations

import pytest
from forms import HEAD
from machine import DeviceFault, machine, zeros


def run(body: str, functions: str = "", threads: int = 64) -> list[int]:
    text = f"""{HEAD}{functions}.visible .entry k(.param .u64 out) {{
    .reg .b64 o, x, y, z, s, n; .reg .b32 t, r, q, a, v; .reg .pred p;
    ld.param.u64 o, [out]; mov.u32 t, %tid.x; mul.wide.u32 x, t, 4; add.u64 o, o, x;
    {body} st.global.u32 [o], r; ret; }}"""
    out = zeros(threads, "u4")
    machine().compile(text).launch("k", 1, threads, out)
    return [int(value) for value in out]


def test_lanes_take_different_amounts() -> None:
    """Each fills 4 * (t + 1) bytes twice and adds both up: the two do not overlap."""
    found = run(
        """add.u32 q, t, 1; mul.wide.u32 n, q, 4; alloca.u64 x, n; alloca.u64 y, n, 64;
        and.b64 z, y, 63; setp.ne.u64 p, z, 0; @p trap; mov.u32 a, 0;
        FILL: mul.wide.u32 z, a, 4; add.u64 s, x, z; st.local.u32 [s], a; add.u64 s, y, z;
        cvta.local.u64 s, s; add.u32 v, a, 1000; st.u32 [s], v; add.u32 a, a, 1;
        setp.lt.u32 p, a, q; @p bra FILL; mov.u32 a, 0; mov.u32 r, 0;
        SUM: mul.wide.u32 z, a, 4; add.u64 s, x, z; ld.local.u32 v, [s]; add.u32 r, r, v;
        add.u64 s, y, z; ld.local.u32 v, [s]; add.u32 r, r, v; add.u32 a, a, 1;
        setp.lt.u32 p, a, q; @p bra SUM;"""
    )
    assert found == [sum(2 * n + 1000 for n in range(t + 1)) for t in range(64)]


def test_restored_memory_is_used_again() -> None:
    """A loop that would use the stack up, in lanes that leave it one by one."""
    found = run(
        """mov.u32 a, 0; stacksave.u64 s; NEXT: alloca.u64 x, 4096; st.local.u32 [x], a;
        ld.local.u32 r, [x+0]; stackrestore.u64 s; add.u32 a, a, 1; mad.lo.u32 q, t, 3, 50;
        setp.lt.u32 p, a, q; @p bra NEXT;"""
    )
    assert found == [3 * t + 49 for t in range(64)]


def test_calls_begin_behind_it() -> None:
    functions = """.func (.param .u32 sum) f(.param .u32 depth) { .reg .b32 d, r, v; .reg .pred p;
    .reg .b64 x; .local .align 4 .b8 own[16]; ld.param.u32 d, [depth]; mul.wide.u32 x, d, 16;
    alloca.u64 x, x; st.local.u32 [x], d; st.local.u32 [own], d; mov.u32 r, 0;
    setp.eq.u32 p, d, 1; @p bra END; { .param .u32 a; .param .u32 b; sub.u32 v, d, 1;
    st.param.u32 [a], v; call (b), f, (a); ld.param.u32 r, [b]; }
    END: ld.local.u32 v, [x]; add.u32 r, r, v; ld.local.u32 v, [own]; add.u32 r, r, v;
    st.param.u32 [sum], r; ret; }"""
    found = run(
        """alloca.u64 x, 64; st.local.u32 [x+60], t; and.b32 q, t, 7; add.u32 q, q, 1;
        { .param .u32 a; .param .u32 b; st.param.u32 [a], q; call (b), f, (a);
        ld.param.u32 r, [b]; } ld.local.u32 v, [x+60]; mad.lo.u32 r, v, 1000, r;""",
        functions,
    )
    assert found == [t * 1000 + 2 * sum(range(1, t % 8 + 2)) for t in range(64)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("alloca.u64 x, 100000000;", "stack"),
        ("mov.u64 s, 1; stackrestore.u64 s;", "stackrestore"),
        ("mov.u64 s, 60000; stackrestore.u64 s;", "stackrestore"),
    ],
)
def test_faults(body: str, words: str) -> None:
    with pytest.raises(DeviceFault) as caught:
        run(f"{body} mov.u32 r, 0;")
    assert caught.value.error == 714 and words in caught.value.text
