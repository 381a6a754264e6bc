# SPDX-License-Identifier: Apache-2.0
"""Bitfusion: run CUDA programs on GPUs of other machines."""

__version__ = "0.1.0"
