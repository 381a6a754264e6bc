# SPDX-License-Identifier: Apache-2.0
"""Spec -> docs/coverage.md. Pure."""

from __future__ import annotations

from collections import Counter

from .emit_header import HEADER_LINE
from .spec import CLASSES, Spec

_MEANING = {
    "local": "answered in the client, nothing is sent",
    "oneway": "sent, not waited for; an error comes with the next call that waits",
    "sync": "sent and waited for",
    "custom": "written by hand, with operations or rows underneath",
    "absent": "`cuGetProcAddress` gives NULL and the export answers `CUDA_ERROR_NOT_SUPPORTED`;"
    " where there is another way, it is found, answers so too, and says what to do instead",
}


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def coverage(spec: Spec) -> str:
    implemented = set(spec.softgpu)
    per_class = Counter(s.function.class_ for s in spec.symbols)
    lines = [f"<!-- {HEADER_LINE} -->", "# Coverage of the CUDA driver API", ""]
    lines.append(
        "Every name that `libcuda.so.1` exports for driver API "
        f"{_version(int(spec.header['version']))}, what the client's library does with it, and "
        "whether the software GPU has it."
    )
    lines += ["", "| class | names | meaning |", "|---|---:|---|"]
    lines += [f"| {c} | {per_class[c]} | {_MEANING[c]} |" for c in CLASSES]
    lines += [f"| all | {len(spec.symbols)} | the software GPU has {len(implemented)} |", ""]
    lines += ["| function | since | class | software GPU | reason |", "|---|---|---|---|---|"]
    for s in sorted(spec.symbols, key=lambda s: s.exported):
        since = _version(s.version)
        has = "yes" if s.exported in implemented else ""
        why = s.function.why
        if s.function.alias:
            why += f" (as `{s.function.alias}`)"
        lines.append(f"| `{s.exported}` | {since} | {s.function.class_} | {has} | {why} |")
    return "\n".join(lines) + "\n"
