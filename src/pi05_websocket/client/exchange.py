# SPDX-License-Identifier: Apache-2.0
"""One request and, in time, its reply: completed on the loop thread, read from any."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pi05_websocket.errors import DeadlineExceeded

__all__ = ["Exchange", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request."""

    value: Any
    """The decoded message, untrusted."""

    nbytes: int
    received_at: float
    """`time.monotonic()` seconds."""


class Exchange:
    """One request and, in time, its reply. Completed on the loop thread, read from any."""

    def __init__(
        self,
        seq: int,
        nbytes: int,
        limit: float,
        *,
        first: bool = False,
        quality: int | None = None,
    ) -> None:
        self.seq = seq
        self.nbytes = nbytes
        self.limit = limit
        """Seconds after which the reply counts as late."""
        self.first = first
        """Whether the server has never answered before: its model may be compiling."""
        self.quality = quality
        """Quality of its images as JPEG; None: they are raw."""
        self.sent_at = time.monotonic()
        self.future: Future[Reply] = Future()

    def __repr__(self) -> str:
        state = "done" if self.future.done() else f"waiting {self.age():.2f} s"
        return f"<Exchange {self.seq} {state}>"

    def age(self) -> float:
        """Return the seconds since the request was handed over."""
        return time.monotonic() - self.sent_at

    def done(self) -> bool:
        """Say whether `result` returns or raises at once."""
        return self.future.done()

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the reply.

        Raises:
            DeadlineExceeded: It did not come within `timeout`; it may still come.
            Pi05WebsocketError: It will not come, and why.
        """
        try:
            return self.future.result(timeout)
        except TimeoutError as exc:
            if isinstance(exc, DeadlineExceeded):  # the connection's own verdict, not ours
                raise
            raise self.late(timeout) from None

    def late(self, allowed_s: float | None = None) -> DeadlineExceeded:
        """Return the error that says it is late, and which setting allows more time.

        Args:
            allowed_s: How long it was waited for; None: its limit.
        """
        phase, setting = "request", "timeout"
        if self.first:
            phase, setting = "first request", "first_request_timeout"
        allowed_s = self.limit if allowed_s is None else allowed_s
        return DeadlineExceeded(phase, allowed_s, f"Raise `{setting}` if the model is that slow.")

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the exchange is done, on the loop thread, or at once if it is."""
        self.future.add_done_callback(lambda _: callback())
