# SPDX-License-Identifier: Apache-2.0
"""The pool: arithmetic, best fit, and what must hold after any sequence of claims and releases."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfusion.inventory import Gpu
from bitfusion.quantity import MIB, parse_fraction, parse_size, part_of
from bitfusion.server.pool import InUse, NotEnough, Pool, Request, Slice


def pool_of(*mib: int) -> Pool:
    return Pool([Gpu(f"gpu {i}", size * MIB) for i, size in enumerate(mib)])


@pytest.mark.parametrize(
    ("memory", "fraction", "part"),
    [
        (16160, "0.5", 8080),
        (32510, "0.8", 26008),
        (100, "0.29", 29),
        (7, "0.5", 3),
        (1 << 40, "1", 1 << 40),
        (1 << 40, "1.000", 1 << 40),
        (16160, ".37", 5979),
        (100, "0.500000", 50),
    ],
)
def test_fraction_is_exact_and_floored(memory: int, fraction: str, part: int) -> None:
    assert part_of(memory, fraction) == part


@pytest.mark.parametrize(
    "text",
    ["0", "0.0", "1.5", "-1", "", ".", "1e-1", "half", "nan", "1.0000001", "٣", "0x1", " 1"],
)
def test_bad_fractions(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fraction(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("512M", 512 << 20), ("512MiB", 512 << 20), ("1k", 1024), ("77", 77)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-4G", "4.5G", "GG", "4GM", "9" * 30])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_best_fit_keeps_whole_gpus_whole() -> None:
    pool = pool_of(1000, 1000, 1000)
    assert pool.allocate("a", Request(1, "0.5")) == (Slice(0, 500 * MIB),)
    assert pool.allocate("b", Request(1, memory=300 * MIB)) == (Slice(0, 300 * MIB),)
    assert pool.allocate("c", Request(2)) == (Slice(1, 1000 * MIB), Slice(2, 1000 * MIB))
    with pytest.raises(InUse):
        pool.allocate("d", Request(1, memory=201 * MIB))
    pool.allocate("d", Request(1, memory=200 * MIB))


def test_more_than_there_is_differs_from_in_use() -> None:
    pool = pool_of(1000, 500)
    with pytest.raises(NotEnough, match="there are 2"):
        pool.allocate("a", Request(3, "0.1"))
    with pytest.raises(NotEnough, match="1000 MiB"):
        pool.allocate("a", Request(2, memory=600 * MIB))
    pool.allocate("a", Request(1))
    with pytest.raises(InUse):
        pool.allocate("b", Request(2))
    assert set(pool.sessions) == {"a"}


def test_what_is_in_use_is_told_in_words() -> None:
    pool = pool_of(1000)
    pool.allocate("a", Request(1, "0.5"))
    for request, why in (
        (Request(1), "^no GPU is all free now$"),
        (Request(1, "0.6"), "^no GPU is 0.6 free now$"),
        (Request(1, memory=600 * MIB), "^no GPU has 600 MiB free now$"),
    ):
        with pytest.raises(InUse, match=why):
            pool.allocate("b", request)
    pool = pool_of(1000, 1000, 1000)
    pool.allocate("a", Request(2))
    with pytest.raises(InUse, match="^only 1 of 3 GPUs is all free now$"):
        pool.allocate("b", Request(2))


STEP = st.one_of(
    st.tuples(st.just("fraction"), st.integers(1, 5), st.integers(1, 1000)),
    st.tuples(st.just("memory"), st.integers(1, 5), st.integers(1, 1200 * MIB)),
    st.tuples(st.just("release"), st.integers(0, 30), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 1200), min_size=1, max_size=5), st.lists(STEP, max_size=60))
def test_never_over_committed_and_nothing_leaks(
    sizes: list[int], steps: list[tuple[str, int, int]]
) -> None:
    pool = pool_of(*sizes)
    held: dict[str, tuple[Slice, ...]] = {}
    for number, (kind, count, amount) in enumerate(steps):
        if kind == "release":
            name = sorted(held)[count % len(held)] if held else "nobody"
            pool.release(name)
            held.pop(name, None)
        else:
            fraction = f"{amount / 1000:.3f}" if kind == "fraction" else "1"
            request = Request(count, fraction, amount if kind == "memory" else 0)
            try:
                held[f"s{number:03}"] = pool.allocate(f"s{number:03}", request)
            except (NotEnough, InUse):
                pass
        check(pool, held)
    for name in list(held):
        pool.release(name)
    assert [pool.free(i) for i in range(len(sizes))] == [size * MIB for size in sizes]


def check(pool: Pool, held: dict[str, tuple[Slice, ...]]) -> None:
    assert dict(pool.sessions) == held
    for index, gpu in enumerate(pool.gpus):
        used = sum(part.memory for parts in held.values() for part in parts if part.gpu == index)
        assert pool.used(index) == used <= gpu.memory
    for parts in held.values():
        assert len({part.gpu for part in parts}) == len(parts)
        assert all(part.memory > 0 for part in parts)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 1000)
)
def test_a_free_pool_gives_whatever_it_has(sizes: list[int], count: int, mib: int) -> None:
    enough = sum(size >= mib for size in sizes) >= count
    pool = pool_of(*sizes)
    if enough:
        assert len(pool.allocate("a", Request(count, memory=mib * MIB))) == count
    else:
        with pytest.raises(NotEnough):
            pool.allocate("a", Request(count, memory=mib * MIB))
