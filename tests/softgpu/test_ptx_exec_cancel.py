# SPDX-License-Identifier: Apache-2.0
"""clusterlaunchcontrol: clusters that take the place of others which were not begun."""

from __future__ import annotations

from typing import Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, Program, machine, zeros

# Thread 0 of the cluster's first block asks and tells the others; each block works on its place
# of the cluster until there is none to take. The kernel counts, for each block of the grid, how
# often somebody worked on it, and in the last word how many clusters ran.
WORKER = f"""{HEAD}.visible .entry k(.param .u64 out, .param .u32 total) {{
    .shared .align 16 .b8 answer[16]; .shared .align 8 .b64 bar; .shared .align 4 .b32 next[4];
    .reg .b64 o, x, lo, hi, g; .reg .b128 r; .reg .pred p, lead, more; .reg .b32 a, s, phase, n;
    .reg .b32 fx, fy, fz, ox, oy, oz, cx, cy, cz, t, w;
    ld.param.u64 o, [out]; ld.param.u32 n, [total];
    mov.u32 t, %tid.x; mov.u32 a, %cluster_ctarank; or.b32 s, t, a; setp.eq.u32 lead, s, 0;
    mov.u32 ox, %cluster_ctaid.x; mov.u32 oy, %cluster_ctaid.y; mov.u32 oz, %cluster_ctaid.z;
    mov.u32 fx, %ctaid.x; sub.u32 fx, fx, ox; mov.u32 fy, %ctaid.y; sub.u32 fy, fy, oy;
    mov.u32 fz, %ctaid.z; sub.u32 fz, fz, oz; mov.u32 phase, 0;
    mul.wide.u32 x, n, 4; add.u64 x, x, o; @lead red.global.add.u32 [x], 1;
    @lead mbarrier.init.shared::cta.b64 [bar], 1;
AGAIN:
    add.u32 cx, fx, ox; add.u32 cy, fy, oy; add.u32 cz, fz, oz;
    mov.u32 w, %nctaid.y; mad.lo.u32 cz, cz, w, cy; mov.u32 w, %nctaid.x; mad.lo.u32 cz, cz, w, cx;
    setp.eq.u32 p, t, 0; mul.wide.u32 x, cz, 4; add.u64 x, x, o; @p red.global.add.u32 [x], 1;
    @!lead bra SHARE;
    {{ASK}}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 p, [bar], phase; @!p bra WAIT;
    xor.b32 phase, phase, 1;
    ld.shared.b128 r, [answer];
    clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 more, r;
    selp.u32 w, 1, 0, more; st.shared.u32 [next], w; @!more bra SHARE;
    {{READ}}
    st.shared.u32 [next+4], fx; st.shared.u32 [next+8], fy; st.shared.u32 [next+12], fz;
SHARE:
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 a, next; mov.u32 w, 0; mapa.shared::cluster.u32 a, a, w;
    ld.shared::cluster.u32 w, [a]; ld.shared::cluster.u32 fx, [a+4];
    ld.shared::cluster.u32 fy, [a+8]; ld.shared::cluster.u32 fz, [a+12];
    barrier.cluster.arrive; barrier.cluster.wait;
    setp.ne.u32 p, w, 0; @p bra AGAIN;
    ret; }}"""
EXPECT = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 16;"
REQUEST = "clusterlaunchcontrol.try_cancel.async"
COMPLETE = "mbarrier::complete_tx::bytes.b128"
ASK = {
    "shared": f"{EXPECT} {REQUEST}.shared::cta.{COMPLETE} [answer], [bar];",
    "generic": f"""{EXPECT} mov.u64 x, answer; cvta.shared.u64 x, x; mov.u64 g, bar;
        cvta.shared.u64 g, g; {REQUEST}.{COMPLETE} [x], [g];""",
}
FIRST = "clusterlaunchcontrol.query_cancel.get_first_ctaid"
READ = {
    "vector": f"{FIRST}.v4.b32.b128 {{fx, fy, fz, _}}, r;",
    "words": " ".join(f"{FIRST}::{axis}.b32.b128 f{axis}, r;" for axis in "xyz"),
}
CASES = [
    ((40, 1, 1), (1, 1, 1)), ((5, 3, 4), (0, 0, 0)), ((8, 4, 2), (2, 2, 1)),
    ((6, 1, 4), (3, 1, 2)), ((1, 1, 1), (1, 1, 1)), ((1, 300, 7), (1, 1, 1)),
]  # fmt: skip


