# SPDX-License-Identifier: Apache-2.0
"""Two server processes with four GPUs each and forty clients, with random kills of clients,
workers and servers; crowd.py says what must hold. `make test-pool` takes more steps.
"""

from __future__ import annotations

import os

import pytest
from crowd import Crowd
from etcds import EtcdServer

STEPS = int(os.environ.get("POOL_STEPS", "250"))
STEPS_PER_RESTART = 120


@pytest.mark.timeout(120 + STEPS)
@pytest.mark.parametrize("store", ["apart", "together"])
def test_a_crowd(store: str) -> None:
    """With a store of each server's own, and with one for both."""
    etcd = EtcdServer() if store == "together" else None
    crowd = Crowd(int(os.environ.get("POOL_SEED", "1")), etcd)
    try:
        for number in range(STEPS):
            crowd.step()
            if number % 20 == 0:
                crowd.compare()
            if number % STEPS_PER_RESTART == STEPS_PER_RESTART - 1:
                crowd.break_server(STEPS < 1000 or number % 7 > 0)
        crowd.compare()
        crowd.end()
    finally:
        for node in crowd.nodes:
            if node.now.process.poll() is None:
                node.now.stop()
        if etcd:
            etcd.end()
    compared = [sum(rules.compared[number] for rules in crowd.rules) for number in (1, 2, 3)]
    print(dict(crowd.counts), compared)
    whats = ("granted", "queued", "release", "killed", "taken over", "too-much")
    for what in (*whats, *(("came back",) if STEPS >= 1000 else ())):
        assert crowd.counts[what], (what, crowd.counts)
    seen = sum(compared) if STEPS < 1000 else min(compared)
    assert seen, f"nothing was seen of the order of the queue: {compared}"
