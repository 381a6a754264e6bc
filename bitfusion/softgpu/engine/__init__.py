# SPDX-License-Identifier: Apache-2.0
"""The software GPU's engine: PTX instructions as C loops over the lanes of a warp, and the encoder for them."""
