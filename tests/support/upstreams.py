# SPDX-License-Identifier: Apache-2.0
"""Policies for the upstreams of a gateway, and what robots send it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

__all__ = ["AS_STOCK", "Echo", "Gate", "reach", "timed"]

AS_STOCK = {"encoded_images": False, "deadlines": False}
"""Settings with which a server of ours announces nothing."""


class Echo:
    """Answers with the observation's number and names; keeps the observation. `do` says what else."""

    def __init__(self, name: str = "echo", metadata: dict[str, Any] | None = None) -> None:
        self.name = name
        self.metadata = metadata or {}
        self.seen: list[dict[str, Any]] = []
        self.broken = False

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return it, or fail."""
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if observation.get("do") == "fail":
            raise KeyError("observation/image")
        self.seen.append(observation)
        return {
            "actions": np.zeros((2, 6), np.float32),
            "number": observation.get("number"),
            "names": list(observation),
            "by": self.name,
        }


class Gate(Echo):
    """Waits to be let through."""

    def __init__(self, name: str = "gate", metadata: dict[str, Any] | None = None) -> None:
        super().__init__(name, metadata)
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Wait, then answer."""
        self.entered.release()
        assert self.opened.acquire(timeout=30)
        return super().infer(observation)

    def let_through(self, count: int = 1) -> None:
        """Open for so many."""
        for _ in range(count):
            self.opened.release()


def reach(condition: Callable[[], bool], *, within: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        pause.wait(0.002)


def timed(observation: dict[str, Any], **said: Any) -> dict[str, Any]:
    """An observation of a robot of ours."""
    request = RealtimeRequest(
        seq=1,
        leftover=np.zeros((0, 6), np.float32),
        delay=0,
        execution_horizon=10,
        control_hz=30.0,
        **said,
    )
    return with_realtime(observation, request)
