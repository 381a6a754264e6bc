# SPDX-License-Identifier: Apache-2.0
"""The instructions that CUDA's own C++ headers emit are known, but for those of single targets.

The headers (``cuda::ptx``) come with nvcc's wheels; each of their asm statements says in a
preprocessor condition which GPUs have it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from bitfusion.softgpu.engine.encode import ModuleEncoder
from bitfusion.softgpu.engine.function import FunctionEncoder
from bitfusion.softgpu.engine.lower import lower
from bitfusion.softgpu.engine.table import NUMBERS
from bitfusion.softgpu.ptx.frontend import read_image

ROOT = Path(__file__).resolve().parents[2]
PLACE = "site-packages/nvidia/cu13/include/cccl/cuda/__ptx/instructions/generated"
FOLDERS = [*(ROOT / "build/venv").glob(f"lib/python3*/{PLACE}"), ROOT / "build/venv/site" / PLACE]
# condition, then the statement
STATEMENT = re.compile(r"#  (?:el)?if ([^\n]*)\n(?:(?!#  )[^\n]*\n)*?\s*asm\s*(?:volatile)?\s*\(")
REGISTERS = {"r": "b32", "l": "b64", "h": "b16", "f": "f32", "d": "f64"}
# What the headers have for every GPU of its generation, and we do not.
MISSING = re.compile(r"cp\.async\.bulk[\w.:]*\.ignore_oob|tcgen05\.")


def statements(text: str) -> Iterator[Tuple[str, str]]:
    """Give conditions and what is in the parentheses."""
    for found in STATEMENT.finditer(text):
        depth, at, quoted = 1, found.end(), False
        while depth:
            letter = text[at]
            if letter == '"' and text[at - 1] != "\\":
                quoted = not quoted
            elif not quoted:
                depth += (letter == "(") - (letter == ")")
            at += 1
        yield found.group(1), text[found.end() : at - 1]


def sections(statement: str) -> List[str]:
    """Split at the colons that are not in strings or parentheses."""
    parts, depth, quoted = [""], 0, False
    for k, letter in enumerate(statement):
        if letter == '"' and statement[k - 1] != "\\":
            quoted = not quoted
        if not quoted:
            depth += (letter in "([{") - (letter in ")]}")
            if letter == ":" and depth == 0 and "::" not in statement[max(k - 1, 0) : k + 2]:
                parts.append("")
                continue
        parts[-1] += letter
    return parts


def kernel(statement: str) -> str:
    code, *rest = sections(statement)
    text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', code))
    text = text.replace("\\n", "\n").replace("\\t", " ").replace('\\"', '"').replace("%%", "\0")
    constraints = [c for part in rest[:2] for c in re.findall(r'"([=+]?\w)"\s*\(', part)]
    lines = []
    for n, constraint in enumerate(constraints):
        if constraint[-1] == "n":
            number = "128" if "cp_fenceproxy" in text else "0"
            text = re.sub(rf"%{n}(?!\d)", number, text)
        else:
            lines.append(f".reg .{REGISTERS[constraint[-1]]} a{n};")
            text = re.sub(rf"%{n}(?!\d)", f"a{n}", text)
    return "\n".join(lines) + "{\n" + text.replace("\0", "%") + "\n}"


def general(condition: str) -> bool:
    return "__CUDA_ARCH__ >=" in condition and "FEAT" not in condition


def forms() -> List[Tuple[str, str]]:
    """Name of the header and a kernel's body, each body once."""
    found = {}
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.h")):
            for condition, statement in statements(path.read_text()):
                if general(condition):
                    found[kernel(statement)] = path.stem
    return [(name, body) for body, name in found.items()]


def unknown(body: str) -> List[str]:
    """Instructions of the body that would fault."""
    head = ".version 9.0\n.target sm_120\n.address_size 64\n"
    module = read_image(f"{head}.visible .entry k() {{ {body} ret; }}".encode())
    function = module.functions["k"]
    encoder = FunctionEncoder(ModuleEncoder(module), function)
    wrong = []
    for instruction in function.body or []:
        before = len(encoder.records)
        lower(encoder, instruction)
        if any(record[0] == NUMBERS["unknown"] for record in encoder.records[before:]):
            wrong.append(".".join((instruction.opcode, *instruction.modifiers)))
    return wrong


def test_every_general_form_is_known() -> None:
    if not any(folder.is_dir() for folder in FOLDERS):
        pytest.skip("nvcc's headers are not installed")
    bodies = forms()
    assert len(bodies) > 400
    wrong = sorted({f"{name}: {text}" for name, body in bodies for text in unknown(body)})
    wrong = [line for line in wrong if not MISSING.match(line.split(": ", 1)[1])]
    assert not wrong, f"{len(wrong)} forms are not known:\n" + "\n".join(wrong)
