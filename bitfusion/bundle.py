# SPDX-License-Identifier: Apache-2.0
"""Bundles: small tars of a few known files, which tokens and invitations travel in.

Nothing is ever extracted from one: files of known names are read, each of bounded size, and
everything else makes the bundle a wrong one.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from bitfusion.errors import SystemFailure, WrongBundle, reason

MAX_FILE = 64 << 10
MAX_BUNDLE = 1 << 20
MODE = 0o600
NO_TAR = (  # what reading one raises: it recurses for each header that belongs to the next, and
    # takes any number for a size
    tarfile.TarError, ValueError, EOFError, ArithmeticError, LookupError, RecursionError,
)  # fmt: skip


def pack(files: Mapping[str, bytes], now_s: float) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), MODE, int(now_s)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def unpack(path: str, names: Sequence[str]) -> dict[str, bytes]:
    """Exactly these files."""
    files: dict[str, bytes] = {}
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BUNDLE + 1)
        if len(data) > MAX_BUNDLE:
            raise WrongBundle(path=path, why="it is too large")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                files[member.name] = _read(tar, member, names, files, path)
    except OSError as error:
        raise WrongBundle(path=path, why=reason(error)) from None
    except NO_TAR:
        raise WrongBundle(path=path, why="it is not a tar file") from None
    missing = [name for name in names if name not in files]
    if missing:
        raise WrongBundle(path=path, why=f"'{missing[0]}' is missing in it")
    return files


def _read(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    names: Sequence[str],
    known: Mapping[str, bytes],
    path: str,
) -> bytes:
    if member.name not in names or member.name in known:
        raise WrongBundle(path=path, why=f"it holds '{member.name[:100]}'")
    if not member.isreg() or member.size > MAX_FILE:
        raise WrongBundle(path=path, why=f"'{member.name}' in it is not a small file")
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read(MAX_FILE)


def refuse_existing(path: str) -> None:
    """Before a secret is made that could then not be written."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.lexists(path):
        raise SystemFailure(what=f"write '{path}'", why="it exists")
    if not os.access(folder, os.W_OK):
        raise SystemFailure(what=f"write '{path}'", why="its folder takes no new files")


@contextlib.contextmanager
def created(path: str) -> Iterator[BinaryIO]:
    """A new file, for its owner's eyes only; whole or not at all."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
            try:
                yield file
                file.flush()
            except OSError:
                os.unlink(path)
                raise
    except OSError as error:
        raise SystemFailure(what=f"write '{path}'", why=reason(error)) from None


def write(path: str, data: bytes) -> None:
    with created(path) as file:
        file.write(data)
