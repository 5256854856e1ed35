# SPDX-License-Identifier: Apache-2.0
"""How many rows to pin, decided when inference really starts: late-bound.

In: what a robot says, how long its request waited, how long inferences take. Out: the inference delay to
condition on. Pure. A robot alone can only guess the queue of a server it shares; the server knows it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from pi05_websocket.wire.realtime import RealtimeRequest

__all__ = ["InferenceTime", "PrefixPlan", "late_bound"]

_SLACK = 1e-9
"""So that 100 ms at 30 Hz are 3 ticks, not the 4 of 3.0000000000000004."""


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """Which rows of the chunk follow the leftover, and how strictly.

    ::

        row       0 ... d-1      d ... horizon-1      horizon ... H-1
                  pinned         follows, less and    free
                                 less
    """

    delay: int
    """d: rows that will be executed from the running chunk whatever the answer is."""

    horizon: int
    """H - s, no more than there are rows to follow. LeRobot's `execution_horizon`."""


class InferenceTime:
    """How long an inference takes: the median of the last ones, the first left out once there are others.

    The first one compiles, allocates and reads weights; a mean or a maximum would remember it.
    """

    def __init__(self, window: int = 16) -> None:
        self._first: float | None = None
        self._recent: deque[float] = deque(maxlen=window)

    def __repr__(self) -> str:
        return f"<InferenceTime {self.ms()} ms>"

    def add(self, ms: float) -> None:
        """Record one inference."""
        if self._first is None:
            self._first = ms
        else:
            self._recent.append(ms)

    def ms(self) -> float | None:
        """Return the time to expect; None before anything was measured."""
        return median(self._recent) if self._recent else self._first


def late_bound(
    request: RealtimeRequest,
    *,
    queue_ms: float,
    infer_ms: float | None,
    action_horizon: int,
    most: int | None = None,
) -> PrefixPlan:
    """Return what to pin for a request whose inference starts now.

    The delay is the observation's age when it came, its wait, the inference, and the way back, which is taken
    to be as long as the way here; in whole ticks. Only durations are used: no clocks are compared.

    Args:
        queue_ms: How long the request waited here.
        infer_ms: How long its inference will take; None: unknown, the robot's estimate of the delay stands.
        action_horizon: H, rows of the chunk.
        most: Most rows the policy can pin; None: any number.

    The paper's bounds `d <= s <= H - d` hold wherever `d <= H / 2` allows it; beyond, the rows that will be
    executed anyway are pinned and none after them.
    """
    if infer_ms is None:
        delay = request.delay
    else:
        total_ms = 2 * request.age_ms + queue_ms + infer_ms
        delay = math.ceil(total_ms / 1000 * request.control_hz - _SLACK)
    leftover = len(request.leftover)
    delay = min(delay, leftover, action_horizon - 1, action_horizon if most is None else most)
    execution_horizon = min(max(request.execution_horizon, delay, 1), action_horizon - delay)
    return PrefixPlan(
        delay=delay, horizon=max(delay, min(action_horizon - execution_horizon, leftover))
    )
