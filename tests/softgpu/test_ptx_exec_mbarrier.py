# SPDX-License-Identifier: Apache-2.0
"""Asynchronous barriers against a model of them, and what they are for: waiting."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy
import pytest
from forms import HEAD
from machine import DeviceFault, machine, zeros

MOST = (1 << 20) - 1


@dataclass
class Barrier:
    """The counts as the ISA describes them."""

    expected: int
    pending: int = 0
    bytes: int = 0
    phase: int = 0

    def __post_init__(self) -> None:
        self.pending = self.expected

    def check(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase += 1
            self.pending = self.expected

    def arrive(self, count: int = 1, more: int = 0, drop: bool = False) -> Tuple[int, int]:
        """Give phase and pending arrivals as they were before."""
        before = (self.phase, self.pending)
        self.bytes += more
        if drop:
            self.expected -= count
        self.pending -= count
        self.check()
        return before

    def add_bytes(self, more: int) -> None:
        self.bytes += more
        self.check()


SPACES = ("shared", "shared::cta", "", "shared::cluster")


def place(space: str) -> str:
    """How an instruction names the barrier at ``bar``: 32 or 64 bits, or generic in ``g``."""
    return {"": "[g]", "shared": "[bar]", "shared::cta": "[b32]"}.get(space, "[b32+0]")


def suffix(space: str) -> str:
    return f".{space}" if space else ""


def one_thread(steps: List[str], results: int) -> numpy.ndarray:
    """Run instructions in one thread; they leave values by ``emit`` lines in ``out``."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
    .shared .align 8 .b64 bar; .reg .b64 o, g, s, t; .reg .b32 b32, r, c; .reg .pred p;
    ld.param.u64 o, [out]; mov.u32 b32, bar; mov.u64 g, bar; cvta.shared.u64 g, g;
    {chr(10).join(steps)}
    ret; }}"""
    out = zeros(max(results, 1), "u8")
    machine().compile(text).launch("k", 1, 1, out)
    return out


def test_random_sequences_follow_the_model() -> None:
    """Every kind of arrival, in every way to name the barrier, step by step as in the model."""
    random_ = random.Random(3)
    for _ in range(6):
        model = Barrier(random_.randrange(2, 9))
        steps = [f"mbarrier.init.shared::cta.b64 [bar], {model.expected};"]
        wanted: List[int] = []
        states: List[Tuple[int, int]] = []  # register number, phase
        declared = 0

        def keep(line: str, value: int) -> None:
            steps.append(f"{line} st.global.u64 [o+{8 * len(wanted)}], t;")  # noqa: B023
            wanted.append(value)  # noqa: B023

        for _ in range(60):
            space = random_.choice(SPACES)
            where, dot = place(space), suffix(space)
            order = random_.choice(("", ".release.cta", ".release.cluster", ".relaxed.cluster"))
            kind = random_.choice(("arrive", "drop", "expect", "complete", "test", "bytes"))
            if model.pending == 0:  # only bytes are missing, or too many
                kind = "bytes" if model.bytes < 0 else "complete"
            if kind in ("arrive", "drop") and model.pending > 0:
                drop = kind == "drop" and model.expected > 1
                count = random_.choice((None, 1, random_.randrange(1, model.pending + 1)))
                if drop and (count or 1) >= model.expected:
                    count = 1
                if model.pending < (count or 1):
                    continue
                verb = "arrive_drop" if drop else "arrive"
                given = "" if count is None else f", {count}"
                phase, pending = model.arrive(count or 1, drop=drop)
                if space == "shared::cluster":
                    steps.append(f"mbarrier.{verb}{order}{dot}.b64 _, {where}{given};")
                    continue
                steps.append(f".reg .b64 s{declared};")
                steps.append(f"mbarrier.{verb}{order}{dot}.b64 s{declared}, {where}{given};")
                keep(f"mbarrier.pending_count.b64 r, s{declared}; cvt.u64.u32 t, r;", pending)
                states.append((declared, phase))
                declared += 1
            elif kind == "expect" and model.pending > 0:
                more = random_.randrange(0, 5000)
                steps.append(f"mbarrier.arrive.expect_tx{order}{dot}.b64 _, {where}, {more};")
                model.arrive(1, more)
            elif kind == "complete" and model.bytes:
                exactly = model.bytes > 0 and random_.random() < 0.7
                less = model.bytes if exactly else random_.randrange(1, 700)
                steps.append(f"mbarrier.complete_tx.relaxed.cluster{dot}.b64 {where}, {less};")
                model.add_bytes(-less)
            elif kind == "bytes":
                more = random_.randrange(0, 700) if model.pending else -model.bytes
                steps.append(f"mbarrier.expect_tx.relaxed.cta{dot}.b64 {where}, {more};")
                model.add_bytes(more)
            elif kind == "test" and space != "shared::cluster":
                verb = random_.choice(("test_wait", "try_wait"))
                hint = ", 100" if verb == "try_wait" and random_.random() < 0.5 else ""
                parity = random_.randrange(2)
                select = "selp.u64 t, 1, 0, p;"
                keep(
                    f"mbarrier.{verb}.parity{dot}.b64 p, {where}, {parity}{hint}; {select}",
                    int(model.phase % 2 != parity),
                )
                known = [s for s in states if s[1] >= model.phase - 1]
                if known:
                    number, phase = random_.choice(known)
                    order = random_.choice(("", ".acquire.cta", ".relaxed.cluster"))
                    keep(
                        f"mbarrier.{verb}{order}{dot}.b64 p, {where}, s{number}{hint}; {select}",
                        int(model.phase != phase),
                    )
        assert model.phase >= 1 and len(wanted) > 12
        assert one_thread(steps, len(wanted)).tolist() == wanted


def test_bytes_may_come_before_they_are_expected() -> None:
    out = one_thread(
        [
            "mbarrier.init.shared.b64 [bar], 1;",
            "mbarrier.complete_tx.shared.b64 [bar], 1048575;",
            "mbarrier.test_wait.parity.shared.b64 p, [bar], 0;",
            "selp.u64 t, 1, 0, p; st.global.u64 [o], t;",
            "mbarrier.arrive.expect_tx.shared.b64 s, [bar], 1048575;",
            "mbarrier.test_wait.shared.b64 p, [bar], s;",
            "selp.u64 t, 1, 0, p; st.global.u64 [o+8], t;",
        ],
        2,
    )
    assert out.tolist() == [0, 1]


def test_no_complete_and_reuse_after_inval() -> None:
    out = one_thread(
        [
            "mbarrier.init.shared.b64 [bar], 3;",
            "mbarrier.arrive.noComplete.shared.b64 s, [bar], 2;",
            "mbarrier.pending_count.b64 r, s; cvt.u64.u32 t, r; st.global.u64 [o], t;",
            "mbarrier.inval.shared.b64 [bar]; st.shared.u64 [bar], 77;",
            "mbarrier.init.b64 [g], 5; mbarrier.arrive_drop.noComplete.b64 s, [g], 4;",
            "mbarrier.pending_count.b64 r, s; cvt.u64.u32 t, r; st.global.u64 [o+8], t;",
            "mbarrier.arrive.b64 s, [g]; mbarrier.arrive.b64 s, [g];",
            "mbarrier.test_wait.parity.b64 p, [g], 1; selp.u64 t, 1, 0, p;",
            "st.global.u64 [o+16], t;",
        ],
        3,
    )
    assert out.tolist() == [3, 5, 1]  # after two phases: parity 0 again


MISUSE = [
    ("mbarrier.arrive.shared.b64 s, [bar];", 719, "not initialised"),
    ("mbarrier.init.shared.b64 [bar], 0;", 719, "1 to 1048575"),
    ("mbarrier.init.shared.b64 [bar], 1048576;", 719, "1 to 1048575"),
    ("mbarrier.init.shared.b64 [bar], 2; mbarrier.arrive.shared.b64 s, [bar], 3;", 719, "more"),
    (
        "mbarrier.init.shared.b64 [bar], 2; mbarrier.arrive.noComplete.shared.b64 s, [bar], 2;",
        719,
        "noComplete",
    ),
    ("mbarrier.init.shared.b64 [b32+4], 1;", 716, "aligned"),
    ("mbarrier.init.shared.b64 [b32+4096], 1;", 700, "no shared memory"),
    ("mbarrier.init.b64 [o], 1;", 719, "shared memory"),
    (
        "mbarrier.init.shared.b64 [bar], 2; mbarrier.expect_tx.shared.b64 [bar], 1048576;",
        719,
        "1048575 bytes",
    ),
    ("mbarrier.init.shared.b32 [bar], 1;", 715, "mbarrier.init.shared.b32"),
    ("mbarrier.arrive.acquire.shared.b64 s, [bar];", 715, "mbarrier.arrive.acquire"),
]


@pytest.mark.parametrize(("text", "error", "words"), MISUSE)
def test_misuse_is_a_fault(text: str, error: int, words: str) -> None:
    with pytest.raises(DeviceFault) as caught:
        one_thread([text], 1)
    assert caught.value.error == error
    assert words in caught.value.text and "kernel 'k'" in caught.value.text


def phases(body: str, blocks: int = 3, threads: int = 128, count: Optional[int] = None) -> None:
    """All threads add to a shared cell, phase by phase; after each wait all see the whole sum."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
    .shared .align 8 .b64 bar; .shared .u32 cell; .reg .b64 o, g, s; .reg .b32 t, r, n, w, q;
    .reg .pred p, leader;
    ld.param.u64 o, [out]; mov.u32 t, %tid.x; mov.u32 r, %ctaid.x;
    mad.lo.u32 r, r, {threads}, t; mul.wide.u32 g, r, 4; add.u64 o, o, g;
    setp.eq.u32 leader, t, 0;
    @leader mbarrier.init.shared.b64 [bar], {count or threads};
    @leader st.shared.u32 [cell], 0; fence.mbarrier_init.release.cluster; bar.sync 0;
    mov.u32 n, 0; mov.u32 w, 0;
    NEXT: red.shared.add.u32 [cell], 1;
    {body}
    ld.volatile.shared.u32 q, [cell]; mad.lo.u32 r, n, {threads}, {threads};
    setp.lt.u32 p, q, r; @p add.u32 w, w, 1;
    add.u32 n, n, 1; setp.lt.u32 p, n, 5; @p bra NEXT;
    st.global.u32 [o], w; ret; }}"""
    out = zeros(blocks * threads, "u4")
    out[:] = 99
    machine().compile(text).launch("k", blocks, threads, out)
    assert not out.any()


def test_a_phase_ends_when_all_have_arrived() -> None:
    phases(
        """mbarrier.arrive.shared.b64 s, [bar];
        AGAIN: mbarrier.try_wait.shared.b64 p, [bar], s; @!p bra AGAIN;"""
    )


def test_spinning_by_test_wait_starves_nobody() -> None:
    phases(
        """mbarrier.arrive.shared.b64 s, [bar]; and.b32 r, n, 1;
        AGAIN: mbarrier.test_wait.parity.shared.b64 p, [bar], r; @!p bra AGAIN;"""
    )


def test_half_of_a_warp_waits_for_the_other() -> None:
    """Lanes that wait in a loop at the lowest place must not keep the others from arriving."""
    phases(
        """and.b32 q, t, 1; setp.eq.u32 p, q, 1; and.b32 r, n, 1; @p bra ODD;
        EVEN: mbarrier.try_wait.parity.shared.b64 p, [bar], r; @!p bra EVEN; bra JOIN;
        ODD: mbarrier.arrive.shared.b64 s, [bar];
        WAIT: mbarrier.try_wait.shared.b64 p, [bar], s, 1000; @!p bra WAIT;
        JOIN: bar.sync 0;""",
        count=64,
    )


def test_arrive_drop_leaves_the_barrier() -> None:
    """Each warp takes part in one phase less than the next one."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{
    .shared .align 8 .b64 bar; .reg .b64 o, g, s; .reg .b32 t, wid, n; .reg .pred p, last;
    ld.param.u64 o, [out]; mov.u32 t, %tid.x; mul.wide.u32 g, t, 4; add.u64 o, o, g;
    setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [bar], 128; bar.sync 0;
    shr.u32 wid, t, 5; mov.u32 n, 0;
    NEXT: setp.eq.u32 last, n, wid;
    @last mbarrier.arrive_drop.release.cta.shared::cta.b64 _, [bar];
    @last bra DONE;
    mbarrier.arrive.shared.b64 s, [bar];
    AGAIN: mbarrier.try_wait.acquire.cta.shared::cta.b64 p, [bar], s; @!p bra AGAIN;
    add.u32 n, n, 1; bra NEXT;
    DONE: st.global.u32 [o], n; ret; }}"""
    out = zeros(128, "u4")
    machine().compile(text).launch("k", 1, 128, out)
    assert out.tolist() == [n // 32 for n in range(128)]


def test_cp_async_arrives() -> None:
    """With .noinc it is one of the expected arrivals, without it makes no difference."""
    for noinc, count in (("", 64), (".noinc", 128)):
        text = f"""{HEAD}.visible .entry k(.param .u64 out, .param .u64 in) {{
        .shared .align 8 .b64 bar; .shared .align 16 .b8 data[1024];
        .reg .b64 o, i, g, s; .reg .b32 t, d, r; .reg .pred p;
        ld.param.u64 o, [out]; ld.param.u64 i, [in]; mov.u32 t, %tid.x;
        mul.wide.u32 g, t, 16; add.u64 i, i, g; mul.wide.u32 g, t, 4; add.u64 o, o, g;
        setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [bar], {count}; bar.sync 0;
        mov.u32 d, data; mad.lo.u32 d, t, 16, d;
        cp.async.cg.shared.global [d], [i], 16;
        cp.async.mbarrier.arrive{noinc}.shared::cta.b64 [bar];
        mbarrier.arrive.shared.b64 s, [bar];
        AGAIN: mbarrier.try_wait.shared.b64 p, [bar], s; @!p bra AGAIN;
        mov.u32 d, data; xor.b32 r, t, 63; mad.lo.u32 d, r, 16, d; ld.shared.u32 r, [d];
        st.global.u32 [o], r; ret; }}"""
        out, data = zeros(64, "u4"), zeros(256, "u4")
        data[:] = numpy.arange(256)
        machine().compile(text).launch("k", 1, 64, out, data)
        assert out.tolist() == [4 * (n ^ 63) for n in range(64)]
