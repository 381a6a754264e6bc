# SPDX-License-Identifier: Apache-2.0
"""The software GPU's engine: PTX as C loops over the lanes of a warp, and the encoder for it."""
