# SPDX-License-Identifier: Apache-2.0
"""Bulk copies and reductions, in every direction, against Python."""

from __future__ import annotations

import random
import struct
from typing import Callable, Dict, List, Tuple

import numpy
import pytest
import softfloat
from forms import HEAD, edges, signed
from machine import DeviceFault, array, machine, zeros

WAIT = "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 0; @!p bra AGAIN;"


def entry(body: str) -> str:
    """Thread 0 copies; 1024 bytes of data lie in ``s``, ``i`` and ``o`` are in global memory."""
    return f"""{HEAD}.visible .entry k(.param .u64 out, .param .u64 in) {{
    .reg .b64 o, i, x, y, pol; .reg .b32 t, b, n, r, a, w; .reg .b16 h; .reg .pred p, c;
    .shared .align 128 .b8 s[1024]; .shared .align 8 .b64 bar;
    ld.param.u64 o, [out]; ld.param.u64 i, [in]; mov.u32 t, %tid.x; mov.u32 b, %cluster_ctarank;
    mov.u32 n, %cluster_nctarank; setp.eq.u32 c, t, 0; mov.u64 pol, 0;
    @c mbarrier.init.shared.b64 [bar], 1; fence.proxy.async; bar.sync 0;
    {body} ret; }}"""


def run(
    body: str, data: numpy.ndarray, out: numpy.ndarray, blocks: int = 1, cluster: int = 1
) -> numpy.ndarray:
    program = machine().compile(entry(body))
    program.launch("k", blocks, 32, out, data, cluster=(cluster, 1, 1))
    return out


DATA = numpy.frombuffer(random.Random(5).randbytes(1024), numpy.uint8)
STORE = """cvt.u64.u32 x, t; mul.lo.u64 x, x, 32; add.u64 y, o, x; cvt.u32.u64 r, x;
    mov.u32 a, s; add.u32 a, a, r; .reg .b32 q<8>;
    ld.shared.v4.u32 {q0, q1, q2, q3}, [a]; ld.shared.v4.u32 {q4, q5, q6, q7}, [a+16];
    st.global.v4.u32 [y], {q0, q1, q2, q3}; st.global.v4.u32 [y+16], {q4, q5, q6, q7};"""
ZERO = """mul.lo.u32 r, t, 32; mov.u32 a, s; add.u32 a, a, r; mov.u64 x, 0;
    st.shared.v2.u64 [a], {x, x}; st.shared.v2.u64 [a+16], {x, x}; bar.sync 0;"""


@pytest.mark.parametrize("to", ["shared::cluster", "shared::cta"])
@pytest.mark.parametrize("hint", ["", ".L2::cache_hint"])
@pytest.mark.parametrize("size", [0, 16, 48, 1024])
def test_from_global_to_shared(to: str, hint: str, size: int) -> None:
    policy = ", pol" if hint else ""
    out = run(
        f"""{ZERO} mov.u32 w, {size};
        @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], {size};
        @c cp.async.bulk.{to}.global.mbarrier::complete_tx::bytes{hint}
            [s], [i], w, [bar]{policy}; {WAIT} {STORE}""",
        array(DATA, "u1"),
        zeros(1024, "u1"),
    )
    assert bytes(out) == bytes(DATA[:size]).ljust(1024, b"\0")


@pytest.mark.parametrize("hint", ["", ".L2::cache_hint"])
@pytest.mark.parametrize("mask", [None, 0xFFFF, 0x8001, 0x0F30])
def test_from_shared_to_global(hint: str, mask: int) -> None:
    policy, dot = (", pol" if hint else ""), ("" if mask is None else ".cp_mask")
    given = "" if mask is None else ", h"
    out = run(
        f"""mul.lo.u32 r, t, 32; mov.u32 a, s; add.u32 a, a, r; cvt.u64.u32 x, r; add.u64 x, i, x;
        .reg .b64 q<4>; ld.global.v4.b64 {{q0, q1, q2, q3}}, [x];
        st.shared.v2.b64 [a], {{q0, q1}}; st.shared.v2.b64 [a+16], {{q2, q3}};
        fence.proxy.async.shared::cta; bar.sync 0; mov.b16 h, {mask or 0};
        @c cp.async.bulk.global.shared::cta.bulk_group{hint}{dot} [o], [s], 512{policy}{given};
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;
        cp.async.bulk.wait_group 0;""",
        array(DATA, "u1"),
        zeros(1024, "u1"),
    )
    kept = 0xFFFF if mask is None else mask
    wanted = [int(v) if k < 512 and kept >> k % 16 & 1 else 0 for k, v in enumerate(DATA)]
    assert out.tolist() == wanted


