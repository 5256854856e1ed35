# SPDX-License-Identifier: Apache-2.0
"""The benchmark's rule for LeRobot's rtc engine against LeRobot's own queue."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.policies.rtc.action_queue import ActionQueue
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from pi05_websocket.bench.rules import QUEUE_THRESHOLD, QueueEngine


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    latencies=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=8),
)
def test_the_queue_gives_the_same_rows(rows: int, latencies: list[float]):
    """Whatever the latencies, every tick takes the same row, or none, from both."""
    hz = 30.0
    theirs = ActionQueue(RTCConfig(enabled=True))
    ours = QueueEngine(hz)
    tick, number = 0, 0
    waiting: tuple[float, int, int] | None = None
    for latency in latencies:
        for _ in range(rows + 5):
            if waiting is not None and tick / hz >= waiting[0]:
                chunk = (100 * number + np.arange(rows, dtype=np.float32))[:, None]
                theirs.merge(
                    torch.from_numpy(chunk),
                    torch.from_numpy(chunk),
                    math.ceil(latency * hz),
                    waiting[2],
                )
                ours.arrived(number, chunk, tick, latency)
                waiting = None
                number += 1
            if waiting is None:
                assert ours.wants(tick) == (theirs.qsize() <= QUEUE_THRESHOLD)
            if waiting is None and ours.wants(tick):
                ours.asked(number, tick)
                waiting = (tick / hz + latency, tick, theirs.get_action_index())
            expected, played = theirs.get(), ours.play(tick)
            assert (played is None) == (expected is None)
            if played is not None and expected is not None:
                assert float(played.values[0]) == float(expected[0])
            tick += 1
