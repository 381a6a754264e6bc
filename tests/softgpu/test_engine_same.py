# SPDX-License-Identifier: Apache-2.0
"""What goes lane by lane is computed once where a whole warp has the same operands."""

from __future__ import annotations

import pytest
from forms import HEAD
from machine import machine, zeros

# A thread's divisor is the same for all (0), differs in one lane (1) or in the upper half (2).
KERNEL = """.visible .entry k(.param .u64 to, .param .u32 ga, .param .u32 ghow, .param .u32 godd) {
.reg .b32 a, b, t, r, how, odd; .reg .b64 at, off; .reg .pred p, q;
ld.param.u64 at, [to]; ld.param.u32 a, [ga]; ld.param.u32 how, [ghow]; ld.param.u32 odd, [godd];
mov.u32 t, %tid.x; mul.wide.u32 off, t, 4; add.u64 at, at, off; mov.u32 b, 7; mov.u32 r, 5;
setp.eq.u32 p, t, odd; setp.eq.u32 q, how, 1; and.pred p, p, q; @p mov.u32 b, 9;
setp.ge.u32 p, t, 16; setp.eq.u32 q, how, 2; and.pred p, p, q; @p mov.u32 b, 9;
setp.lt.u32 p, t, 20; setp.ne.u32 q, how, 3; or.pred p, p, q;
@p div.u32 r, a, b;
@p rem.u32 t, a, b; @!p mov.u32 t, 1000;
mad.lo.u32 r, t, 65536, r; st.global.u32 [at], r; ret; }"""


def expected(thread: int, how: int, odd: int) -> int:
    divisor = 9 if (how == 1 and thread == odd) or (how == 2 and thread >= 16) else 7
    if how == 3 and thread >= 20:
        return 1000 * 65536 + 5
    return 12345 // divisor + 12345 % divisor * 65536


@pytest.mark.parametrize("threads", [32, 20, 1, 45])
@pytest.mark.parametrize(("how", "odd"), [(0, 0), (1, 0), (1, 1), (1, 31), (2, 0), (3, 0)])
def test_lanes_with_the_same_operands(threads: int, how: int, odd: int) -> None:
    found = zeros(threads, "u4")
    machine().compile(HEAD + KERNEL).launch("k", 1, threads, found, 12345, how, odd)
    assert found.tolist() == [expected(thread, how, odd) for thread in range(threads)]
