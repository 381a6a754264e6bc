# SPDX-License-Identifier: Apache-2.0
"""python3 -m bitfusion"""

from __future__ import annotations

from bitfusion.cli import main

main()
