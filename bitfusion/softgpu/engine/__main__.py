# SPDX-License-Identifier: Apache-2.0
"""``python3 -m bitfusion.softgpu.engine [--check]``: write, or compare, the generated files."""

from __future__ import annotations

import sys
from pathlib import Path

from .emit import files


def main(arguments: list[str]) -> int:
    folder = Path(__file__).with_name("generated")
    made = files()
    stale = [
        name
        for name, text in made.items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    stale += [
        path.name
        for path in folder.glob("*")
        if path.suffix in (".c", ".h", ".py") and path.name not in made
    ]
    if arguments == ["--check"]:
        for name in stale:
            print(
                f"{folder / name} is not what its sources give:"
                " run python3 -m bitfusion.softgpu.engine",
                file=sys.stderr,
            )
        return 1 if stale else 0
    if arguments:
        print("usage: python3 -m bitfusion.softgpu.engine [--check]", file=sys.stderr)
        return 2
    folder.mkdir(exist_ok=True)
    for name in stale:
        if name in made:
            (folder / name).write_text(made[name])
        else:
            (folder / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
