# SPDX-License-Identifier: Apache-2.0
"""Spec -> docs/coverage.md. Pure."""

from __future__ import annotations

from collections import Counter
from typing import List

from .emit_header import HEADER_LINE
from .spec import CLASSES, Spec

_MEANING = {
    "local": "answered in the client, nothing is sent",
    "oneway": "sent, not waited for; an error comes with the next call that waits",
    "sync": "sent and waited for",
    "custom": "written by hand, with operations or rows underneath",
    "absent": "`cuGetProcAddress` gives NULL and the export answers `CUDA_ERROR_NOT_SUPPORTED`",
}


def coverage(spec: Spec) -> str:
    implemented = set(spec.softgpu)
    per_class = Counter(s.function.class_ for s in spec.symbols)
    lines = ["<!-- %s -->" % HEADER_LINE, "# Coverage of the CUDA driver API", ""]
    lines.append(
        "Every name that `libcuda.so.1` exports for driver API %d.%d, what the client's library does with it, and "
        "whether the software GPU has it." % divmod(int(spec.header["version"]) // 10, 100)
    )
    lines += ["", "| class | names | meaning |", "|---|---:|---|"]
    lines += ["| %s | %d | %s |" % (c, per_class[c], _MEANING[c]) for c in CLASSES]
    lines += ["| all | %d | the software GPU has %d |" % (len(spec.symbols), len(implemented)), ""]
    lines += ["| function | since | class | software GPU | reason |", "|---|---|---|---|---|"]
    for s in sorted(spec.symbols, key=lambda s: s.exported):
        since = "%d.%d" % (s.version // 1000, s.version % 1000 // 10)
        has = "yes" if s.exported in implemented else ""
        why = s.function.why
        if s.function.alias:
            why += " (as `%s`)" % s.function.alias
        lines.append("| `%s` | %s | %s | %s | %s |" % (s.exported, since, s.function.class_, has, why))
    return "\n".join(lines) + "\n"


def uncovered(spec: Spec) -> List[str]:
    """What the software GPU lacks of what the client's library offers."""
    offered = [s.exported for s in spec.symbols if s.function.class_ != "absent"]
    return sorted(set(offered) - set(spec.softgpu))
