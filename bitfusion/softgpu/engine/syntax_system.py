# SPDX-License-Identifier: Apache-2.0
"""Forms of control, barriers, exchange between lanes, matrix moves; what is not carried out."""

from __future__ import annotations

from .syntax import refused, rows


def _control() -> None:
    rows("bra call brx ret", "uni?")
    rows("brx", "idx uni?")
    rows("pmevent", "mask?")
    rows("griddepcontrol", "launch_dependents|wait")
    rows("setmaxnreg", "inc|dec sync aligned u32")


def _barriers() -> None:
    for opcode, aligned in (("bar", ""), ("barrier", "aligned?")):
        rows(opcode, f"cta? sync|arrive {aligned}", f"cta? red popc {aligned} u32")
        rows(opcode, f"cta? red and|or {aligned} pred")
    rows("bar", "warp sync")
    rows("barrier", "cluster arrive release|relaxed? aligned?", "cluster wait acquire? aligned?")
    rows("fence", "sc|acq_rel|acquire|release? SCOPE", "mbarrier_init release cluster")
    rows("fence", "acquire sync_restrict::shared::cluster cluster")
    rows("fence", "release sync_restrict::shared::cta cluster")
    rows("fence", "proxy alias|async", "proxy async global|shared::cta|shared::cluster")
    rows("fence", "proxy tensormap::generic acquire|release SCOPE")
    rows("fence", "proxy async::generic acquire sync_restrict::shared::cluster cluster")
    rows("fence", "proxy async::generic release sync_restrict::shared::cta cluster")
    rows("membar", "cta|gl|sys", "proxy alias")
    order = "release|relaxed? cta|cluster?"
    rows(
        "mbarrier",
        "init|inval MINE? b64",
        "expect_tx|complete_tx relaxed? cta|cluster? SHARED? b64",
    )
    rows("mbarrier", f"arrive|arrive_drop expect_tx? {order} SHARED? b64")
    rows("mbarrier", "arrive|arrive_drop noComplete release? cta? MINE? b64")
    rows("mbarrier", "test_wait|try_wait parity? acquire|relaxed? cta|cluster? MINE? b64")
    rows("mbarrier", "pending_count b64")


def _exchange() -> None:
    rows("shfl", "sync? up|down|bfly|idx b32")
    rows("vote", "sync? all|any|uni pred", "sync? ballot b32")
    rows("match", "any|all sync b32|b64")
    rows("redux", "sync add|min|max u32|s32", "sync and|or|xor b32", "sync min|max abs? NaN? f32")
    rows("elect", "sync")
    rows("activemask", "b32")
    rows("clusterlaunchcontrol", "try_cancel async shared::cta? TOLD b128")
    rows("clusterlaunchcontrol", "query_cancel is_canceled pred b128")
    rows("clusterlaunchcontrol", "query_cancel get_first_ctaid v4 b32 b128")
    axes = "|".join(f"get_first_ctaid::{axis}" for axis in "xyz")
    rows("clusterlaunchcontrol", f"query_cancel {axes} b32 b128")


def _matrices() -> None:
    rows("ldmatrix stmatrix", "sync aligned m8n8 x1|x2|x4 trans? MINE? b16")
    rows("movmatrix", "sync aligned m8n8 trans b16")


_SINGLE = "only single architectures and families have it (sm_90a, sm_100a, sm_120f, …)"
_GRAPHICS = "the driver API makes such textures for graphics alone"


def _missing() -> None:
    refused("wgmma tcgen05", "", _SINGLE)
    refused("tensormap", "replace", _SINGLE)
    refused("clusterlaunchcontrol", "multicast::cluster::all", _SINGLE)
    refused("cp", "im2col::w|im2col::w::128", _SINGLE)
    refused("cp", "cta_group::1|cta_group::2", _SINGLE)
    refused("cp", "ignore_oob", "new in PTX 9.2: which bytes its barrier counts is not known")
    refused("mma", "kind::f8f6f4|kind::mxf8f6f4|kind::mxf4|kind::mxf4nvf4", _SINGLE)
    refused("mma", "block_scale", _SINGLE)
    refused("ldmatrix", "m16n16|m8n16", _SINGLE)
    refused("stmatrix", "m16n8", _SINGLE)
    refused("cvt", "rs", _SINGLE)
    refused("tex", "2dms|a2dms", _GRAPHICS)
    refused("cvta", "u32", "addresses have 64 bits")


_UNDOCUMENTED = "NVIDIA's assembler takes it, but PTX's manual does not have it"


def _undocumented() -> None:
    refused("addc subc madc", "s16|u16", _UNDOCUMENTED)
    refused("madc", "sat", _UNDOCUMENTED)
    refused("fma", "rm|rp|rz bf16|bf16x2", _UNDOCUMENTED)
    refused("rcp", "rn|rz|rm|rp ftz f64", _UNDOCUMENTED)
    refused("mapa getctarank", "s32|s64", _UNDOCUMENTED)
    refused("st", "async SCOPE", _UNDOCUMENTED)
    refused("st", "async shared|shared::cta", _UNDOCUMENTED)
    refused("st", "volatile EVICT2", _UNDOCUMENTED)
    refused("fence", "tensormap::generic global", _UNDOCUMENTED)
    refused("fence", "mbarrier_init sync_restrict::shared::cta", _UNDOCUMENTED)
    refused("multimem", "st acc::f16|acc::f32", _UNDOCUMENTED)
    refused("fence", "async::generic shared::cluster", _UNDOCUMENTED)
    refused(
        "fence",
        "async sync_restrict::shared::cta|sync_restrict::shared::cluster",
        _UNDOCUMENTED,
    )
    refused("atom red", "pred", _UNDOCUMENTED)
    refused("tex tld4", "uni", _UNDOCUMENTED)
    refused("vset vset2 vset4", "lo|ls|hi|hs", _UNDOCUMENTED)


_control()
_barriers()
_exchange()
_matrices()
_missing()
_undocumented()
