# SPDX-License-Identifier: Apache-2.0
"""Textures and surfaces."""

from __future__ import annotations

from .semantics import hand


def fill() -> None:
    # a: the object's number, x: the form; the rest in further records
    hand("texture", "- from64 from64", check="texture")  # b: the sampler's, where it has one
    for name in ("texture_query", "surface_load", "surface_store", "surface_reduce"):
        hand(name, "- from64", check="texture")
    hand("texture_is", "to_pred from64 - raw")
