# SPDX-License-Identifier: Apache-2.0
"""Asynchronous barriers, bulk and tensor copies, clusters."""

from __future__ import annotations

from .semantics import hand


def fill() -> None:
    hand("mbarrier_init", "- raw from32", check="memory")
    hand("mbarrier_inval", "- raw", check="memory")
    hand("mbarrier_expect", "- raw from32", check="memory")
    hand("mbarrier_complete", "- raw from32", check="memory")
    hand("mbarrier_arrive", "to64 raw from32 raw", check="atomic")
    hand("mbarrier_state", "to_pred raw from64 raw", check="memory")
    hand("mbarrier_parity", "to_pred raw from32 raw", check="memory")
    hand("mbarrier_pending", "to32 from64")
    hand("cluster_arrive")
    hand("cluster_wait")
    for bits in ("32", "64"):
        hand(f"mapa_{bits}", f"to{bits} from{bits} from32")
    hand("cluster_rank_32", "to32 from32")
    hand("cluster_rank_64", "to32 from64")
    # d, a: generic addresses; b: bytes; c: how; the rest in further records
    hand("bulk_copy", "from64 from64 from32 raw", check="operands")
    # d: the map's address, a: the shared one, c: how
    hand("tensor_copy", "from64 from64 - raw", check="operands")
    hand("bulk_zero", "- from64 from64")
    hand("bulk_complete", "- from64 from32")
    # a: where the answer goes, b: the barrier
    hand("try_cancel", "- from64 from64")
