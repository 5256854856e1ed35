# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's `rtc` engine should tell a server that conditions, in this project's words. Pure.

In: the rows still to be executed, how long chunks took. Out: a `RealtimeRequest`. The engine's own
`inference_delay` is not used: it is a maximum that never forgets a slow first reply. Its configured
`execution_horizon` is H - s; ours is s, and it is measured here: ticks from one request to the next.
"""

from __future__ import annotations

import math

from pi05_websocket.chunks.delay import DelayEstimator
from pi05_websocket.chunks.travel import TravelEstimator
from pi05_websocket.data import Float32Array
from pi05_websocket.wire.realtime import RealtimeReply, RealtimeRequest

__all__ = ["RtcRequests"]


class RtcRequests:
    """Remembers delays and ways, for one robot.

    Args:
        control_hz: Ticks per second.
        deadline_ms: How old an answer may be to be of use.
    """

    def __init__(self, *, control_hz: float, deadline_ms: float) -> None:
        self._control_hz = control_hz
        self._deadline_ms = deadline_ms
        self._delay = DelayEstimator()
        self._travel = TravelEstimator()

    def __repr__(self) -> str:
        return f"<RtcRequests {self._delay!r} {self._travel!r}>"

    def request(self, seq: int, leftover: Float32Array, *, since_last: int) -> RealtimeRequest:
        """Return what to send.

        Args:
            seq: Number of the request.
            leftover: `(n, action_dim)`, row 0 for the observation's tick.
            since_last: Ticks since the observation before; before the first chunk 0.
        """
        delay = self._delay.ticks()
        half_a_tick_ms = 500.0 / self._control_hz
        return RealtimeRequest(
            seq=seq,
            leftover=leftover,
            delay=delay,
            execution_horizon=max(since_last, delay, 1),
            control_hz=self._control_hz,
            deadline_ms=self._deadline_ms,
            leftover_ms=1000.0 * len(leftover) / self._control_hz,
            # The engine's observation is up to a tick old when it asks. The server counts this time twice,
            # for the way here and the way back.
            age_ms=self._travel.one_way_ms() + half_a_tick_ms,
        )

    def answered(self, latency_s: float, reply: RealtimeReply | None) -> None:
        """Note a chunk that the engine takes, `latency_s` after it was asked for."""
        # One more: the tick of the observation itself, whose row the engine has taken before it asks.
        self._delay.add(math.ceil(latency_s * self._control_hz) + 1)
        if reply is not None:
            server_ms = reply.queue_ms + reply.infer_ms
            self._travel.add(round_trip_ms=1000 * latency_s, server_ms=server_ms)

    def expect_cold(self) -> None:
        """Note that the link was away, or a reply too late to be used."""
        self._delay.expect_cold()
