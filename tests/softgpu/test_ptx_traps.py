# SPDX-License-Identifier: Apache-2.0
"""What old or careless code relies on, and no other test asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Iterable

import pytest
from forms import HEAD
from machine import DeviceFault, machine, zeros

HERE = Path(__file__).resolve().parent


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


def test_the_last_bytes_of_the_largest_parameters() -> None:
    """32,764 bytes are the most that a kernel takes."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out, .param .align 4 .b8 s[32756]) {{
    .reg .b64 o; .reg .b32 a, b; ld.param.u64 o, [out]; ld.param.u32 a, [s];
    ld.param.u32 b, [s+32752]; st.global.v2.u32 [o], {{a, b}}; ret; }}"""
    out = zeros(2, "u4")
    block = b"\x01\x02\x03\x04" + bytes(32748) + b"\xfc\xfd\xfe\xff"
    machine().compile(text).launch("k", 1, 1, out, block)
    assert out.tolist() == [0x04030201, 0xFFFEFDFC]


def test_the_system_s_shared_memory_is_behind_the_kernel_s() -> None:
    """The kernel's own begins at 0; libraries find 512 bytes from offset_1 to the end."""
    names = ("begin", "0", "1", "end", "cap")
    body = "".join(
        f"mov.u32 a, %reserved_smem_offset_{name}; st.global.u32 [o+{4 * k}], a;"
        for k, name in enumerate(names)
    )
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{ .reg .b64 o; .shared .b8 s[64];
    .reg .b32 a, b, c, d; ld.param.u64 o, [out]; {body}
    mov.u32 a, s; mov.u32 b, %total_smem_size; mov.u32 c, %aggr_smem_size;
    mov.u32 d, %dynamic_smem_size; st.global.u32 [o+20], a; st.global.u32 [o+24], b;
    st.global.u32 [o+28], c; st.global.u32 [o+32], d; ret; }}"""
    out = zeros(9, "u4")
    machine().compile(text).launch("k", 1, 1, out, shared=48)
    assert out.tolist() == [112, 112, 624, 1136, 1024, 0, 112, 1136, 48]


def test_blocks_count_in_the_system_s_shared_memory() -> None:
    """As groups of cooperative groups that are larger than a warp do. Each finds it empty."""
    text = f"""{HEAD}.visible .entry k(.param .u64 out) {{ .reg .b64 o, g; .reg .b32 a, t, b;
    ld.param.u64 o, [out]; mov.u32 a, %reserved_smem_offset_1; cvt.u64.u32 g, a;
    cvta.shared.u64 g, g; mov.u32 t, %tid.x; red.add.release.cta.u32 [g+508], t; bar.sync 0;
    ld.shared.u32 t, [a+508]; mov.u32 b, %ctaid.x; mad.wide.u32 o, b, 4, o;
    st.global.u32 [o], t; ret; }}"""
    out = zeros(40, "u4")
    machine().compile(text).launch("k", 40, 96, out)
    assert out.tolist() == [95 * 96 // 2] * 40
    beyond = text.replace("[a+508]", "[a+512]")
    with pytest.raises(DeviceFault):
        machine().compile(beyond).launch("k", 1, 96, out)


def table() -> list[tuple[str, str]]:
    """Numbers and tests of the rows in the documentation."""
    text = (
        (HERE.parents[1] / "docs/softgpu-engine.md").read_text().partition("## What goes wrong")[2]
    )
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [(one[0], one[2]) for one in cells]


def test_the_table_has_all_traps_by_number() -> None:
    numbers = [number for number, _ in table() if number]
    assert numbers == [str(n) for n in range(1, 34)]


def test_the_tests_of_the_traps_are_there_and_are_collected(
    request: pytest.FixtureRequest,
) -> None:
    named: dict[str, set[str]] = {}
    for number, tests in table():
        files = re.findall(r"`(test_\w+\.py)`(?: \(([^)]*)\))?", tests)
        assert files, number
        for file, names in files:
            named.setdefault(file, set()).update(re.findall(r"test_\w+", names))
    wanted = {(file, name) for file, names in named.items() for name in names or [""]}
    found = collected(item.nodeid for item in request.session.items)
    missing = sorted({file for file, _ in wanted - found})
    if missing:  # where only some tests run, a pytest of its own has to say it
        command = [sys.executable, "-m", "pytest", "--collect-only", *missing]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        found |= collected(done.stdout.splitlines())
    assert wanted <= found, sorted(wanted - found)


def collected(nodes: Iterable[str]) -> set[tuple[str, str]]:
    """File and test of each node, and the file alone with an empty name."""
    matches = [re.search(r"(test_\w+\.py)::(test_\w+)", node) for node in nodes]
    pairs = {(found[1], found[2]) for found in matches if found}
    return pairs | {(file, "") for file, _ in pairs}
