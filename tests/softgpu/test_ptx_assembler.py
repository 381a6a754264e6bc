# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's assembler takes is taken here, or the coverage table says that it is not.

Of random forms beside those of the tables. BITFUSION_TEST_FORMS=20000 looks at so many, of a seed
that BITFUSION_TEST_SEED chooses, and prints what only we take (pytest -s shows it).
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import List, Tuple

import pytest
from assembler import ptxas, taken, verdicts
from form_matrices import matrices, of_the_table
from form_neighbours import neighbours

COUNT = int(os.environ.get("BITFUSION_TEST_FORMS", "0"))
SEED = int(os.environ.get("BITFUSION_TEST_SEED", "7"))
FEW, PART = 1000, 64
# Without what it asks for, which says nothing; and what it takes while it makes no code of it:
# wmma of small integers and of f64 in shapes of others, the operation of bits with integers.
NONSENSE = re.compile(
    r"testp\.f\d\d |wmma\.mma\..*\.(s4\.s4|u4\.u4|f64\.f64)\.|mma\..*[su][48]\.s32\.\w+\.popc "
    r"|mma\..*m16n8k16\..*tf32"
)


def judged(lines: List[str], target: str) -> List[Tuple[str, str]]:
    parts = [lines[at : at + PART] for at in range(0, len(lines), PART)]
    return [one for part in parts for one in zip(part, verdicts(part, target))]


@pytest.mark.skipif(ptxas() is None, reason="nvcc's wheel is not installed")
@pytest.mark.timeout(3600 if COUNT else 300)
@pytest.mark.parametrize("target", ["sm_120", "sm_90", "sm_75"] if COUNT else ["sm_120"])
def test_what_the_assembler_takes_is_taken(target: str, tmp_path: Path) -> None:
    lines = list(itertools.islice(neighbours(SEED), COUNT or FEW))
    lines += itertools.islice(matrices(SEED), COUNT)
    good = taken(lines, tmp_path, target)
    assert len(good) > len(lines) // 20
    missing = [
        f"{line} {why}"
        for line, why in judged([line for line in lines if line in good], target)
        if why and not why.startswith("left out: ") and not NONSENSE.match(line)
    ]
    assert not missing, "\n".join(missing)
    bad = [line for line in lines if line not in good][: COUNT or FEW // 8]
    only_ours = [line for line, why in judged(bad, target) if not why]
    print(f"{target}: of {len(bad)} that it refuses, ours are {len(only_ours)}:")
    print(*only_ours, sep="\n")
    assert len(only_ours) <= len(bad) // 10  # on sm_75 all that came later


@pytest.mark.skipif(ptxas() is None, reason="nvcc's wheel is not installed")
def test_matrices_of_every_form_are_the_assembler_s(tmp_path: Path) -> None:
    lines = of_the_table()
    assert len(lines) > 250
    assert set(lines) - taken(lines, tmp_path) == set()
    assert [(line, why) for line, why in judged(lines, "sm_120") if why] == []
