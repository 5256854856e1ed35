# SPDX-License-Identifier: Apache-2.0
"""For how long a connection has been silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.client.progress import Progress
from pi05_websocket.tcp_facts import Sent


@pytest.mark.parametrize(
    ("looks", "silent_s"),
    [
        ([(10, 0, 5)], 0),
        ([(10, 3, 5)], 0),  # the first look knows of nothing before it
        ([(10, 3, 5), (11, 3, 5)], 1),
        ([(10, 3, 5), (11, 3, 6)], 0),  # acknowledged
        ([(10, 3, 5), (11, 9, 5), (12, 9, 5)], 2),  # more was sent, nothing of it arrived
        # Nothing is on the way: it rests, or the server does not read.
        ([(10, 0, 5), (50, 0, 5)], 0),
        ([(10, 0, 5), (50, 1, 5)], 40),  # sent since the last look: look often
        ([(10, 3, 5), (11, 3, 5), (12, 0, 9), (13, 2, 9)], 1),
        ([(10, 3, 900), (11, 1, 0)], 0),  # another connection
    ],
)
def test_silence_is_what_is_on_the_way_and_not_acknowledged(
    looks: list[tuple[float, int, int]], silent_s: float
) -> None:
    """Since the last look at which something had arrived, or nothing was on the way."""
    progress = Progress()
    found = [progress.look(now, Sent(flight, acked)) for now, flight, acked in looks]
    assert found[-1] == silent_s


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_silence_never_outlasts_the_looks(looks: list[tuple[int, int]]) -> None:
    """A second a look, and none at one that shows progress."""
    progress, before = Progress(), -1
    for number, (flight, acked) in enumerate(looks):
        silent_s = progress.look(float(number), Sent(flight, acked))
        assert 0 <= silent_s <= number
        if acked != before or not flight:
            assert silent_s == 0
        before = acked
    assert repr(progress).startswith("<Progress acknowledged=")
