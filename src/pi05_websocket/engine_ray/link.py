# SPDX-License-Identifier: Apache-2.0
"""An ingress's way to the replicas of one policy application: deadline, another replica, order, refusals.

In: requests of any number of robots, from the event loop. Out: their outcomes, each robot's in order. Each
request is asked of one replica, and of another where that dies or does not answer in time; the first answer
counts. Nothing is decoded. Knows nothing of Ray: `Calls` does the asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pi05_websocket.engine_ray.config import LinkSettings
from pi05_websocket.engine_ray.ejection import Replicas
from pi05_websocket.engine_ray.messages import Answer, Ask, Description, reads_refusals
from pi05_websocket.engine_ray.retries import replica_retries
from pi05_websocket.engine_ray.tickets import Ticket
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.server.backend import Deliver
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.requests import Asker, Failed, Outcome, Refused, Request
from pi05_websocket.wire import codec
from pi05_websocket.wire.refusals import Refusal

__all__ = ["AskFailed", "Busy", "Calls", "PolicyLink", "ReplicaLost"]

logger = logging.getLogger(__name__)

_DESCRIBE_EVERY_S = 5.0
_DESCRIBE_AGAIN_S = 0.5
_DESCRIBE_TIMEOUT_S = 5.0
_UNHEARD = 3
"""So often in a row nobody said what the application is: it was taken down, or all of it is stuck."""
_RETRY_BUSY_S = 0.25
_RETRY_LOST_S = 0.05


class ReplicaLost(Exception):
    """The replica that was asked is gone, and the request with it."""


class Busy(Exception):
    """More requests wait than the application lets wait."""


class AskFailed(Pi05WebsocketError):
    """No replica answers; nobody can say more about this request."""


class Calls(Protocol):
    """Asks an application. Raises `ReplicaLost`, `Busy`, or whatever else went wrong."""

    async def ask(self, payload: bytes | str, said: dict[str, Any], ticket: Ticket) -> Any:
        """Ask one replica; note in the ticket which."""

    async def describe(self) -> Mapping[str, Any]:
        """Ask any replica what the application is."""


@dataclass(slots=True, eq=False)
class _Line:
    """The requests of one connection, in order."""

    requests: deque[Request] = field(default_factory=deque)
    outcomes: dict[Request, Outcome] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    before: str | None = None


class PolicyLink:
    """A server's backend whose policy is somewhere in the cluster. On one event loop."""

    def __init__(
        self,
        calls: Calls,
        replicas: Replicas,
        settings: LinkSettings,
        config: ServerConfig,
        deliver: Deliver,
        stopped: Callable[[], None],
        *,
        name: str,
    ) -> None:
        """Prepare it.

        Args:
            calls: Asks the application.
            replicas: What is known of its replicas; `calls` chooses by it.
            settings: What is expected of them.
            config: The server's.
            deliver: Told outcomes.
            stopped: Told once that nothing more will come.
            name: This ingress's, unique in the cluster: sessions are named after it.
        """
        self._calls = calls
        self._replicas = replicas
        self._settings = settings
        self._config = config
        self._deliver = deliver
        self._stopped = stopped
        self._name = name
        self._budget = replica_retries(settings.retry_share)
        self._lines: dict[Hashable, _Line] = {}
        self._waiting = 0
        self._answered_once = False
        self._description: Description | None = None
        self._unheard = 0
        self._metadata: dict[str, Any] = {}
        self._stale = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<PolicyLink {self._name} waiting={self._waiting} {self._replicas!r}>"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the application says of itself; empty until it has."""
        return self._metadata

    @property
    def waiting(self) -> int:
        """How many requests are not answered."""
        return self._waiting

    def waits(self) -> Sequence[float]:
        """Return nothing: requests wait at replicas, and one that hangs is left out and tells of itself."""
        return ()

    @property
    def unready(self) -> str | None:
        """Why nobody should come in now."""
        if self._description is None or self._unheard >= _UNHEARD:
            return "no replica of its policy answers"
        return None

    def start(self) -> None:
        """Begin to ask what the application is."""
        self._tasks.append(self._task(self._keep_described()))

    def change(self, settings: LinkSettings, config: ServerConfig) -> None:
        """Go over to other settings, for requests from now on."""
        if settings.retry_share != self._settings.retry_share:
            self._budget = replica_retries(settings.retry_share)
        self._settings = settings
        self._config = config

    def submit(self, request: Request) -> None:
        """Ask for an answer."""
        line = self._lines.setdefault(request.connection, _Line())
        line.requests.append(request)
        self._waiting += 1
        if request.refusal is not None:
            self._settle(line, request, Refused(refusal=request.refusal))
            return
        self._budget.earn()
        task = self._task(self._answer(line, request))
        line.tasks.add(task)
        task.add_done_callback(line.tasks.discard)

    def forget(self, connection: Hashable) -> None:
        """Ask no more for a connection that is gone."""
        line = self._lines.pop(connection, None)
        if line is None:
            return
        self._waiting -= len(line.requests)
        line.requests.clear()
        for task in tuple(line.tasks):
            task.cancel()

    def refuse_overdue(self) -> None:
        """Nothing: each request has its own clock."""

    def stop(self) -> None:
        """Answer what was asked, and take nothing more."""
        if self._stopping:
            return
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        self._tasks.append(self._task(self._stop_when_answered()))

    # -------------------------------------------------------------------------------------- one request

    async def _answer(self, line: _Line, request: Request) -> None:
        try:
            async with asyncio.timeout(self._config.max_wait_s):
                outcome = await self._outcome(line, request)
        except TimeoutError:
            outcome = self._busy(request, "no replica answered in time", self._config.max_wait_s)
        except Busy:
            outcome = self._busy(request, "as many requests wait as may", _RETRY_BUSY_S)
        except Exception as exc:
            logger.error("a request has no answer: %r", exc)
            outcome = _failed(request, exc)
        self._settle(line, request, outcome)

    async def _outcome(self, line: _Line, request: Request) -> Outcome:
        calls: dict[asyncio.Task[Answer], Ticket] = {}
        tried: list[str] = []
        more = self._settings.retries
        try:
            self._ask(line, request, calls, tried)
            while True:
                done, _ = await asyncio.wait(
                    calls,
                    timeout=self._patience,  # also where nobody else is asked: who is slow is left out
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    self._too_slow(calls, tried)
                for task in done:
                    ticket = calls.pop(task)
                    answer = await self._answer_of(task, ticket, tried)
                    if answer is not None:
                        line.before = ticket.replica
                        return answer.outcome()
                if not calls and not more:
                    raise AskFailed(f"{len(tried)} replicas of the policy died with this request")
                if more and self._another_is_due(calls, tried):
                    more -= 1
                    self._ask(line, request, calls, tried)
        finally:
            for task in calls:
                task.cancel()

    @property
    def _patience(self) -> float:
        settings = self._settings
        return settings.deadline_s if self._answered_once else settings.first_deadline_s

    def _another_is_due(self, calls: Mapping[Any, Ticket], tried: list[str]) -> bool:
        """Whether nobody is asked any more, or all have had their time and it may be tried again."""
        slow = all(ticket.replica in tried for ticket in calls.values())
        return not calls or (slow and self._budget.spend())

    def _ask(
        self,
        line: _Line,
        request: Request,
        calls: dict[asyncio.Task[Answer], Ticket],
        tried: list[str],
    ) -> None:
        ticket = Ticket(tried=tuple(tried), before=line.before)
        ask = Ask(
            session=f"{self._name}:{request.connection.number}",
            number=request.number,
            waited_ms=(time.perf_counter() - request.arrived) * 1000,
            priority=request.priority,
            debug=request.protocol.debug,
            prev_total_ms=request.protocol.prev_total_ms,
            dialect=request.protocol.dialect.name,
        )
        payload = request.payload
        raw = bytes(payload) if isinstance(payload, bytearray) else payload
        calls[self._task(self._call(raw, ask, ticket))] = ticket

    async def _call(self, payload: bytes | str, ask: Ask, ticket: Ticket) -> Answer:
        try:
            return Answer.from_map(await self._calls.ask(payload, ask.to_map(), ticket))
        finally:
            if ticket.replica is not None:
                self._replicas.done(ticket.replica)

    async def _answer_of(
        self, task: asyncio.Task[Answer], ticket: Ticket, tried: list[str]
    ) -> Answer | None:
        """Return what came of a call; None when another replica is to be asked."""
        # A call that was cancelled without our doing went down with its replica.
        error = ReplicaLost("the call was cut off") if task.cancelled() else task.exception()
        if error is None:
            answer = task.result()
            if ticket.replica is not None:
                self._replicas.answered(ticket.replica)
            self._answered_once = True
            self._look_at(answer.generation)
            return answer
        if not isinstance(error, ReplicaLost):
            raise error
        name = ticket.replica or "none"
        logger.warning("replica %s was lost with a request: %s", name, error)
        if ticket.replica is not None:
            self._replicas.failed(ticket.replica, ticket.asked_at, time.monotonic())
        tried.append(name)
        if ticket.replica is None:  # nobody was chosen yet: give Ray a moment to notice
            await asyncio.sleep(_RETRY_LOST_S)
        return None

    def _too_slow(self, calls: Mapping[Any, Ticket], tried: list[str]) -> None:
        now = time.monotonic()
        for ticket in calls.values():
            if ticket.replica is not None and ticket.replica not in tried:
                logger.warning(
                    "replica %s has not answered for %.2f s", ticket.replica, now - ticket.asked_at
                )
                self._replicas.failed(ticket.replica, ticket.asked_at, now)
                tried.append(ticket.replica)

    def _busy(self, request: Request, why: str, seconds: float) -> Outcome:
        if reads_refusals(request.payload):
            text = f"{why}; {self._waiting} requests of this ingress wait"
            return Refused(refusal=Refusal(kind="busy", text=text, retry_after_s=_RETRY_BUSY_S))
        return _failed(
            request, TimeoutError(f"{why} ({seconds:g} s): the policy is busy. Ask less often.")
        )

    # --------------------------------------------------------------------------------------------- order

    def _settle(self, line: _Line, request: Request, outcome: Outcome) -> None:
        line.outcomes[request] = outcome
        settled = []
        while line.requests and line.requests[0] in line.outcomes:
            first = line.requests.popleft()
            settled.append((first, line.outcomes.pop(first)))
        if settled:
            self._waiting -= len(settled)
            self._deliver(settled)

    # --------------------------------------------------------------------------------------- description

    def _look_at(self, generation: str) -> None:
        if self._description is None or generation != self._description.generation:
            self._stale.set()

    async def _keep_described(self) -> None:
        """Ask what the application is: until it says, when it changes, and now and then."""
        while True:
            self._stale.clear()
            known = await self._describe()
            self._unheard = 0 if known else self._unheard + 1
            await asyncio.sleep(
                _DESCRIBE_AGAIN_S
            )  # while a rollout is under way both versions answer
            if known:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DESCRIBE_EVERY_S):
                        await self._stale.wait()

    async def _describe(self) -> bool:
        try:
            async with asyncio.timeout(_DESCRIBE_TIMEOUT_S):
                found = Description.from_map(await self._calls.describe())
        except Exception as exc:
            logger.debug("the policy application does not say what it is: %r", exc)
            return False
        if self._description is None or found != self._description:
            logger.info("the policy application is generation %s", found.generation)
            self._metadata = dict(codec.decode(found.metadata))
        self._description = found
        return True

    async def _stop_when_answered(self) -> None:
        while any(line.tasks for line in self._lines.values()):
            tasks = [task for line in self._lines.values() for task in line.tasks]
            await asyncio.wait(tasks)
        self._stopped()

    @staticmethod
    def _task(coroutine: Any) -> asyncio.Task[Any]:
        # In a context of its own: Ray keeps the request there that is being handled, and would take the calls
        # of one connection for one call.
        return asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())


def _failed(request: Request, error: Exception) -> Failed:
    asker: Asker = request.connection
    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    logger.warning("request %d of connection %d failed: %s", request.number, asker.number, cause)
    said = request.protocol.error_message(error)
    if isinstance(said.message, str):
        return Failed(text=said.message, cause=cause)
    return Failed(text=cause, cause=cause, message=said.message, closes=said.closes)
