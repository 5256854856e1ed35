# SPDX-License-Identifier: Apache-2.0
"""A policy that continues running chunks and says what it was told, for the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    with_realtime_reply,
)

ROWS = 50


class ContinuingPolicy:
    """Raises the shoulder from where the arm is; a leftover comes first, and the rest goes on from there."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {
            "policy": "continuing",
            "action_horizon": ROWS,
            "image_sizes": {"observation/images/realsense": [24, 32]},
            **announcement(RealtimeSupport(prefix="trained")),
        }
        self.timed: Callable[[Callable[[], Any]], tuple[Any, float]] | None = None
        self.requests: list[tuple[RealtimeRequest, float, float]] = []
        """Request, queue time and inference time, milliseconds."""
        self.seeds: list[int] = []
        self.images: set[tuple[int, ...]] = set()
        self.resets = 0

    def reset(self) -> None:
        """Count."""
        self.resets += 1

    def seed(self, number: int) -> None:
        """Remember."""
        self.seeds.append(number)

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return a motion of half a degree a row."""
        assert "_rt" not in observation
        self.images.add(observation["observation/images/realsense"].shape)
        rows = np.repeat(observation["observation/state"][None], ROWS, axis=0)
        rows[:, 1] += 0.5 * np.arange(1, ROWS + 1)
        return {"actions": rows}

    def infer_realtime(
        self, observation: dict[str, Any], request: RealtimeRequest, queue_ms: float
    ) -> dict[str, Any]:
        """Return the same after the leftover."""
        assert self.timed is not None
        result, infer_ms = self.timed(lambda: self.infer(observation))
        self.requests.append((request, queue_ms, infer_ms))
        left, chunk = len(request.leftover), result["actions"]
        if left:
            further = request.leftover[-1] + chunk[: ROWS - left] - observation["observation/state"]
            chunk = np.concatenate([request.leftover, further])
        reply = RealtimeReply(
            seq=request.seq,
            delay=min(request.delay, left),
            prefix="trained" if left else "none",
            queue_ms=queue_ms,
            infer_ms=infer_ms,
        )
        return with_realtime_reply({"actions": chunk}, reply)


class Silent:
    """Says nothing of itself, as OpenPI's usual policies."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return nothing of use."""
        return {"actions": np.zeros((1, 6), np.float32)}
