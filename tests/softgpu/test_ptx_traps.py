# SPDX-License-Identifier: Apache-2.0
"""What old or careless code relies on, and no other test asks for."""

from __future__ import annotations

from forms import HEAD
from machine import machine, zeros


def run(body: str, blocks: int, threads: int) -> list[int]:
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
    .reg .b64 o, x, y; .reg .b32 t, r, q, a, v; .reg .pred p; .shared .align 16 .b8 s[4096];
    ld.param.u64 o, [out]; mov.u32 t, %tid.x; {body} ret; }}"""
    out = zeros(blocks * threads, "u4")
    machine().compile(text).launch("k", blocks, threads, out)
    return [int(value) for value in out]


def test_a_warp_adds_up_without_a_barrier() -> None:
    """The old reduction through volatile shared memory: the lanes go on together."""
    steps = " ".join(
        f"ld.volatile.shared.u32 v, [a+{4 * n}]; add.u32 r, r, v; st.volatile.shared.u32 [a], r;"
        for n in (16, 8, 4, 2, 1)
    )
    found = run(
        f"""mov.u32 a, s; mad.lo.u32 a, t, 4, a; mul.lo.u32 r, t, t; st.volatile.shared.u32 [a], r;
        {steps} mov.u32 q, %ctaid.x; mad.lo.u32 q, q, 32, t; mul.wide.u32 x, q, 4;
        add.u64 o, o, x; st.global.u32 [o], r;""",
        3,
        32,
    )
    assert found[::32] == [sum(n * n for n in range(32))] * 3


def test_one_of_several_stores_to_a_place_wins() -> None:
    found = run(
        """and.b32 q, t, 3; mul.wide.u32 x, q, 8; add.u64 o, o, x; add.u32 r, t, 100;
        st.global.v2.u32 [o], {t, r};""",
        1,
        32,
    )
    for place in range(4):
        first, second = found[2 * place : 2 * place + 2]
        assert first % 4 == place and second == first + 100


def test_the_block_is_numbered_along_x_first() -> None:
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{ .reg .b64 o, x; .reg .b32 r<6>;
    ld.param.u64 o, [out]; mov.u32 r0, %tid.x; mov.u32 r1, %tid.y; mov.u32 r2, %tid.z;
    mad.lo.u32 r3, r2, 3, r1; mad.lo.u32 r3, r3, 5, r0; mov.u32 r4, %warpid; mov.u32 r5, %laneid;
    mad.lo.u32 r4, r4, 32, r5; mul.wide.u32 x, r3, 4; add.u64 o, o, x; st.global.u32 [o], r4;
    ret; }}"""
    out = zeros(60, "u4")
    machine().compile(text).launch("k", 1, (5, 3, 4), out)
    assert out.tolist() == list(range(60))
