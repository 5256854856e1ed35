# SPDX-License-Identifier: Apache-2.0
"""What robots are answered where no upstream's reply is passed on. Pure.

In: a request and what happened. Out: OpenPI's form of an error, or a refusal to those who read them.
"""

from __future__ import annotations

from pi05_websocket.errors import (
    DeadlineExceeded,
    Pi05WebsocketError,
    PolicyError,
    ServerError,
    TransportError,
)
from pi05_websocket.server.one_line import in_one_line
from pi05_websocket.server.requests import Failed, Outcome, Refused, Request
from pi05_websocket.wire.refusals import Refusal, read_refusal

__all__ = ["failed", "lost", "outdated", "overdue", "passed_on", "too_late"]


def failed(request: Request, error: Exception) -> Failed:
    """Answer a request that is itself wrong, or that nobody could answer."""
    return Failed(text=request.protocol.error_text(error), cause=in_one_line(error))


def passed_on(request: Request, error: ServerError) -> Outcome:
    """Answer with what an upstream answered instead of a reply."""
    refusal = read_refusal(error.detail)
    if refusal is not None:
        return Refused(refusal=refusal)
    return Failed(text=request.protocol.passed_on(error), cause=str(error))


def lost(request: Request, error: Pi05WebsocketError) -> Outcome:
    """Answer a request whose upstream went away, and which is not asked for again."""
    if request.realtime is not None:
        text = "the server that worked on it went away, and no other could be asked"
        return Refused(refusal=Refusal(kind="busy", text=text))
    return failed(
        request,
        TransportError(
            f"the server behind this gateway went away while it worked on the request: {error}. "
            "Ask again; with a second --upstream the gateway does."
        ),
    )


def too_late(request: Request, now: float, expected_s: float, waiting: int) -> Refusal:
    """Refuse a request that cannot be answered in time any more."""
    assert request.deadline is not None
    had_s = request.deadline - request.arrived
    if had_s < expected_s:
        return Refusal(
            kind="late",
            text=f"its answer had to leave {had_s:.3f} s after it came, "
            f"and the servers take {expected_s:.3f} s",
        )
    return Refusal(
        kind="busy",
        text=f"its turn did not come within {now - request.arrived:.3f} s; {waiting} requests wait",
        retry_after_s=waiting * expected_s,
    )


def overdue(request: Request, now: float, allowed_s: float, waiting: int) -> Outcome:
    """Answer a request that has waited for longer than anybody should."""
    waited_s = now - request.arrived
    if request.realtime is not None:
        text = f"no server answered within {waited_s:.1f} s; {waiting} requests wait"
        return Refused(refusal=Refusal(kind="busy", text=text))
    return failed(
        request,
        DeadlineExceeded(
            "request",
            allowed_s,
            f"It waited {waited_s:.1f} s at the gateway (--max-wait-s): the servers behind it are gone, busy "
            "or stuck.",
        ),
    )


def outdated(request: Request) -> Failed:
    """Answer a robot that was told of a policy which is not served any more."""
    return failed(
        request,
        PolicyError(
            "the policy behind this server was replaced by another one since this connection was opened; "
            "connect again to be told what it expects"
        ),
    )