def test_to_the_next_block() -> None:
    out = run(
        f"""mul.lo.u32 r, t, 32; mov.u32 a, s; add.u32 a, a, r; mad.lo.u32 r, b, 100, t;
        st.shared.u32 [a], r; st.shared.u32 [a+16], r; @c mbarrier.arrive.expect_tx.shared.b64 _,
        [bar], 512; barrier.cluster.arrive; barrier.cluster.wait;
        add.u32 r, b, 1; rem.u32 r, r, n; mov.u32 a, s; add.u32 w, a, 512;
        mapa.shared::cluster.u32 w, w, r; mov.u32 q9, bar; mapa.shared::cluster.u32 q9, q9, r;
        @c cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [w], [a], 512,
            [q9]; {WAIT}
        mul.lo.u32 r, t, 32; add.u32 a, a, r; mov.u32 r, 0; setp.lt.u32 p, t, 16;
        mov.u32 q8, %ctaid.x; mad.lo.u32 q8, q8, 32, t; mul.wide.u32 x, q8, 4; add.u64 o, o, x;
        @p ld.shared.u32 r, [a+512]; st.global.u32 [o], r;
        barrier.cluster.arrive; barrier.cluster.wait;""".replace(
            "mul.lo", ".reg .b32 q8, q9; mul.lo", 1
        ),
        array(DATA, "u1"),
        zeros(4 * 32, "u4"),
        4,
        4,
    )
    line = [[(b + 3) % 4 * 100 + t if t < 16 else 0 for t in range(32)] for b in range(4)]
    assert out.reshape(4, 32).tolist() == line


@pytest.mark.parametrize("mask", [0b1111, 0b0101, 0b0010])
def test_multicast(mask: int) -> None:
    """One block loads for those of the mask, each of whose barriers counts the bytes."""
    out = run(
        f"""{ZERO} shr.u32 r, {mask}, b; and.b32 r, r, 1; setp.eq.u32 p, r, 1;
        @c mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 0;
        selp.u32 r, 512, 0, p; @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], r;
        barrier.cluster.arrive; barrier.cluster.wait; setp.eq.and.u32 p, b, 2, c;
        mov.b16 h, {mask};
        @p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
            [s+256], [i], 512, [bar], h; {WAIT}
        mov.u32 r, %ctaid.x; mul.wide.u32 x, r, 1024; add.u64 o, o, x; {STORE}
        barrier.cluster.arrive; barrier.cluster.wait;""",
        array(DATA, "u1"),
        zeros(4 * 1024, "u1"),
        4,
        4,
    ).reshape(4, 1024)
    for block in range(4):
        loaded = bytes(DATA[:512]) if mask >> block & 1 else bytes(512)
        assert bytes(out[block]) == bytes(256) + loaded + bytes(256)


# ---------------------------------------------------------------- reductions

F16, BF16, F32 = softfloat.FORMATS["f16"], softfloat.FORMATS["bf16"], softfloat.FORMATS["f32"]
Reference = Callable[[int, int], int]


def _integer(verb: str, size: int, is_signed: bool) -> Reference:
    def value(x: int) -> int:
        return signed(x, size) if is_signed else x

    return {
        "add": lambda a, b: a + b,
        "min": lambda a, b: a if value(a) <= value(b) else b,
        "max": lambda a, b: a if value(a) >= value(b) else b,
        "inc": lambda a, b: 0 if a >= b else a + 1,
        "dec": lambda a, b: b if a == 0 or a > b else a - 1,
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
    }[verb]


INTEGERS = [
    ("add", "u32 s32 u64"), ("min", "u32 s32 u64 s64"), ("max", "u32 s32 u64 s64"),
    ("inc", "u32"), ("dec", "u32"), ("and", "b32 b64"), ("or", "b32 b64"), ("xor", "b32 b64"),
]  # fmt: skip
TO_SHARED = {
    "add": "u32 s32 u64", "min": "u32 s32", "max": "u32 s32", "inc": "u32", "dec": "u32",
    "and": "b32", "or": "b32", "xor": "b32",
}  # fmt: skip


