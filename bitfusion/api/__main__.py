# SPDX-License-Identifier: Apache-2.0
"""python3 -m bitfusion.api [--check] [--declarations DIR]: write or verify what is generated."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from . import declarations, emit_c, emit_docs, emit_null, nvml, spec

ROOT = Path(__file__).resolve().parents[2]
CUDA = "bitfusion/api/cuda.toml"
WIRE = "bitfusion/wire/generated/"
PROXY = "bitfusion/proxy/generated/"
SOFTGPU = "bitfusion/softgpu/driver/generated/"
NULL = "tests/nulldriver/"


def _absent_in_softgpu(s: spec.Spec) -> List[str]:
    return [name for name in s.exported if name not in set(s.softgpu)]


OUTPUTS: Tuple[Tuple[str, Callable[[spec.Spec], str]], ...] = (
    (WIRE + "cuda.h", emit_c.header),
    (WIRE + "calls.h", emit_c.calls_header),
    ("bitfusion/wire/calls.py", emit_c.calls_module),
    (WIRE + "rows.c", emit_c.rows_source),
    (PROXY + "stubs.h", emit_c.stubs_header),
    (PROXY + "stubs.c", emit_c.stubs_source),
    (PROXY + "absent.c", emit_c.proxy_absent_source),
    (PROXY + "symbols.c", lambda s: emit_c.symbols_source(s, emit_c.proxy_found(s))),
    (PROXY + "exports.map", lambda s: emit_c.export_map(s.exported)),
    (SOFTGPU + "absent.c", lambda s: emit_c.absent_source(_absent_in_softgpu(s), "sg_absent")),
    (SOFTGPU + "symbols.c", lambda s: emit_c.symbols_source(s, set(s.softgpu))),
    (SOFTGPU + "exports.map", lambda s: emit_c.export_map(s.exported)),
    ("bitfusion/abi/generated/errors.c", emit_c.errors_source),
    ("docs/coverage.md", emit_docs.coverage),
)


def generate(loaded: spec.Spec, null_sources: List[str]) -> Dict[str, str]:
    """Path below the root -> text, of everything that is generated."""
    files = {path: emit(loaded) for path, emit in OUTPUTS}
    written = emit_null.find_written(null_sources)
    for name, text in emit_null.emit_null(loaded, written).items():
        files[NULL + "generated/" + name] = text
    return files


def sources(folder: Path) -> List[str]:
    """The hand-written half of a library: what it defines is not generated."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.c"))]


def differing(root: Path, files: Dict[str, str]) -> List[str]:
    found = []
    for path, text in files.items():
        target = root / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            found.append(path)
    return found


def write(root: Path, files: Dict[str, str]) -> List[str]:
    changed = differing(root, files)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path], encoding="utf-8")
    return changed


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bitfusion.api", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which files differ")
    parser.add_argument("--declarations", metavar="DIR", help="a folder that holds cuda/bindings")
    options = parser.parse_args(arguments)
    try:
        loaded = spec.load(ROOT / CUDA, declarations.load(options.declarations), CUDA)
        files = generate(loaded, sources(ROOT / NULL))
        management = nvml.load(declarations.find_package(options.declarations))
        files.update(nvml.generate(management, sources(ROOT / nvml.FOLDER)))
    except (declarations.DeclarationError, spec.SpecError) as error:
        print(f"bitfusion.api: {error}", file=sys.stderr)
        return 1
    if options.check:
        names = differing(ROOT, files)
        for name in names:
            print(f"bitfusion.api: '{name}' differs: run make generate", file=sys.stderr)
        return 1 if names else 0
    for name in write(ROOT, files):
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
