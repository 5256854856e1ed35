# SPDX-License-Identifier: Apache-2.0
"""When the server reads no further from a connection, and when the connection has to go."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.server import ServerConfig
from pi05_websocket.server.backlog import Backlog


def backlog(*, reads_ahead: bool = False, **settings: Any) -> Backlog:
    """An empty one."""
    return Backlog(ServerConfig(**settings), reads_ahead=reads_ahead)


def test_it_is_full_by_requests_or_by_bytes() -> None:
    """And has room again with the first answer."""
    by_requests = backlog(max_queued_requests=2)
    for _ in range(2):
        assert not by_requests.full
        assert by_requests.add(10) is None
    assert by_requests.full
    by_requests.remove(10)
    assert not by_requests.full
    by_bytes = backlog(max_queued_bytes=1024)
    assert by_bytes.add(1024) is None
    assert by_bytes.full
    assert repr(by_bytes) == "<Backlog requests=1 bytes=1024>"


def test_requests_at_once_are_counted() -> None:
    """The setting's number may wait, one more may not."""
    mine = backlog(max_pipelined_requests=3)
    assert [mine.add(1) for _ in range(3)] == [None] * 3
    assert mine.add(1) == "more than 3 requests at once"


@pytest.mark.parametrize(
    ("settings", "size", "allowed"),
    [({"max_queued_requests": 2}, 1, 3), ({"max_queued_bytes": 1024}, 600, 3)],
)
def test_who_cannot_be_slowed_down_goes_at_twice_the_bound(
    settings: dict[str, Any], size: int, allowed: int
) -> None:
    """What was read for us is in our memory; who can be slowed down stays."""
    ahead, mine = backlog(reads_ahead=True, **settings), backlog(**settings)
    for _ in range(allowed):
        assert ahead.add(size) is None
    assert str(ahead.add(size)).endswith("requests, or their bytes, wait unanswered")
    assert [mine.add(size) for _ in range(allowed + 1)] == [None] * (allowed + 1)
