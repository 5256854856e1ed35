# SPDX-License-Identifier: Apache-2.0
"""When a resting connection is kept warm, and what its pongs find out, on a clock that is turned by hand."""

from __future__ import annotations

from typing import Any

import pytest
from one_timer import Clock

from pi05_websocket.client.keep_warm import KeepWarm, needs_warmth
from pi05_websocket.tcp_facts import Sent

RTT_S = 0.12


class Path:
    """A way to a kernel that acknowledges after a round trip, until it is cut."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sent_at: list[float] = []
        self.cut_at = float("inf")
        self.silent_s = 0.0

    def send_pong(self) -> None:
        """Note it."""
        self.sent_at.append(self._clock.now)

    def sent(self) -> Sent:
        """Return a segment of six bytes for each that is outstanding."""
        now, cut_at = self._clock.now, self.cut_at
        arrived = sum(at + RTT_S <= now and at + RTT_S / 2 < cut_at for at in self.sent_at)
        return Sent(in_flight=len(self.sent_at) - arrived, acknowledged=6 * arrived)

    def vanished(self, silent_s: float) -> None:
        """Note it."""
        self.silent_s = silent_s


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def path(clock: Clock) -> Path:
    """Return a path."""
    return Path(clock)


@pytest.fixture
def warm(clock: Clock, path: Path) -> KeepWarm:
    """Return what keeps it warm."""
    loop: Any = clock
    return KeepWarm(path, loop)


@pytest.mark.parametrize(
    ("connect_s", "congestion", "needs"),
    [
        (0.05, "cubic", True),
        (0.05, "reno", True),
        (0.05, "bbr", False),  # it remembers
        (0.05, "bbr2", False),
        (0.05, "", False),  # not Linux: nobody has measured it there
        (0.004, "cubic", False),  # near
        (None, "cubic", False),
    ],
)
def test_who_needs_it(connect_s: float | None, congestion: str, needs: bool) -> None:
    """A far server, and a congestion control that begins anew after a pause."""
    assert needs_warmth(connect_s, congestion) is needs


def test_pongs_while_nothing_is_under_way(clock: Clock, path: Path, warm: KeepWarm) -> None:
    """One every 50 ms, none during an exchange; a robot that asks no more is left alone after ten seconds."""
    warm.rests()
    warm.rests()
    assert repr(warm) == "<KeepWarm resting>"
    clock.run(0.8)
    assert len(path.sent_at) == 16
    warm.works()
    warm.works()
    assert repr(warm) == "<KeepWarm working>"
    clock.run(5.0)
    assert len(path.sent_at) == 16
    warm.rests()
    clock.run(60.0)
    assert len(path.sent_at) == pytest.approx(16 + 200, abs=1)
    assert (path.silent_s, clock.due) == (0.0, None)


@pytest.mark.parametrize("cut_after", [0.0, 3.0, 9.97])
def test_a_path_that_is_cut_is_noticed(
    clock: Clock, path: Path, warm: KeepWarm, cut_after: float
) -> None:
    """Ten seconds after the last acknowledgement, also when it was cut shortly before the last pong."""
    path.cut_at = clock.now + cut_after
    warm.rests()
    clock.run(cut_after + 9.9)
    assert path.silent_s == 0.0
    clock.run(0.4)
    assert path.silent_s == pytest.approx(10.0, abs=0.1)
    assert (warm._next, clock.due) == (None, None)
