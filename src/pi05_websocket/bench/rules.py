# SPDX-License-Identifier: Apache-2.0
"""How peers play chunks, as they really do, reduced to what decides which row is executed when. Pure.

In, once per tick: what has arrived, and whether an observation may be sent. Out: the row to execute, or None.
tests/interop holds them against openpi-client's broker, tests/plugin against LeRobot's own queue.

    openpi      `ActionChunkBroker`: ask, wait, execute `execute` rows from the first, ask again
    lerobot     the sync engine: the same with the whole chunk (its `n_action_steps`)
    lerobot-rtc the rtc engine's thread and queue of LeRobot 0.6.1, for a policy that takes no prefix
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from pi05_websocket.data import Float32Array

__all__ = ["AskAndWait", "Played", "QueueEngine", "Rule"]

QUEUE_THRESHOLD = 30
"""`--inference.queue_threshold` of `lerobot-rollout`, its default."""


@dataclass(frozen=True, slots=True)
class Played:
    """One executed row."""

    values: Float32Array
    seq: int
    """Number of the observation it was planned from."""
    row: int


class Rule(Protocol):
    """Decides what is executed; is told the time in ticks."""

    def wants(self, tick: int) -> bool:
        """Say whether an observation taken now is to be sent."""

    def asked(self, seq: int, tick: int) -> None:
        """Note that it was."""

    def arrived(self, seq: int, rows: Float32Array, tick: int, latency_s: float) -> None:
        """Take the chunk for an observation, before `tick` is executed."""

    def play(self, tick: int) -> Played | None:
        """Return what to execute at `tick`; None: nothing is sent, the arm holds."""


class AskAndWait:
    """Blocks at every chunk: OpenPI's broker, and LeRobot's sync engine.

    Args:
        execute: Rows of each chunk to execute.
    """

    def __init__(self, execute: int) -> None:
        self._execute = execute
        self._chunk: Float32Array | None = None
        self._seq = -1
        self._row = 0
        self._waiting = False

    def __repr__(self) -> str:
        return f"<AskAndWait execute={self._execute}>"

    def wants(self, tick: int) -> bool:
        """Ask when the rows are used up."""
        return self._chunk is None and not self._waiting

    def asked(self, seq: int, tick: int) -> None:
        """Wait from now on."""
        self._waiting = True

    def arrived(self, seq: int, rows: Float32Array, tick: int, latency_s: float) -> None:
        """Begin at the first row, however old it is."""
        self._chunk, self._seq, self._row, self._waiting = rows, seq, 0, False

    def play(self, tick: int) -> Played | None:
        """Return the next row."""
        if self._chunk is None:
            return None
        played = Played(self._chunk[self._row], self._seq, self._row)
        self._row += 1
        if self._row >= min(self._execute, len(self._chunk)):
            self._chunk = None
        return played


class QueueEngine:
    """LeRobot 0.6.1's `rtc` engine: asks whenever its queue is at or below a threshold, replaces it on arrival.

    Source: `rollout/inference/rtc.py` (`_rtc_loop`), `policies/rtc/action_queue.py` (`merge`): of a new chunk
    `ceil(latency * fps)` rows are dropped, whether or not the arm moved meanwhile.

    Args:
        control_hz: Its `fps`.
        threshold: Its `queue_threshold`.
    """

    def __init__(self, control_hz: float, threshold: int = QUEUE_THRESHOLD) -> None:
        self._hz = control_hz
        self._threshold = threshold
        self._queue: Float32Array | None = None
        self._seq = -1
        self._dropped = 0
        self._index = 0
        self._waiting = False

    def __repr__(self) -> str:
        return f"<QueueEngine threshold={self._threshold} left={self._left}>"

    @property
    def _left(self) -> int:
        return 0 if self._queue is None else len(self._queue) - self._index

    def wants(self, tick: int) -> bool:
        """Ask at or below the threshold; one request at a time, on one thread."""
        return not self._waiting and self._left <= self._threshold

    def asked(self, seq: int, tick: int) -> None:
        """Wait for it."""
        self._waiting = True

    def arrived(self, seq: int, rows: Float32Array, tick: int, latency_s: float) -> None:
        """Replace the queue by what the latency leaves of the chunk."""
        self._waiting = False
        self._dropped = min(math.ceil(latency_s * self._hz), len(rows))
        self._queue, self._seq, self._index = rows[self._dropped :], seq, 0

    def play(self, tick: int) -> Played | None:
        """Return the queue's next row; None when it is empty, and LeRobot sends nothing."""
        if self._queue is None or not self._left:
            return None
        played = Played(self._queue[self._index], self._seq, self._dropped + self._index)
        self._index += 1
        return played