def worker(ask: str = "shared", read: str = "vector") -> Program:
    return machine().compile(WORKER.replace("{ASK}", ASK[ask]).replace("{READ}", READ[read]))


@pytest.mark.parametrize("read", sorted(READ))
@pytest.mark.parametrize("ask", sorted(ASK))
def test_every_block_is_worked_on_once(ask: str, read: str) -> None:
    program = worker(ask, read)
    for grid, cluster in CASES:
        total = int(numpy.prod(grid))
        out = zeros(total + 1, "u4")
        program.launch("k", grid, 32, out, total, cluster=cluster)
        assert (out[:total] == 1).all(), (grid, cluster)
        clusters = total // max(int(numpy.prod(cluster)), 1)
        assert 1 <= out[total] <= clusters
        if clusters > 64:
            assert out[total] < clusters  # somebody took another one's place


def test_blocks_of_a_cooperative_grid_stay() -> None:
    out = zeros(13, "u4")
    worker().launch("k", 12, 32, out, 12, cooperative=True)
    assert out.tolist() == [1] * 12 + [12]


@pytest.mark.parametrize(
    ("answer", "bar", "error"),
    [
        ("answer+8", "bar", 716),
        ("answer", "bar+4", 716),
        ("answer", "other", 719),
        ("o", "bar", 700),
    ],
)
def test_faults(answer: str, bar: str, error: int) -> None:
    space = "" if answer == "o" else ".shared::cta"
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
        .shared .align 16 .b8 answer[32]; .shared .align 8 .b64 bar, other; .reg .b64 o, g;
        ld.param.u64 o, [out]; mbarrier.init.shared::cta.b64 [bar], 1;
        mov.u64 g, bar; cvta.shared.u64 g, g;
        {REQUEST}{space}.{COMPLETE} [{answer}], [{"g" if answer == "o" else bar}]; ret; }}"""
    with pytest.raises(DeviceFault) as caught:
        machine().compile(text).launch("k", 1, 1, zeros(4, "u8"))
    assert caught.value.error == error, caught.value.text


def test_an_answer_says_no_when_nothing_is_left() -> None:
    """One block alone, many requests: every one is answered, none is granted."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
        .shared .align 16 .b8 answer[512]; .shared .align 8 .b64 bar; .reg .b64 o, x; .reg .b128 r;
        .reg .b32 t, a, w; .reg .pred p;
        ld.param.u64 o, [out]; mov.u32 t, %tid.x; mov.u32 a, answer; mad.lo.u32 a, t, 16, a;
        setp.eq.u32 p, t, 0; @p mbarrier.init.shared::cta.b64 [bar], 1;
        @p mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 512; bar.warp.sync -1;
        {REQUEST}.shared::cta.{COMPLETE} [a], [bar];
    WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 0; @!p bra WAIT;
        ld.shared.b128 r, [a];
        clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 p, r;
        selp.u32 w, 1, 2, p; mul.wide.u32 x, t, 4; add.u64 o, o, x; st.global.u32 [o], w;
        ret; }}"""
    out = zeros(32, "u4")
    machine().compile(text).launch("k", 1, 32, out)
    assert out.tolist() == [2] * 32


def refused(words: Tuple[str, ...]) -> str:
    """The instruction is named where it is not carried out."""
    text = f"""{HEAD}.visible .entry k() {{ .shared .align 16 .b8 answer[16];
        .shared .align 8 .b64 bar;
        clusterlaunchcontrol.{".".join(words)} [answer], [bar]; ret; }}"""
    with pytest.raises(DeviceFault) as caught:
        machine().compile(text).launch("k", 1, 1)
    assert caught.value.error == 715
    return caught.value.text


def test_forms_of_single_architectures_are_named() -> None:
    words = ("try_cancel", "async", "shared::cta", "mbarrier::complete_tx::bytes")
    assert "multicast::cluster::all" in refused((*words, "multicast::cluster::all", "b128"))
    assert "try_cancel" in refused((*words, "b64"))
