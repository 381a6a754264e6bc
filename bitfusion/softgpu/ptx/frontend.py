# SPDX-License-Identifier: Apache-2.0
"""Images as programs hand them over -> modules: what is it, which part of it counts."""

from __future__ import annotations

from typing import List, Sequence

from . import cubin, fatbin
from .fatbin import INVALID_IMAGE, NO_BINARY_FOR_GPU
from .ir import Module, PtxError
from .link import Input, link
from .parser import parse
from .record import dataclass

TILE_IR_MAGIC = b"\x7fTileIR"
# CUjitInputType
INPUT_CUBIN, INPUT_PTX, INPUT_FATBIN, INPUT_OBJECT, INPUT_LIBRARY = range(5)
_DEVICE_RUNTIME = b"__CNPRT_VERSION"  # a variable of libcudadevrt
_TEXT_BYTES = bytes([*range(9, 14), *range(32, 256)])
INPUT_ANY = 10  # nvJitLink's; the driver says it of what nvcc -rdc put into a program


@dataclass(frozen=True)
class Item:
    """One image of a request; ``name`` is what the program calls it in messages."""

    data: bytes
    kind: int = INPUT_PTX
    name: str = ""


def read_image(data: bytes) -> Module:
    """Give the linked module of one image; raises :class:`PtxError`."""
    inputs = _sniff(Item(data), len(data) >= 4)
    return link(inputs)


def read_images(items: Sequence[Item]) -> Module:
    """Link several images as cuLinkComplete does."""
    inputs: List[Input] = []
    for item in items:
        inputs += _sniff(item, False)
    return link(inputs)


def _sniff(item: Item, alone: bool) -> List[Input]:
    """Find out what an image is by its content and give its modules."""
    data, name = item.data, item.name
    if fatbin.is_fatbin(data):
        members = fatbin.entries(data)
        links = [entry for entry in members if entry.kind == fatbin.KIND_LINK_INPUT]
        if links and alone:
            return _links(links)
        return [_parsed(fatbin.choose_ptx(members), name)]
    if data[:8] == fatbin.ARCHIVE_MAGIC:
        return _images(fatbin.embedded(data), name, True, [])
    if data[:4] == fatbin.ELF_MAGIC:
        if not alone and fatbin.embedded(data):
            return _images(fatbin.embedded(data), name, False, [])
        arch = fatbin.cubin_arch(data)
        what = "machine code (SASS)" + (f" for sm_{arch}" if arch else "")
        names = cubin.kernels(data)
        raise PtxError(
            f"the image{' of ' + cubin.say(names) if names else ''} is {what}; "
            "the software GPU needs PTX "
            "(compile with -gencode arch=compute_XX,code=compute_XX)",
            NO_BINARY_FOR_GPU,
        )
    if data[:7] == TILE_IR_MAGIC:
        raise PtxError("the image is CUDA Tile IR; the software GPU needs PTX", NO_BINARY_FOR_GPU)
    if _is_text(data):
        return [_parsed(data, name)]
    raise PtxError("the image is neither PTX, nor a fat binary, nor ELF", INVALID_IMAGE)


def _links(entries: Sequence[fatbin.Entry]) -> List[Input]:
    """Take what is to be linked. Of a program's own parts, some may have no PTX."""
    inputs: List[Input] = []
    refused: List[PtxError] = []
    for entry in entries:
        item = _link_item(entry)
        if entry.arch == INPUT_ANY:
            inputs += _images([item.data], item.name, False, refused)
        else:
            inputs += _sniff(item, False)
    if refused and not inputs:
        raise refused[0]
    _limit_registers(inputs, entries[0].version[1])
    return inputs


def _limit_registers(inputs: Sequence[Input], limit: int) -> None:
    """As nvJitLink's -maxrregcount does: for what does not say a limit of its own."""
    kernels = [f for one in inputs for f in one.module.functions.values() if f.entry]
    for kernel in kernels if limit else ():
        kernel.directives.setdefault("maxnreg", (limit,))


def _link_item(entry: fatbin.Entry) -> Item:
    data = entry.unpack()
    return Item(data[: entry.size] if entry.size else data, entry.arch)


def _parsed(text: bytes, name: str) -> Input:
    return Input(parse(text), name)


def _images(
    images: Sequence[bytes], name: str, on_demand: bool, refused: List[PtxError]
) -> List[Input]:
    """Take the PTX of fat binaries; one without, and the device runtime, is passed over.

    The engine knows the device runtime's functions by name. They fail when they are called.
    """
    inputs = []
    for image in images:
        try:
            text = fatbin.choose_ptx(fatbin.entries(image))
        except PtxError as error:
            if error.status not in (NO_BINARY_FOR_GPU, INVALID_IMAGE):
                raise
            refused.append(error)
            continue
        if _DEVICE_RUNTIME not in text:
            inputs.append(Input(parse(text), name, on_demand))
    return inputs


def _is_text(data: bytes) -> bool:
    head = data[:4096].split(b"\0", 1)[0]
    if not 32 < (head.strip() or b"\0")[0] < 127:
        return False
    return not head.translate(None, _TEXT_BYTES)
