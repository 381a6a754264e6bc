# SPDX-License-Identifier: Apache-2.0
"""The generated cuda.h has CUDA's layout: facts of the ABI that the declarations do not hold."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from api_helpers import ROOT, compile_c

# size, alignment
SIZES = {
    "CUuuid": (16, 1),
    "CUdeviceptr": (8, 8),
    "CUdevice": (4, 4),
    "CUresult": (4, 4),
    "CUlaunchConfig": (56, 8),
    "CUlaunchAttribute": (72, 8),
    "CUlaunchAttributeValue": (64, 8),
    "CUtensorMap": (128, 64),
    "CUDA_MEMCPY2D": (128, 8),
    "CUDA_MEMCPY3D": (200, 8),
    "CUDA_MEMCPY3D_PEER": (200, 8),
    "CUDA_KERNEL_NODE_PARAMS_v1": (56, 8),
    "CUDA_KERNEL_NODE_PARAMS": (72, 8),
    "CUDA_MEMSET_NODE_PARAMS": (40, 8),
    "CUDA_HOST_NODE_PARAMS": (16, 8),
    "CUDA_RESOURCE_DESC": (144, 8),
    "CUDA_TEXTURE_DESC": (104, 4),
    "CUDA_ARRAY3D_DESCRIPTOR": (40, 8),
    "CUDA_GRAPH_INSTANTIATE_PARAMS": (32, 8),
    "CUgraphExecUpdateResultInfo": (24, 8),
    "CUgraphNodeParams": (256, 8),
    "CUgraphEdgeData": (8, 1),
    "CUmemLocation": (8, 4),
    "CUmemAllocationProp": (32, 8),
    "CUmemAccessDesc": (12, 4),
    "CUmemPoolProps": (88, 8),
    "CUstreamBatchMemOpParams": (48, 8),
    "CUdevprop": (56, 4),
    "CUipcMemHandle": (64, 1),
    "CUexecAffinityParam": (8, 4),
    "CUctxCreateParams": (24, 8),
    "CUDA_EXTERNAL_MEMORY_HANDLE_DESC": (104, 8),
}

OFFSETS = {
    ("CUlaunchConfig", "sharedMemBytes"): 24,
    ("CUlaunchConfig", "hStream"): 32,
    ("CUlaunchConfig", "attrs"): 40,
    ("CUlaunchConfig", "numAttrs"): 48,
    ("CUlaunchAttribute", "value"): 8,
    ("CUDA_MEMCPY2D", "dstXInBytes"): 56,
    ("CUDA_MEMCPY2D", "Height"): 120,
    ("CUDA_MEMCPY3D", "srcMemoryType"): 32,
    ("CUDA_MEMCPY3D", "dstXInBytes"): 88,
    ("CUDA_MEMCPY3D", "Depth"): 192,
    ("CUDA_KERNEL_NODE_PARAMS", "kernelParams"): 40,
    ("CUgraphNodeParams", "kernel"): 16,
    ("CUgraphNodeParams", "reserved2"): 248,
    ("CUmemLocation", "id"): 4,
    ("CUmemAllocationProp", "location"): 8,
    ("CUmemPoolProps", "location"): 8,
    ("CUmemPoolProps", "maxSize"): 24,
    ("CUstreamBatchMemOpParams", "waitValue.value64"): 16,
    ("CUstreamBatchMemOpParams", "waitValue.flags"): 24,
}

NUMBERS = {
    "CUDA_VERSION": 13000,
    "CUDA_SUCCESS": 0,
    "CUDA_ERROR_NOT_INITIALIZED": 3,
    "CUDA_ERROR_NO_BINARY_FOR_GPU": 209,
    "CUDA_ERROR_ILLEGAL_ADDRESS": 700,
    "CUDA_ERROR_NOT_SUPPORTED": 801,
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": 900,
    "CUDA_ERROR_UNKNOWN": 999,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75,
    "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": 16,
    "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 8,
    "CU_POINTER_ATTRIBUTE_DEVICE_POINTER": 3,
    "CU_LIMIT_PRINTF_FIFO_SIZE": 1,
    "CU_LAUNCH_ATTRIBUTE_COOPERATIVE": 2,
    "CU_MEMORYTYPE_UNIFIED": 4,
    "CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM": 2,
    "CU_DEVICE_CPU": -1,
    "CU_MEMHOSTALLOC_DEVICEMAP": 2,
}

POINTERS = {
    "CU_STREAM_LEGACY": 1,
    "CU_STREAM_PER_THREAD": 2,
    "CU_LAUNCH_PARAM_END": 0,
    "CU_LAUNCH_PARAM_BUFFER_POINTER": 1,
    "CU_LAUNCH_PARAM_BUFFER_SIZE": 2,
}


def facts() -> str:
    lines = ["#include <stddef.h>", '#include "cuda.h"']
    for name, (size, alignment) in SIZES.items():
        lines.append(f'_Static_assert(sizeof({name}) == {size}, "{name}");')
        lines.append(f'_Static_assert(_Alignof({name}) == {alignment}, "{name}");')
    for (name, member), offset in OFFSETS.items():
        lines.append(f'_Static_assert(offsetof({name}, {member}) == {offset}, "{name}.{member}");')
    for name, number in NUMBERS.items():
        lines.append(f"int n{len(lines)}[({name}) == {number} ? 1 : -1];")
    lines.append(f"void *const pointers[] = {{{', '.join(POINTERS)}}};")
    return "\n".join(lines) + "\n"


def test_layout(tmp_path: Path) -> None:
    source = tmp_path / "facts.c"
    source.write_text(facts(), encoding="utf-8")
    library = ctypes.CDLL(str(compile_c(tmp_path / "facts.so", [source], ["-shared", "-fPIC"])))
    pointers = (ctypes.c_void_p * len(POINTERS)).in_dll(library, "pointers")
    assert [value or 0 for value in pointers] == list(POINTERS.values())


def test_header_is_cplusplus_too(tmp_path: Path) -> None:
    """Test programs in C++ may use it."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "use.cpp"
    source.write_text('#include "cuda.h"\nint main() { return (int)cuInit(0); }\n')
    include = f"-I{ROOT / 'bitfusion' / 'wire' / 'generated'}"
    done = subprocess.run([compiler, "-c", include, str(source), "-o", str(tmp_path / "use.o")])
    assert done.returncode == 0
    symbols = subprocess.run(
        ["nm", str(tmp_path / "use.o")], stdout=subprocess.PIPE, text=True, check=True
    )
    assert " U cuInit" in symbols.stdout
