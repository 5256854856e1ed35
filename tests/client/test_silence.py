# SPDX-License-Identifier: Apache-2.0
"""When a silent connection is ended, on a clock that is turned by hand."""

from __future__ import annotations

from typing import Any

import pytest
from one_timer import Clock

from pi05_websocket.client.progress import Patience
from pi05_websocket.client.silence import SilenceWatch
from pi05_websocket.tcp_facts import Sent


class Link:
    """A connection of which it is known what was sent."""

    def __init__(self, round_trip_s: float = 0.0) -> None:
        self.round_trip_s = round_trip_s
        self.now = Sent(in_flight=3, acknowledged=7)
        self.silent_s = 0.0

    def sent(self) -> Sent:
        """Return it."""
        return self.now

    def vanished(self, silent_s: float) -> None:
        """Note it."""
        self.silent_s = silent_s


def watching(clock: Clock, link: Link, patience: Patience) -> SilenceWatch:
    """Return a watch at work."""
    loop: Any = clock
    watch = SilenceWatch(link, loop, patience)
    watch.works()
    watch.works()  # another request: no second look
    return watch


@pytest.mark.parametrize(("round_trip_s", "limit_s"), [(0.0, 1.0), (0.2, 1.8)])
def test_silence_ends_a_connection_once(round_trip_s: float, limit_s: float) -> None:
    """After a second and four round trips; then nobody looks any more."""
    clock, link = Clock(), Link(round_trip_s)
    watch = watching(clock, link, Patience(1.0))
    assert repr(watch) == "<SilenceWatch looking>"
    clock.run(limit_s - 0.05)
    assert link.silent_s == 0.0
    clock.run(0.2)
    assert link.silent_s == pytest.approx(limit_s, abs=0.11)
    assert clock.due is None


def test_progress_and_what_waits_here_are_no_silence() -> None:
    """Something is acknowledged now and then; or nothing is on the way, since the server does not read."""
    clock, link = Clock(), Link()
    watching(clock, link, Patience(1.0))
    for number in range(10):
        clock.run(0.9)
        link.now = Sent(in_flight=3, acknowledged=8 + number)
    link.now = Sent(in_flight=0, acknowledged=99)
    clock.run(60.0)
    assert link.silent_s == 0.0


def test_a_connection_that_rests_is_not_looked_at() -> None:
    """The next request begins anew."""
    clock, link = Clock(), Link()
    watch = watching(clock, link, Patience(1.0))
    clock.run(0.9)
    watch.rests()
    watch.rests()
    assert clock.due is None
    watch.works()
    clock.run(0.9)
    assert link.silent_s == 0.0


def test_each_renewal_without_an_answer_doubles_the_patience() -> None:
    """Up to a minute and some; an answer makes it short again; none at all is for ever."""
    patience = Patience(1.0)
    limits = []
    for _ in range(9):
        limits.append(patience.limit_s(0.25))
        patience.renewed()
    assert limits == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 128.0, 128.0]
    patience.answered()
    assert patience.limit_s(0.25) == 2.0
    assert repr(patience) == "<Patience 1 s>"
    assert Patience(None).limit_s(0.25) == float("inf")
