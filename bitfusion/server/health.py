# SPDX-License-Identifier: Apache-2.0
"""What a server finds out about itself. Reads a few small files and asks nobody, so that the loop
may call it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Optional

from bitfusion import __version__
from bitfusion.health import (
    FAIL,
    MARGINAL,
    PASS,
    WARNING,
    Check,
    disk,
    expiry,
    grade,
    locked_memory,
    open_files,
)
from bitfusion.inventory import SOFTWARE_CUDA, Inventory, cuda_text
from bitfusion.quantity import MIB, plural
from bitfusion.server.api import CLIENT, Incoming, Route
from bitfusion.wire.control import Json, Reply

NEEDED_FILES = 8192
MEMORY_PER_GPU_MEMORY = 1.5
CORES_PER_GPU = 4
SLOW_TURN_S = 0.1
KEPT_S = 1.0  # what was found, which costs more than other answers
# CUDA 12's user libraries need this driver or a newer one; CUDA 11's live with it too.
LEAST_DRIVER, LEAST_CUDA = "525.60.13", "12.0"
OURS = cuda_text(SOFTWARE_CUDA)  # what clients' libcuda offers


def total_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def memory(inventory: Inventory, total: int) -> Check:
    """Software GPUs take theirs from the machine's own, and only what programs touch."""
    gpus = sum(gpu.memory for gpu in inventory.gpus)
    words = f"{total // MIB} MiB, GPUs have {gpus // MIB} MiB"
    if inventory.software:
        advice = "programs that use all of it will be killed: give less (softgpu.memory)"
        return grade("memory", total, gpus, gpus / 2, words, advice)
    advice = "give the machine 150 % of its GPUs' memory: copies are staged there"
    return grade("memory", total, MEMORY_PER_GPU_MEMORY * gpus, gpus, words, advice)


def cores(inventory: Inventory, count: int) -> Check:
    gpus = len(inventory.gpus)
    advice = f"give the machine {CORES_PER_GPU} cores for each GPU"
    words = f"{plural(count, 'core')} for {plural(gpus, 'GPU')}"
    return grade("cores", count, CORES_PER_GPU * gpus, gpus, words, advice)


def driver(inventory: Inventory) -> list[Check]:
    """The driver, and the version of CUDA up to which it runs programs."""
    if inventory.software:
        return [Check("driver", PASS, f"software GPU, CUDA {inventory.cuda_version}")]
    old = f"install {LEAST_DRIVER} or newer: programs of CUDA 12 need it"
    newer = f"install a newer driver where programs of CUDA {OURS} are to run, the newest we carry"
    return [
        version("driver", inventory.driver_version, LEAST_DRIVER, LEAST_DRIVER, old),
        version("CUDA", inventory.cuda_version, OURS, LEAST_CUDA, newer),
    ]


def version(name: str, found: str, wanted: str, least: str, advice: str) -> Check:
    """PASS from wanted on, MARGINAL from least on or where it cannot be told, else WARNING."""
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError:
        advice = "install the Python package 'packaging' to have versions compared"
        return Check(name, MARGINAL, found or "unknown version", advice)
    try:
        known = Version(found)
    except InvalidVersion:
        advice = f"make sure that it is {wanted} or newer"
        words = f"unknown version '{found}'" if found else "unknown version"
        return Check(name, MARGINAL, words, advice)
    if known >= Version(wanted):
        return Check(name, PASS, found)
    return Check(name, MARGINAL if known >= Version(least) else WARNING, found, advice)


def loop(longest_turn_s: float) -> Check:
    words = f"longest turn {longest_turn_s * 1000:.1f} ms"
    if longest_turn_s <= SLOW_TURN_S:
        return Check("responsiveness", PASS, words)
    return Check("responsiveness", MARGINAL, words, "the machine or its disk is too busy")


class HealthApi:
    """Answers GET /v1/health. What only the public server knows comes as functions."""

    def __init__(
        self,
        inventory: Inventory,
        folder: str,
        longest_turn_s: Callable[[], float],
        certificate_expires_s: Callable[[], Optional[float]],
        store: Callable[[], str],
        encrypt: str,
        data: Json,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """certificate_expires_s: seconds since the epoch; None where there is none. store: '' or
        what is wrong with it. data: where data connections go.
        """
        self._inventory = inventory
        self._folder = folder
        self._longest_turn_s = longest_turn_s
        self._certificate_expires_s = certificate_expires_s
        self._store = store
        self._encrypt = encrypt
        self._data = data
        self._clock = clock
        self._found: list[Check] = []
        self._found_s = -KEPT_S

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/health", CLIENT, self.answer)]

    def checks(self) -> list[Check]:
        if self._clock() - self._found_s >= KEPT_S:
            self._found, self._found_s = self._look(), self._clock()
        return self._found

    def _look(self) -> list[Check]:
        return [
            open_files(NEEDED_FILES),
            locked_memory(),
            memory(self._inventory, total_memory()),
            cores(self._inventory, usable_cores()),
            *driver(self._inventory),
            disk(self._folder),
            loop(self._longest_turn_s()),
            self._state(),
            self._certificate(),
        ]

    def _state(self) -> Check:
        wrong = self._store()
        if wrong:
            advice = "running sessions go on; nobody new gets GPUs until it is back"
            return Check("cluster's state", FAIL, wrong, advice)
        return Check("cluster's state", PASS, "in reach")

    def _certificate(self) -> Check:
        expires_s = self._certificate_expires_s()
        if expires_s is None:
            advice = "make keys with 'bitfusion server init', unless only this machine uses it"
            return Check("identity", MARGINAL, "clear text, everybody may come", advice)
        return expiry("certificate", expires_s - time.time(), "restart the server to renew it")

    def answer(self, _asked: Incoming) -> Reply:
        body: Json = {
            "version": __version__,
            "time": time.time(),
            "encrypt": self._encrypt,
            "data_port": self._data.get("tcp"),
            "checks": [check._asdict() for check in self.checks()],
        }
        return Reply(200, body)
