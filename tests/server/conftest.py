# SPDX-License-Identifier: Apache-2.0
"""A server, which must end in good order and leave no process behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Server, wait_for


@pytest.fixture()
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(*getattr(request, "param", ("echo", 2, 1000)))
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0
    assert wait_for(lambda: not running.processes())
    assert "Traceback" not in running.log, running.log
