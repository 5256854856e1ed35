# SPDX-License-Identifier: Apache-2.0
"""How many rows a server pins, and how it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.prefix import InferenceTime, PrefixPlan, late_bound
from pi05_websocket.wire.realtime import RealtimeRequest


def asked(*, rows: int = 50, **fields: Any) -> RealtimeRequest:
    """A request with `rows` rows of leftover at 30 Hz."""
    defaults: dict[str, Any] = {"delay": 4, "execution_horizon": 10, "control_hz": 30.0}
    leftover = np.zeros((rows, 6), np.float32)
    return RealtimeRequest(seq=1, leftover=leftover, **(defaults | fields))


@pytest.mark.parametrize(
    ("age_ms", "queue_ms", "infer_ms", "delay"),
    [
        (0.0, 0.0, 0.0, 0),
        (0.0, 0.0, 100.0, 3),  # exactly three ticks
        (0.0, 0.0, 100.1, 4),
        (50.0, 0.0, 100.0, 6),  # the way here counts twice: there is a way back
        (50.0, 200.0, 100.0, 12),  # what the robot could not know: it waited
        (0.0, 0.0, 5000.0, 49),
    ],
)
def test_the_delay_is_bound_when_inference_starts(
    age_ms: float, queue_ms: float, infer_ms: float, delay: int
) -> None:
    """Age, queue, inference and the way back, in whole ticks."""
    plan = late_bound(asked(age_ms=age_ms), queue_ms=queue_ms, infer_ms=infer_ms, action_horizon=50)
    assert plan.delay == delay


def test_the_robots_estimate_stands_before_the_first_inference() -> None:
    """A server that has measured nothing believes the robot."""
    plan = late_bound(asked(delay=7), queue_ms=900.0, infer_ms=None, action_horizon=50)
    assert plan.delay == 7


@pytest.mark.parametrize(
    ("fields", "most", "expected"),
    [
        ({"delay": 9, "rows": 5}, None, PrefixPlan(5, 5)),  # no more than there is
        ({"delay": 9}, 6, PrefixPlan(6, 40)),  # no more than the policy was trained for
        ({"delay": 4, "rows": 0}, None, PrefixPlan(0, 0)),
        ({"delay": 4, "execution_horizon": 0}, None, PrefixPlan(4, 46)),  # s >= d
        ({"delay": 4, "execution_horizon": 10, "rows": 20}, None, PrefixPlan(4, 20)),
        ({"delay": 4, "execution_horizon": 200}, None, PrefixPlan(4, 4)),  # s <= H - d
        ({"delay": 30, "execution_horizon": 30}, None, PrefixPlan(30, 30)),  # d > H / 2
        ({"delay": 60, "rows": 60}, None, PrefixPlan(49, 49)),
    ],
)
def test_what_cannot_be_pinned_is_not(
    fields: dict[str, Any], most: int | None, expected: PrefixPlan
) -> None:
    """The plan keeps within the leftover, the chunk, the policy and the paper's bounds."""
    plan = late_bound(asked(**fields), queue_ms=0.0, infer_ms=None, action_horizon=50, most=most)
    assert plan == expected


@given(
    rows=st.integers(0, 120),
    delay=st.integers(0, 200),
    execution_horizon=st.integers(0, 200),
    infer_ms=st.none() | st.floats(0, 10_000),
    action_horizon=st.integers(1, 100),
    most=st.none() | st.integers(0, 100),
)
def test_a_plan_always_fits(
    rows: int,
    delay: int,
    execution_horizon: int,
    infer_ms: float | None,
    action_horizon: int,
    most: int | None,
) -> None:
    """Whatever is asked, pinned rows exist, and none is followed that is not there."""
    plan = late_bound(
        asked(rows=rows, delay=delay, execution_horizon=execution_horizon),
        queue_ms=3.0,
        infer_ms=infer_ms,
        action_horizon=action_horizon,
        most=most,
    )
    assert 0 <= plan.delay <= plan.horizon <= min(rows, action_horizon)
    assert plan.delay < action_horizon
    assert most is None or plan.delay <= most


def test_the_first_inference_is_forgotten() -> None:
    """It compiles; the ones after it do not."""
    time = InferenceTime()
    assert time.ms() is None
    time.add(9000.0)
    assert time.ms() == 9000.0
    time.add(80.0)
    assert time.ms() == 80.0
    assert repr(time) == "<InferenceTime 80.0 ms>"


def test_one_slow_inference_does_not_count() -> None:
    """The median of the last ones is what the next will take."""
    time = InferenceTime(window=3)
    for ms in (1.0, 80.0, 2000.0, 90.0):
        time.add(ms)
    assert time.ms() == 90.0