def reduce(verb: str, kind: str, pairs: List[Tuple[int, int]], size: int, to: str) -> List[int]:
    """Reduce the second values into the first, in global memory or a block's shared memory."""
    dtype = f"u{size}"
    half = 512 // size
    pairs = pairs[:half]
    first = [a for a, _ in pairs] + [0] * (half - len(pairs))
    second = [b for _, b in pairs] + [0] * (half - len(pairs))
    data = array(numpy.array(first + second, dtype), dtype).view("u1")
    noftz = ".noftz" if kind in ("f16", "bf16") and verb == "add" else ""
    load = f"""@c mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024;
        @c cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
            [s], [i], 1024, [bar]; {WAIT}"""
    if to == "global":
        body = f"""{load} @c cp.async.bulk.global.shared::cta.bulk_group [o], [s], 512;
        @c cp.reduce.async.bulk.global.shared::cta.bulk_group.{verb}{noftz}.{kind}
            [o], [s+512], 512; cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"""
    else:
        body = f"""{load} @c mbarrier.arrive.expect_tx.shared.b64 _, [bar], 512;
        @c cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
            .{verb}.{kind} [s], [s+512], 512, [bar];
        MORE: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 1; @!p bra MORE;
        {STORE}""".replace("bytes\n            .", "bytes.")
    out = run(body, data, zeros(1024, "u1"))
    return [int(v) for v in out.view(dtype)[: len(pairs)]]


