# SPDX-License-Identifier: Apache-2.0
"""When a resting connection is kept warm, and what its pongs find out, on a clock that is turned by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from pi05_websocket.client.keep_warm import KeepWarm, needs_warmth, unacknowledged

RTT_S = 0.12


class Clock:
    """What `KeepWarm` needs of an event loop: the time, and one timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        """Return seconds."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Clock:
        """Set the timer."""
        self.due = (self.now + delay, callback)
        return self

    def cancel(self) -> None:
        """Unset it."""
        self.due = None

    def run(self, seconds: float) -> None:
        """Turn on."""
        end = self.now + seconds
        while self.due is not None and self.due[0] <= end:
            (self.now, callback), self.due = self.due, None
            callback()
        self.now = end


class Path:
    """A way to a kernel that acknowledges after a round trip, until it is cut."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sent_at: list[float] = []
        self.cut_at = float("inf")
        self.gone = ""

    def send_pong(self) -> None:
        """Note it."""
        self.sent_at.append(self._clock.now)

    def unacknowledged(self) -> int:
        """Return six bytes for each that is outstanding."""
        now, cut_at = self._clock.now, self.cut_at
        return 6 * sum(not (at + RTT_S <= now and at + RTT_S / 2 < cut_at) for at in self.sent_at)

    def vanished(self, why: str) -> None:
        """Note it."""
        self.gone = why


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
    assert (path.gone, clock.due) == ("", None)


@pytest.mark.parametrize("cut_after", [0.0, 3.0, 9.97])
def test_a_path_that_is_cut_is_noticed(
    clock: Clock, path: Path, warm: KeepWarm, cut_after: float
) -> None:
    """Ten seconds after the last acknowledgement, also when it was cut shortly before the last pong."""
    path.cut_at = clock.now + cut_after
    warm.rests()
    clock.run(cut_after + 9.9)
    assert path.gone == ""
    clock.run(0.4)
    assert path.gone == "the server's machine has acknowledged nothing for 10 s"
    assert (warm._next, clock.due) == (None, None)


def test_what_waits_in_a_send_queue_is_seen() -> None:
    """Bytes that nobody has taken yet, and none of a socket that is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as sock:
            sock.setblocking(False)
            assert unacknowledged(sock) == 0
            sent = sum(iter(lambda: _as_much_as_fits(sock), 0))
            assert 0 < unacknowledged(sock) <= sent
        assert unacknowledged(sock) == 0


def _as_much_as_fits(sock: socket.socket) -> int:
    try:
        return sock.send(bytes(65536))
    except BlockingIOError:
        return 0
