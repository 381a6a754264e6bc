# SPDX-License-Identifier: Apache-2.0
"""``python3 -m bitfusion.softgpu.engine [--check]``: write, or compare, the generated files."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Dict

from . import encoding, generated
from .emit import files
from .generated import forms


def _stale(made: Dict[Path, str]) -> Dict[Path, str]:
    return {
        path: text for path, text in made.items() if not path.exists() or path.read_text() != text
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python3 -m bitfusion.softgpu.engine [--check]", file=sys.stderr)
        return 2
    folder = Path(__file__).with_name("generated")
    made = {folder / name: text for name, text in files().items()}
    stale = _stale(made)
    left = [path for path in folder.glob("*") if path.is_file() and path not in made]
    if not arguments:
        folder.mkdir(exist_ok=True)
        for path, text in stale.items():
            path.write_text(text)
        for path in left:
            path.unlink()
        stale, left = {}, []
        for module in (generated, forms, encoding):
            importlib.reload(module)
    # only now: it imports the encoder, which needs what was just written
    from .coverage import DOCUMENT, document

    if DOCUMENT.parent.is_dir():
        stale.update(_stale({DOCUMENT: document()}))
    if not arguments:
        for path, text in stale.items():
            path.write_text(text)
        return 0
    for path in [*stale, *left]:
        print(
            f"{path} is not what its sources give: run python3 -m bitfusion.softgpu.engine",
            file=sys.stderr,
        )
    return 1 if stale or left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
