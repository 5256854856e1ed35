# SPDX-License-Identifier: Apache-2.0
"""What the rtc engine's chunks tell a server that conditions."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot

from lerobot_policy_pi05_websocket.rtc_requests import RtcRequests  # noqa: E402
from pi05_websocket.wire.realtime import RealtimeReply  # noqa: E402

ROWS = np.ones((4, 2), np.float32)


def reply(infer_ms: float) -> RealtimeReply:
    """Return what a server says that had no queue."""
    return RealtimeReply(seq=1, delay=3, prefix="guided", queue_ms=0.0, infer_ms=infer_ms)


def test_before_any_chunk_nothing_is_claimed():
    """No delay is known, and a takeover a tick later is the least that makes sense."""
    request = RtcRequests(control_hz=20, deadline_ms=500).request(7, ROWS[:0], since_last=0)

    assert (request.seq, request.delay, request.execution_horizon) == (7, 0, 1)
    assert (request.control_hz, request.deadline_ms) == (20, 500)
    assert request.age_ms == 25.0  # half a tick


def test_the_delay_counts_the_observations_own_tick():
    """100 ms at 20 Hz are two ticks after the one observed."""
    requests = RtcRequests(control_hz=20, deadline_ms=500)
    for _ in range(3):
        requests.answered(0.1, reply(60.0))

    request = requests.request(8, ROWS, since_last=10)

    assert request.delay == 3
    assert request.execution_horizon == 10  # s, measured; not LeRobot's H - s
    assert request.age_ms == pytest.approx(20.0 + 25.0)  # half of what the server did not take


def test_a_slow_first_chunk_is_forgotten():
    """A server that compiles for five seconds once must not be taken for slow for ever."""
    requests = RtcRequests(control_hz=20, deadline_ms=500)
    requests.answered(5.0, reply(4900.0))
    requests.answered(0.1, reply(60.0))
    requests.expect_cold()
    requests.answered(3.0, None)

    assert requests.request(9, ROWS, since_last=1).delay == 3
    assert "ticks=3" in repr(requests)


def test_the_takeover_comes_no_sooner_than_the_answer():
    """However few ticks lie between two requests, s is never below d."""
    requests = RtcRequests(control_hz=20, deadline_ms=500)
    requests.answered(0.3, None)

    assert requests.request(2, ROWS, since_last=2).execution_horizon == 7
