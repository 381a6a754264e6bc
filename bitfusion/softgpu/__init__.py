# SPDX-License-Identifier: Apache-2.0
"""The software GPU: a CUDA driver that executes PTX on the CPU."""
