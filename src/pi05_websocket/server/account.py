# SPDX-License-Identifier: Apache-2.0
"""What is known of one connection: told to those who watch, and left as a line in the log when it ends.

In: who it is, its requests and what became of them. Out: records and log lines, the same on every kind of
socket. Runs on the event loop.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from pi05_websocket.server.open_connections import OpenConnections
from pi05_websocket.server.records import Closed, Opened, RequestRecord
from pi05_websocket.server.requests import Answered, Done, Failed, Outcome, Refused, Request

__all__ = ["Account", "age_ms", "said_for"]

logger = logging.getLogger(__name__)

_LONGEST_WHY = 200


class Account:
    """One connection's figures."""

    def __init__(self, connections: OpenConnections[Any], *, who: str, path: str) -> None:
        self._connections = connections
        self._opened_at = time.monotonic()
        self.number = connections.next_number()
        self.who = who
        self.path = path
        self.peer = "?"
        self.why: str | None = None
        """Why it ends, as far as is known; the first reason counts."""

        self.exchanges = 0
        self.requests = 0
        self.refused = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def __repr__(self) -> str:
        return f"<Account {self.number} {self.peer} exchanges={self.exchanges}>"

    def opened(self, peer: str) -> None:
        """Note that its handshake is done."""
        self.peer = peer
        logger.info("connection %d from %s opened by %s", self.number, peer, self.who)
        self._connections.tell(
            Opened(connection=self.number, who=self.who, peer=peer, path=self.path)
        )

    def asked(self, nbytes: int) -> None:
        """Note a request."""
        self.requests += 1
        self.bytes_in += nbytes

    def ends(self, why: str | None) -> None:
        """Note why it ends."""
        self.why = self.why or why

    def settled(self, request: Request, outcome: Outcome) -> None:
        """Note what became of a request; a request for no actions leaves no trace."""
        if isinstance(outcome, Answered):
            self._answered(request, outcome)
        elif not isinstance(outcome, Done):
            self.refused += isinstance(outcome, Refused)
            self._unanswered(request, outcome)

    def closed(self) -> None:
        """Note that it is gone."""
        why = (self.why or "lost: no goodbye")[:_LONGEST_WHY]
        # What clients say is quoted: it must not look like lines of ours.
        logger.info(
            "connection %d closed who=%s from=%r seconds=%.1f requests=%d answered=%d refused=%d bytes_in=%d "
            "bytes_out=%d why=%r",
            self.number, self.who, self.peer, time.monotonic() - self._opened_at, self.requests, self.exchanges,
            self.refused, self.bytes_in, self.bytes_out, why,
        )  # fmt: skip
        self._connections.tell(Closed(connection=self.number, why=why))

    # -------------------------------------------------------------------------------------------------

    def _answered(self, request: Request, answered: Answered) -> None:
        self.exchanges += 1
        total_ms = age_ms(request)
        request.protocol.reply_sent(total_ms=total_ms)
        logger.debug(
            "exchange connection=%d id=%d batch=%d queue_ms=%.2f infer_ms=%.2f total_ms=%.2f bytes_in=%d "
            "bytes_out=%d",
            self.number, self.exchanges, answered.batch, answered.queue_ms, answered.infer_ms, total_ms,
            len(request.payload), len(answered.message),
        )  # fmt: skip
        if self._connections.watched:
            self._connections.tell(
                RequestRecord(
                    **_facts_of(request, total_ms),
                    outcome="answered",
                    queue_ms=answered.queue_ms,
                    infer_ms=answered.infer_ms,
                    batch=answered.batch,
                    bytes_out=len(answered.message),
                    actions=answered.actions,
                )
            )

    def _unanswered(self, request: Request, outcome: Failed | Refused) -> None:
        if not self._connections.watched:
            return
        total_ms = age_ms(request)
        why = outcome.cause if isinstance(outcome, Failed) else outcome.refusal.kind
        self._connections.tell(
            RequestRecord(
                **_facts_of(request, total_ms),
                outcome="failed" if isinstance(outcome, Failed) else "refused",
                why=why[:_LONGEST_WHY],
                queue_ms=total_ms,
            )
        )


def said_for(request: Request, outcome: Failed | Refused | Done) -> bytes | str | None:
    """Return what is sent in the place of actions, in the client's dialect; None: nothing."""
    if isinstance(outcome, Done):
        return outcome.message
    if isinstance(outcome, Refused):
        return request.protocol.refusal_message(outcome.refusal, request.tag)
    return outcome.text if outcome.message is None else outcome.message


def age_ms(request: Request) -> float:
    """Return how long ago its last byte came."""
    return (time.perf_counter() - request.arrived) * 1000


def _facts_of(request: Request, total_ms: float) -> dict[str, Any]:
    """Return what a record says of a request whatever became of it."""
    said, due = request.realtime, request.due
    return {
        "connection": request.connection.number,
        "number": request.number,
        "arrived": request.arrived,
        "total_ms": total_ms,
        "bytes_in": len(request.payload),
        "age_ms": None if said is None else said.age_ms,
        "due_ms": None if due is None else (due - request.arrived) * 1000,
        "traceparent": None if said is None else said.traceparent,
        "observation": request.observation or None,
    }
