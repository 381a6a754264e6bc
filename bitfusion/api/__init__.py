# SPDX-License-Identifier: Apache-2.0
"""The one truth about CUDA: cuda.toml and what is generated from it."""
