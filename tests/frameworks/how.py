# SPDX-License-Identifier: Apache-2.0
"""The ways to run a framework's program on the software GPU."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
BITFUSION = str(HERE.parents[1] / "bin" / "bitfusion")
HOW = {
    "direct": [BITFUSION, "softgpu", "--"],
    "tcp": [BITFUSION, "run", "-n", "1", "--transport", "tcp", "--"],
    "unix": [BITFUSION, "run", "-n", "1", "--transport", "unix", "--"],
}
