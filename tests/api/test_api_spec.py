# SPDX-License-Identifier: Apache-2.0
"""A mistake in a spec is refused, at its file and line, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List

import pytest
from api_helpers import HERE, load_small

from bitfusion.api import declarations, spec, toml_lines

BAD = sorted((HERE / "bad").glob("bad-*.toml"))


def expected(text: str) -> str:
    """A bad file says what must be said about the line that carries the comment `#! words`."""
    for number, line in enumerate(text.splitlines(), 1):
        if "#! " in line:
            return f"{number}: {line.split('#! ')[1].strip()}"
    raise AssertionError("a bad file without a '#! ' comment")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_spec(path: Path) -> None:
    with pytest.raises(spec.SpecError) as caught:
        load_small(path)
    assert str(caught.value) == f"{path.name}:{expected(path.read_text(encoding='utf-8'))}"


SMALL = (HERE / "small.toml").read_text(encoding="utf-8")
DAMAGES = {
    "class": ('class = "sync"', 'class = "async"', "unknown class 'async'"),
    "key": ("cuInit = { since = 2000 }", "cuInit = { since = 1, much = 2 }", "unknown key 'much'"),
    "since": ("cuInit = { since = 2000 }", "cuInit = { }", "does not say since which version"),
    "alias": ('alias = "cuDeviceSetMemPool"', 'alias = "cuNone"', "alias of unknown 'cuNone'"),
    "alias of nothing": ('alias = "cuDeviceSetMemPool"', 'alias = "cuGone"', "which does nothing"),
    "alias twin": (
        '12000, alias = "cuDeviceSetMemPool"',
        '12000, ptsz = 12000, alias = "cuDeviceSetMemPool"',
        "cannot be an alias",
    ),
    "row": ('row = "oneway"', 'row = "later"', "row must be oneway or sync"),
    "role": ('"in[rank-1]"', '"sideways"', "'sideways' is not a role"),
    "counter": ('"in[rank-1]"', '"in[rang]"', "counted by unknown argument 'rang'"),
    "count": ('"in[rank-1]"', '"in[out]"', "which is not an integer"),
    "twin": (
        "cuMemCreate = { since = 10020 }",
        "cuMemCreate = { since = 1, ptsz = 2 }",
        "no stream",
    ),
    "twice": (
        "cuNumbers = { since = 9000, args = { ",
        'cuNumbers = { since = 9000, prototype = "int a", args = { ',
        "declared already",
    ),
    "table": ("[errors]", "[mistakes]", "unknown table 'mistakes'"),
    "group": ("no_context = true\n\n", "no_contest = true\n\n", "unknown key 'no_contest'"),
    "newer": (
        'newer = ["cuFuture"]',
        'newer = ["cuFuture", "cuPast"]',
        "unknown function 'cuPast'",
    ),
    "union": ('["id", "localized"]', '["id", "lost"]', "has no member 'lost'"),
    "struct": ("CUproperties_st = 64", "CUother_st = 64", "unknown struct 'CUother_st'"),
    "no version": ("version = 13000\n", "", "the header has no version"),
    "error": (
        "CUDA_ERROR_INVALID_VALUE =",
        "CUDA_ERROR_OF_MINE =",
        "unknown error 'CUDA_ERROR_OF_MINE'",
    ),
    "name": ("cuInit = {", "init = {", "not the name of a driver function"),
    "forgotten": ("cuGone = { since = 2000 }\n", "", "declared but without a class: cuGone"),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_damage(name: str, tmp_path: Path) -> None:
    before, after, why = DAMAGES[name]
    assert before in SMALL
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(spec.SpecError, match=re.escape(why)) as caught:
        load_small(path)
    line = int(str(caught.value).split(":")[1])
    damaged = path.read_text(encoding="utf-8").splitlines()
    if name in ("no version", "forgotten"):
        assert 1 <= line <= len(damaged)
    else:
        assert after.splitlines()[0] in damaged[line - 1]


def softgpu(names: List[str], tmp_path: Path) -> str:
    path = tmp_path / "softgpu.toml"
    lines = "".join(f'    "{name}",\n' for name in names)
    path.write_text(f"implemented = [\n{lines}]\n", encoding="utf-8")
    with pytest.raises(spec.SpecError) as caught:
        spec.load_softgpu(path, "softgpu.toml", {"cuA", "cuB"})
    return str(caught.value)


def test_bad_softgpu(tmp_path: Path) -> None:
    assert softgpu(["cuA", "cuC"], tmp_path) == "softgpu.toml:3: unknown function 'cuC'"
    assert softgpu(["cuB", "cuA"], tmp_path) == "softgpu.toml:3: not sorted: 'cuA'"
    assert softgpu(["cuA", "cuA"], tmp_path) == "softgpu.toml:3: duplicate 'cuA'"


def test_declarations_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(declarations.DeclarationError, match=re.escape(str(tmp_path))):
        declarations.load(str(tmp_path))


def test_declarations_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(declarations.DeclarationError, match="pip install cuda-bindings==13.5.0"):
        declarations.load()


def test_declarations_of_another_release(tmp_path: Path) -> None:
    bindings = tmp_path / "cuda" / "bindings"
    bindings.mkdir(parents=True)
    (bindings / "cydriver.pxd").write_text("")
    with pytest.raises(declarations.DeclarationError, match="is of an unknown version"):
        declarations.load(str(tmp_path))
    (bindings / "_version.py").write_text("__version__ = version = '12.9.4'\n")
    with pytest.raises(declarations.DeclarationError, match="is 12.9.4: python3 -m pip install"):
        declarations.load(str(tmp_path))


@pytest.mark.parametrize(
    "text, line, why",
    [
        ("ctypedef enum A:\n    ONE two three\n", 1, "not an enumerator: 'ONE two three'"),
        ("\ncdef struct A:\n    int a b\n", 2, "not a name: 'a b' in 'int a b'"),
    ],
)
def test_bad_declarations(text: str, line: int, why: str) -> None:
    with pytest.raises(declarations.DeclarationError) as caught:
        declarations.parse_types(text, "x.pxd")
    assert str(caught.value) == f"x.pxd:{line}: {why}"


def test_lines_of_keys() -> None:
    lines = toml_lines.find_lines('[a.b]\n\nc = 1\n[d]\n"e f" = [\n  2,\n]\n')
    assert lines == {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 3, ("d",): 4, ("d", "e f"): 5}
