# SPDX-License-Identifier: Apache-2.0
"""What the control side wants of a policy it can ask without waiting. `RemotePolicy` is one."""

from __future__ import annotations

from typing import Any, Protocol

from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import DeadlineExceeded, Pi05WebsocketError

__all__ = ["PendingExchange", "PendingReply", "RequestPolicy"]


class PendingReply(Protocol):
    """What a finished exchange holds."""

    @property
    def value(self) -> Any:
        """The decoded message, untrusted."""

    @property
    def nbytes(self) -> int:
        """Its size on the wire."""

    @property
    def received_at(self) -> float:
        """When it came, in monotonic seconds."""


class PendingExchange(Protocol):
    """A request under way, as `RemotePolicy.submit` returns it."""

    @property
    def limit(self) -> float:
        """Seconds after which the reply counts as late."""

    @property
    def nbytes(self) -> int:
        """The request's size on the wire."""

    @property
    def sent_at(self) -> float:
        """When it was handed over, in monotonic seconds."""

    def done(self) -> bool:
        """Say whether `result` returns or raises at once."""

    def late(self) -> DeadlineExceeded:
        """Return the error that says it is late, and which setting allows more time."""

    def age(self) -> float:
        """Return the seconds since the request was handed over."""

    def result(self, timeout: float | None = None) -> PendingReply:
        """Return the reply or raise why there is none."""


class RequestPolicy(Protocol):
    """A policy that can be asked without waiting."""

    @property
    def metadata(self) -> ServerMetadata:
        """What the server says about itself; `{}` while it is not known."""

    def submit(self, observation: Observation, /) -> PendingExchange:
        """Send an observation and return at once."""

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return why no request can be sent now, or None."""
