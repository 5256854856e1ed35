# SPDX-License-Identifier: Apache-2.0
"""Who comes in while the server has much to do."""

from __future__ import annotations

from pi05_websocket.server.admission import Admission
from pi05_websocket.server.config import ServerConfig


def busy(seconds: float, *, count: int = 20, at: float = 100.0) -> Admission:
    """A server whose requests have waited so long."""
    admission = Admission(ServerConfig(max_queue_s=2.0))
    for _ in range(count):
        admission.waited(at, seconds)
    return admission


def test_an_idle_server_takes_everybody() -> None:
    """Nobody waits."""
    assert busy(0.0, count=0).refuse(100.0) is None


def test_a_busy_server_takes_nobody_else() -> None:
    """Those who are in would suffer for it; the answer says how long requests wait."""
    refusal = busy(2.5).refuse(101.0)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (503, 5.0)
    assert "requests wait 2.50 s" in refusal.text
    assert repr(busy(2.5)) == "<Admission waits=20>"


def test_a_few_waits_or_old_ones_say_nothing() -> None:
    """The first inference compiles; and what was a minute ago is over."""
    assert busy(60.0, count=7).refuse(100.0) is None
    assert busy(60.0).refuse(105.1) is None
    assert busy(1.9).refuse(100.0) is None


def test_whoever_waits_still_counts() -> None:
    """Of a policy that hangs no request is ever answered: those that wait say how long it takes."""
    hangs = busy(0.0, count=0)
    assert hangs.refuse(100.0, [1.9]) is None
    refusal = hangs.refuse(100.0, [0.5, 2.5, 30.0])
    assert refusal is not None
    assert "requests wait 2.50 s" in refusal.text


def test_one_that_waits_for_long_is_not_all() -> None:
    """Of a class that goes last, say, while the others are served."""
    assert busy(0.1).refuse(100.0, [60.0]) is None
    assert busy(0.1, count=7).refuse(100.0, [60.0]) is not None


def test_what_is_over_is_forgotten_without_anybody_asking() -> None:
    """Robots that stay for days let nobody else come, and their waits must not pile up."""
    admission = busy(1.0)
    admission.waited(200.0, 1.0)
    assert repr(admission) == "<Admission waits=1>"
