# SPDX-License-Identifier: Apache-2.0
"""The machine's clock and deadlines."""

from __future__ import annotations

import math
import time

import pytest

from pi05_websocket.clock import SYSTEM_CLOCK, Deadline, SystemClock


def test_system_clock_advances_by_sleeping() -> None:
    """Sleeping takes at least as long as it says; nothing and less return at once."""
    before = SYSTEM_CLOCK.now()
    SYSTEM_CLOCK.sleep(0.001)
    SYSTEM_CLOCK.sleep(0.0)
    SYSTEM_CLOCK.sleep(-1.0)
    assert SYSTEM_CLOCK.now() - before >= 0.001


def test_time_goes_on_while_the_machine_is_suspended() -> None:
    """From when the clock was made on; what two clocks differ by a moment is no sleep."""
    slept = 500.0
    clock = SystemClock(lambda: slept)
    assert clock.now() == pytest.approx(time.monotonic(), abs=0.05)
    slept += 0.01
    assert clock.now() == pytest.approx(time.monotonic(), abs=0.005)
    slept += 60.0
    assert clock.now() - time.monotonic() == pytest.approx(60.0, abs=0.05)


@pytest.mark.parametrize(
    ("now", "left", "passed"), [(10.0, 5.0, False), (14.0, 1.0, False), (15.0, 0.0, True), (20.0, 0.0, True)]
)  # fmt: skip
def test_deadline_counts_down(now: float, left: float, passed: bool) -> None:
    """A deadline says how long is left, never less than nothing, and when it has passed."""
    deadline = Deadline.after(5.0, 10.0)
    assert deadline.left(now) == left
    assert deadline.passed(now) is passed


def test_no_timeout_never_passes() -> None:
    """Without a timeout the deadline never comes."""
    deadline = Deadline.after(None, 10.0)
    assert deadline.left(1e12) == math.inf
    assert not deadline.passed(1e12)
