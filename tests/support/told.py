# SPDX-License-Identifier: Apache-2.0
"""Records as a server tells them, with what does not matter filled in."""

from __future__ import annotations

from typing import Any

from pi05_websocket.server.records import Opened, RequestRecord, ServerState

__all__ = ["answered", "opened", "refused", "server_state"]


def opened(connection: int = 1, who: str = "arm", peer: str = "10.0.0.7:5000") -> Opened:
    """A client that has come."""
    return Opened(connection=connection, who=who, peer=peer, path="/")


def answered(at: float = 100.0, connection: int = 1, **changes: Any) -> RequestRecord:
    """A request that was answered at a time: 10 ms of queue, 50 of inference, 1 of the rest."""
    facts: dict[str, Any] = {
        "connection": connection,
        "number": 1,
        "outcome": "answered",
        "queue_ms": 10.0,
        "infer_ms": 50.0,
        "total_ms": 61.0,
        "bytes_in": 1000,
        "bytes_out": 100,
    }
    facts |= changes
    return RequestRecord(**facts, arrived=at - facts["total_ms"] / 1000)


def refused(
    why: str, at: float = 100.0, connection: int = 1, outcome: str = "refused", **changes: Any
) -> RequestRecord:
    """A request that was not answered."""
    facts = {"outcome": outcome, "why": why, "queue_ms": 61.0, "infer_ms": 0.0, "bytes_out": 0}
    return answered(at, connection, **(facts | changes))


def server_state(**changes: Any) -> ServerState:
    """A server that is ready."""
    facts: dict[str, Any] = {
        "at": 0.0,
        "unready": None,
        "paused": False,
        "draining": False,
        "can_pause": True,
        "waiting": 0,
        "unanswered": {},
        "metadata": {},
    }
    return ServerState(**(facts | changes))
