# SPDX-License-Identifier: Apache-2.0
"""Two server processes with four GPUs each and forty clients, with random kills of clients,
workers and servers; crowd.py says what must hold. `make test-pool` takes more steps.
"""

from __future__ import annotations

import os

import pytest
from crowd import Crowd

STEPS = int(os.environ.get("POOL_STEPS", "300"))
STEPS_PER_RESTART = 150


@pytest.mark.timeout(120 + STEPS)
def test_a_crowd(request: pytest.FixtureRequest) -> None:
    crowd = Crowd(int(os.environ.get("POOL_SEED", "1")))
    try:
        for number in range(STEPS):
            crowd.step()
            if number % 20 == 0:
                crowd.compare()
            if number % STEPS_PER_RESTART == STEPS_PER_RESTART - 1:
                crowd.break_server(STEPS < 1000)
        crowd.compare()
        crowd.end()
    finally:
        for node in crowd.nodes:
            if node.now.process.poll() is None:
                node.now.stop()
    print(dict(crowd.counts))
    for what in ("granted", "queued", "release", "killed", "kill a worker", "taken over"):
        assert crowd.counts[what], (what, crowd.counts)
