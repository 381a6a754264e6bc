# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's assembler takes, and what we take, of single instructions.

ptxas comes with the nvcc wheel that the tests compile with. It says of every line of a text
what is wrong with it, so that one call judges thousands of instructions; a last line that is
wrong keeps it from making code of the others.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import List, Optional, Sequence, Set

from bitfusion.softgpu.engine.encode import ModuleEncoder
from bitfusion.softgpu.engine.function import FunctionEncoder
from bitfusion.softgpu.engine.lower import lower
from bitfusion.softgpu.engine.operands import Checker
from bitfusion.softgpu.engine.syntax import refusal
from bitfusion.softgpu.engine.table import NUMBERS
from bitfusion.softgpu.ptx.frontend import read_image
from bitfusion.softgpu.ptx.ir import Instruction, PtxError

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("lib/python3*/site-packages", "site")
_SPACES = ("1d", "2d", "3d", "a1d", "a2d", "cube", "acube")
_NAMES = [
    *(f"{kind}{name}" for kind in "tsuv" for name in _SPACES),
    *("mt1", "mt2", "mt3", "mt4", "mt5", "mc3", "mc4", "mc5", "mg2"),
]
# Registers as form_samples.py has them.
_HEAD = f""".version 9.0
.target TARGET
.address_size 64
.visible .entry k(.param .align 16 .b8 given[256], .param .b64 buffer) {{
.reg .b8 b<8>; .reg .b16 h<16>; .reg .b32 r<32>; .reg .b64 d<32>; .reg .b128 q<8>;
.reg .pred p<8>; .reg .b64 {", ".join(_NAMES)};
.shared .align 128 .b8 sm[4096]; .local .align 16 .b8 lo[256]; .param .align 16 .b8 passed[256];
"""
_WRONG = re.compile(r"line (\d+); (?:error|fatal) ")


def ptxas() -> Optional[Path]:
    for place in PLACES:
        for found in (ROOT / "build" / "venv").glob(f"{place}/nvidia/cu13/bin/ptxas"):
            return found
    return None


def text_of(lines: Sequence[str], target: str, tail: str = "") -> str:
    body = "\n".join(f"{{ {line} }}" for line in lines)
    return f"{_HEAD.replace('TARGET', target)}{body}\n{tail}ret;\n}}\n"


def taken(lines: Sequence[str], folder: Path, target: str = "sm_120") -> Set[str]:
    """Those of the lines that ptxas has nothing against."""
    first = _HEAD.count("\n") + 1
    path, program = folder / "forms.ptx", ptxas()
    assert program is not None
    path.write_text(text_of(lines, target, "wrong;\n"), encoding="ascii")
    done = subprocess.run(
        [str(program), f"-arch={target}", "-o", "/dev/null", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = {int(number) - first for number in _WRONG.findall(done.stderr)}
    if done.returncode > 0 and len(lines) in wrong:
        return {line for n, line in enumerate(lines) if n not in wrong}
    if len(lines) == 1:  # it gives up at some lines, and is killed by others
        return set()
    half = len(lines) // 2
    return taken(lines[:half], folder, target) | taken(lines[half:], folder, target)


def verdicts(lines: Sequence[str], target: str = "sm_120") -> List[str]:
    """Why we do not take each of the lines: "", "refused: …", "left out: …", "unknown"."""
    try:
        module = read_image(text_of(lines, target).encode())
    except PtxError as error:
        if len(lines) == 1:
            return [f"refused: {error}"]
        half = len(lines) // 2
        return verdicts(lines[:half], target) + verdicts(lines[half:], target)
    function, found = module.functions["k"], [""] * len(lines)
    encoder, checker = FunctionEncoder(ModuleEncoder(module), function), Checker()
    for instruction in list(function.body or [])[:-1]:
        line = instruction.line - _HEAD.count("\n") - 1
        found[line] = found[line] or _verdict(encoder, checker, instruction)
    return found


def _verdict(encoder: FunctionEncoder, checker: Checker, instruction: Instruction) -> str:
    before = len(encoder.records)
    encoder.function.body = [instruction]
    try:
        checker.check(encoder.function)
        lower(encoder, instruction)
    except PtxError as error:
        return f"refused: {error}"
    if all(record[0] != NUMBERS["unknown"] for record in encoder.records[before:]):
        return ""
    why = refusal(instruction.opcode, instruction.modifiers)
    return f"left out: {why}" if why else "unknown"
