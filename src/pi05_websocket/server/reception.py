# SPDX-License-Identifier: Apache-2.0
"""Who comes in: key, room, load. The same before every kind of socket.

In: what a client says before its handshake, and what became of requests. Out: who it is, or its answer.
Runs on the event loop; decisions are `doorkeeper` and `admission`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pi05_websocket.server.admission import FULL, Admission
from pi05_websocket.server.backend import Delivery
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import forwarded_for
from pi05_websocket.server.keys import Refusal, RobotKey
from pi05_websocket.server.records import TurnedAway
from pi05_websocket.server.requests import Answered

__all__ = ["Guest", "Reception"]

logger = logging.getLogger(__name__)

_RETRY_UNREADY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who may come in."""

    path: str
    """With its query."""

    key: RobotKey | None = None
    forwarded: str | None = None
    """The address that a proxy saw."""

    @property
    def who(self) -> str:
        """The name of its key."""
        return "anonymous" if self.key is None else self.key.name


class Reception:
    """Lets clients in, or says why not."""

    def __init__(
        self,
        config: ServerConfig,
        doorkeeper: Doorkeeper,
        *,
        unready: Callable[[], str | None],
        full: Callable[[], bool],
        waits: Callable[[], Sequence[float]],
        tell: Callable[[TurnedAway], None],
    ) -> None:
        """Open it.

        Args:
            config: The bounds.
            doorkeeper: Knows the keys.
            unready: Says why nobody should come in now.
            full: Says whether as many are here as may be.
            waits: Says how long requests have been waiting, in seconds.
            tell: Told who was turned away.
        """
        self._config = config
        self._doorkeeper = doorkeeper
        self._unready = unready
        self._full = full
        self._waits = waits
        self._tell = tell
        self._admission = Admission(config)

    def change(self, config: ServerConfig) -> None:
        """Go over to other bounds; what is known of the load is forgotten."""
        self._config = config
        self._admission = Admission(config)

    def admit(
        self, *, path: str, authorization: Sequence[str], forwarded: Sequence[str], host: str = "?"
    ) -> Guest | Refusal:
        """Say who it is, or what to answer instead.

        Args:
            path: As the client wrote it, with its query.
            authorization: Its `Authorization` headers.
            forwarded: Its `X-Forwarded-For` headers: they count behind a proxy alone, for from anybody else
                they are what the client says.
            host: Its address, where it is known already.
        """
        seen = forwarded_for(forwarded) if self._config.behind_proxy else None
        admitted: RobotKey | Refusal | None = FULL
        if not self._full():  # who has no key is not told how busy the server is
            admitted = self._doorkeeper.admit(authorization, path)
        if not isinstance(admitted, Refusal):
            admitted = self.no_room() or admitted
        if not isinstance(admitted, Refusal):
            return Guest(path=path, key=admitted, forwarded=seen)
        logger.info(
            "a client was not let in from=%s: HTTP %d, %s",
            seen or host, admitted.status, admitted.cause,
        )  # fmt: skip
        self._tell(TurnedAway(reason=admitted.reason, why=admitted.cause))
        return admitted

    def no_room(self) -> Refusal | None:
        """Say why one more does not come in, whoever it is; None: it does."""
        unready = self._unready()
        if unready is not None:
            text = f"This policy server is not ready: {unready}.\n"
            return Refusal(503, text, unready, _RETRY_UNREADY_S, reason="unready")
        if self._full():
            return FULL
        return self._admission.refuse(time.perf_counter(), self._waits())

    def deliver(self, outcomes: Delivery) -> None:
        """Hand outcomes to their connections, and learn from them how busy the policy is."""
        now = time.perf_counter()
        for request, outcome in outcomes:
            if isinstance(outcome, Answered):
                self._admission.waited(now, outcome.queue_ms / 1000)
            request.connection.deliver(request, outcome)