@pytest.mark.parametrize(("verb", "kinds"), INTEGERS)
def test_integer_reductions(verb: str, kinds: str) -> None:
    for kind in kinds.split():
        bits = int(kind[1:])
        random_ = random.Random(kind + verb)
        values = edges(kind)
        pairs = [(random_.choice(values), random_.choice(values)) for _ in range(128)]
        wanted = [_integer(verb, bits, kind[0] == "s")(a, b) % (1 << bits) for a, b in pairs]
        count = 512 * 8 // bits
        assert reduce(verb, kind, pairs, bits // 8, "global") == wanted[:count], kind
        if kind in TO_SHARED[verb].split():
            assert reduce(verb, kind, pairs, bits // 8, "shared") == wanted[:count], kind


def _finite(kind: str, count: int) -> List[Tuple[int, int]]:
    """Pairs of finite numbers that are not subnormal, nor are their sums."""
    random_ = random.Random(kind)
    code = {"f16": "<e", "f32": "<f", "f64": "<d"}.get(kind, "<f")
    shift = 16 if kind == "bf16" else 0
    size = struct.calcsize(code)

    def one() -> int:
        number = random_.choice([-1, 1]) * random_.randrange(1, 2048) / 2 ** random_.randrange(9)
        return int.from_bytes(struct.pack(code, number), "little") >> shift

    assert size
    return [(one(), one()) for _ in range(count)]


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_float_reductions(kind: str) -> None:
    size = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}[kind]
    pairs = _finite(kind, 512 // size)
    form = softfloat.FORMATS[kind]
    exact = [form.value(a) + form.value(b) for a, b in pairs]
    wanted = [form.round(x) for x in exact]
    got = reduce("add", kind, pairs, size, "global")
    assert [form.value(g) for g in got] == [form.value(x) for x in wanted]
    if size == 2:
        for verb, choose in (("min", min), ("max", max)):
            got = reduce(verb, kind, pairs, size, "global")
            assert [form.value(g) for g in got] == [
                choose(form.value(a), form.value(b)) for a, b in pairs
            ]


def test_f32_additions_flush_subnormals() -> None:
    pairs = [(1, 1), (0x80000001, 0), (0x00800000, 0x80000001), (0x3F800000, 1)]
    got = reduce("add", "f32", pairs, 4, "global")
    assert got == [0, 0, 0x00800000, 0x3F800000]


# ---------------------------------------------------------------- the rest

WRONG: Dict[str, Tuple[str, int]] = {
    "a size that is no multiple": ("[s], [i], 24, [bar]", 716),
    "an address that is not aligned": ("[s+8], [i], 16, [bar]", 716),
    "a source that is not aligned": ("[s], [i+4], 16, [bar]", 716),
    "no such source": ("[s], [i+100000000], 16, [bar]", 700),
    "outside of shared memory": ("[s+1048576], [i], 16, [bar]", 700),
    "no barrier there": ("[s], [i], 16, [s+4]", 700),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_faults(what: str) -> None:
    operands, error = WRONG[what]
    with pytest.raises(DeviceFault) as caught:
        run(
            f"@c cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes {operands};",
            array(DATA, "u1"),
            zeros(16, "u1"),
        )
    assert caught.value.error == error, caught.value.text


@pytest.mark.parametrize(
    "text",
    [
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.s64 [o], [s], 16",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16 [o], [s], 16",
        "cp.async.bulk.shared::cluster.global.bulk_group [s], [i], 16",
        "multimem.red.relaxed.sys.global.add.b32 [o], t",
    ],
)
def test_unknown_forms_fault_when_they_run(text: str) -> None:
    with pytest.raises(DeviceFault) as caught:
        run(f"@c {text};", array(DATA, "u1"), zeros(16, "u1"))
    assert caught.value.error == 715
    assert text.split()[0] in caught.value.text and "kernel 'k'" in caught.value.text
    run(f"setp.ne.u32 p, t, t; @p {text};", array(DATA, "u1"), zeros(16, "u1"))


def test_zeros_and_prefetches() -> None:
    out = run(
        f"""{ZERO.replace("mov.u64 x, 0", "mov.u64 x, -1")}
        cp.async.bulk.prefetch.L2.global [i], 512;
        cp.async.bulk.prefetch.L2.global.L2::cache_hint [i], 512, pol;
        mov.u64 x, s; cvta.shared.u64 x, x; @c st.bulk.weak [x+16], 40, 0;
        @c st.bulk.weak.shared::cta [s+512], 512, 0; bar.sync 0; {STORE}""",
        array(DATA, "u1"),
        zeros(1024, "u1"),
    )
    assert bytes(out) == b"\xff" * 16 + bytes(40) + b"\xff" * 456 + bytes(512)


def test_a_pipeline_of_producer_and_consumers() -> None:
    """A warp loads tiles into a ring of buffers while others add them up; no other barriers."""
    stages, tiles, floats = 3, 17, 256
    text = f"""{HEAD}.visible .entry k(.param .u64 out, .param .u64 in) {{
    .shared .align 128 .b8 ring[{stages * floats * 4}]; .shared .align 8 .b64 full[{stages}];
    .shared .align 8 .b64 empty[{stages}]; .reg .b64 o, i, x; .reg .b32 t, w, n, s, ph, a, f, e, l;
    .reg .f32 v, sum; .reg .pred p, q, lane0;
    ld.param.u64 o, [out]; ld.param.u64 i, [in]; mov.u32 t, %tid.x; shr.u32 w, t, 5;
    mov.u32 a, %ctaid.x; mul.wide.u32 x, a, {tiles * floats * 4}; add.u64 i, i, x;
    setp.ge.u32 p, t, {stages}; mov.u32 f, full; mov.u32 e, empty; mad.lo.u32 l, t, 8, f;
    @!p mbarrier.init.shared::cta.b64 [l], 1; mad.lo.u32 l, t, 8, e;
    @!p mbarrier.init.shared::cta.b64 [l], 4; fence.mbarrier_init.release.cluster; bar.sync 0;
    mov.u32 n, 0; mov.u32 s, 0; mov.u32 ph, 0; mov.f32 sum, 0f00000000;
    elect.sync _|lane0, -1; setp.eq.u32 q, w, 4; @!q bra CONSUME; @!lane0 ret;
    PRODUCE: xor.b32 a, ph, 1; mad.lo.u32 l, s, 8, e;
    EMPTY: mbarrier.try_wait.parity.shared::cta.b64 p, [l], a; @!p bra EMPTY;
    mad.lo.u32 l, s, 8, f; mbarrier.arrive.expect_tx.shared::cta.b64 _, [l], {floats * 4};
    mov.u32 a, ring; mad.lo.u32 a, s, {floats * 4}, a;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [i], {floats * 4}, [l];
    add.u64 i, i, {floats * 4}; add.u32 s, s, 1; setp.eq.u32 p, s, {stages};
    @p xor.b32 ph, ph, 1; @p mov.u32 s, 0; add.u32 n, n, 1; setp.lt.u32 p, n, {tiles};
    @p bra PRODUCE; ret;
    CONSUME: mad.lo.u32 l, s, 8, f;
    FULL: mbarrier.try_wait.parity.shared::cta.b64 p, [l], ph; @!p bra FULL;
    mov.u32 a, ring; mad.lo.u32 a, s, {floats * 4}, a; mad.lo.u32 a, t, 4, a;
    ld.shared.f32 v, [a]; add.f32 sum, sum, v; ld.shared.f32 v, [a+512]; add.f32 sum, sum, v;
    bar.warp.sync -1; mad.lo.u32 l, s, 8, e;
    @lane0 mbarrier.arrive.shared::cta.b64 _, [l];
    add.u32 s, s, 1; setp.eq.u32 p, s, {stages};
    @p xor.b32 ph, ph, 1; @p mov.u32 s, 0; add.u32 n, n, 1; setp.lt.u32 p, n, {tiles};
    @p bra CONSUME; mov.u32 a, %ctaid.x; mad.lo.u32 a, a, 128, t; mul.wide.u32 x, a, 4;
    add.u64 o, o, x; st.global.f32 [o], sum; ret; }}"""
    blocks = 5
    data = numpy.arange(blocks * tiles * floats, dtype="f4").reshape(blocks, tiles, 2, 128) % 1000
    out = zeros(blocks * 128, "f4")
    machine().compile(text).launch("k", blocks, 160, out, array(data, "f4"))
    assert out.reshape(blocks, 128).tolist() == data.sum(axis=(1, 2)).tolist()
