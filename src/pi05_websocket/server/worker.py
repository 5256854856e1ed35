# SPDX-License-Identifier: Apache-2.0
"""The policy thread: takes one request after the other, decodes, infers, encodes.

In: requests, from the event loop. Out: outcomes, handed to `deliver` on the policy thread. The policy is
touched by this thread alone; all else stays on the event loop, which therefore never waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from pi05_websocket.errors import WireError
from pi05_websocket.policy import Policy, Result, realtime_inference
from pi05_websocket.server.mailbox import Mailbox
from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import split_realtime

__all__ = ["Answered", "Asker", "Failed", "Outcome", "PolicyWorker", "Refused", "Request"]

logger = logging.getLogger(__name__)


class Asker(Protocol):
    """Who sent a request, compared by identity."""

    def deliver(self, request: Request, outcome: Outcome, /) -> None:
        """Take the outcome of one request. Called on the event loop."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One observation that waits for its actions."""

    connection: Asker
    """Whose it is; requests of one connection are answered in order."""

    protocol: ServerProtocol
    payload: bytearray | str
    arrived: float
    """`time.perf_counter()` when its last byte was there."""

    refusal: str | None = None
    """The text to answer it with instead of asking the policy. It waits for its turn all the same: the n-th
    answer belongs to the n-th request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The reply to send."""

    message: bytes
    queue_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The error text to send; the connection is closed after it."""

    text: str
    cause: str
    """The last line of it, for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The text to send for a request that was not let through; the connection stays."""

    text: str


Outcome = Answered | Failed | Refused


class PolicyWorker:
    """Owns the policy's thread and the requests that wait for it. All methods are thread-safe."""

    def __init__(
        self,
        policy: Policy,
        deliver: Callable[[Request, Outcome], None],
        stopped: Callable[[], None],
    ) -> None:
        """Create the worker.

        Args:
            policy: What answers.
            deliver: Told each outcome, on the policy thread; hands it to the event loop.
            stopped: Told once that nothing more will come, on the policy thread.
        """
        self._policy = policy
        self._infer_realtime = realtime_inference(policy)
        self._deliver = deliver
        self._stopped = stopped
        self._mailbox: Mailbox[Request] = Mailbox()
        self._lock = threading.Lock()
        # One ring for each request, one for the end.
        self._doorbell: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        # A daemon: an inference that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="pi05-policy", daemon=True)

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "running" if self._thread.is_alive() else "idle"
        return f"<PolicyWorker {state} waiting={len(self._mailbox)}>"

    def start(self) -> None:
        """Start the policy thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn."""
        with self._lock:
            self._mailbox.push(request.connection, request)
        self._doorbell.put(None)

    def forget(self, connection: Hashable) -> None:
        """Drop what waits for a connection that is gone."""
        with self._lock:
            self._mailbox.drop(connection)

    def stop(self) -> None:
        """End the thread after the inference under way, whose outcome is still delivered."""
        self._stopping = True
        self._doorbell.put(None)

    def _run(self) -> None:
        while True:
            self._doorbell.get()
            if self._stopping:
                break
            with self._lock:
                request = self._mailbox.pop()
            if request is not None:  # else its connection is gone
                self._deliver(request, self._outcome(request))
                del request  # while waiting, keep no received message alive
        self._stopped()

    def _outcome(self, request: Request) -> Outcome:
        if request.refusal is not None:
            return Refused(text=request.refusal)
        queue_ms = (time.perf_counter() - request.arrived) * 1000
        try:
            message, infer_ms = self._answer(request, queue_ms)
        except BaseException as exc:  # whatever a policy raises belongs to this request alone
            cause = _in_one_line(exc)
            if isinstance(exc, WireError):
                logger.warning("request refused: %s", cause)
            else:
                logger.error("policy failed: %s", cause, exc_info=exc)
            return Failed(text=request.protocol.error_text(exc), cause=cause)
        return Answered(message=message, queue_ms=queue_ms, infer_ms=infer_ms)

    def _answer(self, request: Request, queue_ms: float) -> tuple[bytes, float]:
        observation = request.protocol.observation(request.payload)
        started = time.perf_counter()
        result = self._infer(observation, queue_ms)
        infer_ms = (time.perf_counter() - started) * 1000
        if not isinstance(result, Mapping):
            raise TypeError(
                f"{type(self._policy).__name__}.infer returned {type(result).__name__}, "
                'expected a dict such as {"actions": array of (action_horizon, action_dim)}'
            )
        return request.protocol.reply(result, infer_ms=infer_ms), infer_ms

    def _infer(self, observation: dict[str, Any], queue_ms: float) -> Result:
        """Ask the policy in the way the request wants it; one that knows no `_rt` gets the map as it came."""
        if self._infer_realtime is None:
            return self._policy.infer(observation)
        stock, realtime = split_realtime(observation)
        if realtime is None:
            return self._policy.infer(stock)
        return self._infer_realtime(stock, realtime, queue_ms)


def _in_one_line(exc: BaseException) -> str:
    """Return type and text, without the notes that JAX hangs on its errors."""
    try:
        text = str(exc).strip()
    except Exception:  # somebody else's `__str__`
        text = "(its text cannot be shown)"
    return f"{type(exc).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")
