# SPDX-License-Identifier: Apache-2.0
"""Everything the operations port knows, and what it can have the server do.

Runs on the operations thread's event loop; the server is asked over its own loop and never waited for there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from pi05_websocket.ops.listener import RecordQueue
from pi05_websocket.ops.metrics import Reading
from pi05_websocket.ops.pictures import Plan, plan_of, thumbnail
from pi05_websocket.ops.statistics import Statistics
from pi05_websocket.ops.view import Surroundings, model_of, state_of, view
from pi05_websocket.server.operator import Operator
from pi05_websocket.server.records import ServerState

__all__ = ["ACTIONS", "Action", "Operable", "Watch"]

logger = logging.getLogger(__name__)

_TAKE_S = 1.0
"""How often records are taken, and the server asked how it is, while nobody looks. Who looks takes them too."""

_PATIENCE_S = 1.0
"""A server whose event loop does not answer for so long is not ready."""

_FRESH_S = 0.2
"""Several who look share one answer so fresh."""

Action = Literal["pause", "resume", "drain", "undrain", "disconnect"]

ACTIONS: Mapping[str, Callable[[Operator, int], None]] = {
    "pause": lambda operator, _: operator.pause(on=True),
    "resume": lambda operator, _: operator.pause(on=False),
    "drain": lambda operator, _: operator.drain(on=True),
    "undrain": lambda operator, _: operator.drain(on=False),
    "disconnect": lambda operator, number: operator.disconnect(number),
}


class Operable(Protocol):
    """`PolicyServer`, as far as it is needed here."""

    def operate(self, do: Callable[[Operator], None], /) -> bool:
        """Have the server's event loop do something; False: it does not run."""
        ...


class Watch:
    """Watches one server.

    Args:
        policy: What is served, in the words of the command line.
        can_act: Whether there are keys that may act.
        with_content: Whether images and plans are kept to be shown.
    """

    def __init__(self, policy: str, *, can_act: bool, with_content: bool = True) -> None:
        self.listener = RecordQueue(with_content=with_content)
        self.statistics = Statistics()
        self._policy = policy
        self._can_act = can_act
        self._server: Operable | None = None
        self._started = time.perf_counter()
        self._state: ServerState | None = None
        self._ran = False
        self._lag_ms: float | None = None
        self._asked_at: float | None = None
        """When the server was asked what it has not answered yet."""
        self._answered = asyncio.Event()
        self._shown: tuple[float, bytes] = (float("-inf"), b"")

    def __repr__(self) -> str:
        return f"<Watch {self._policy} {self.statistics!r}>"

    def serve(self, server: Operable) -> None:
        """Begin to watch a server; until then the policy is being loaded. Any thread."""
        self._server = server

    async def keep_up(self) -> None:
        """Take records and ask the server how it is, until cancelled."""
        while True:
            try:
                self.take()
                self._ask()
            except Exception:  # a wrong figure must not end the figures
                logger.exception("operations: a record could not be counted")
            await asyncio.sleep(_TAKE_S)

    def take(self) -> None:
        """Take what the server has told."""
        records = self.listener.take()
        self.statistics.counts.unseen = self.listener.unseen
        self.statistics.take(records, time.perf_counter())

    async def fresh_state(self) -> tuple[str, str]:
        """Ask the server how it is, wait for its answer, and return its state and why, for a probe."""
        if self._ask():
            self._answered.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._answered.wait()
        return state_of(self._state, self._surroundings(patience_s=0.0))

    def reading(self) -> Reading:
        """Return what Prometheus is told."""
        self.take()
        model = {} if self._state is None else model_of(self._state.metadata)
        return Reading(
            statistics=self.statistics,
            state=self._state,
            model={"model": model.get("model") or self._policy, **_texts(model)},
        )

    def shown(self) -> bytes:
        """Return `/api/state`."""
        now = time.perf_counter()
        made_at, text = self._shown
        if now - made_at > _FRESH_S:
            self.take()
            newest = dict(self.listener.newest)
            said = view(self.statistics, self._state, newest, self._surroundings(), now)
            text = msgspec.json.encode(said)
            self._shown = now, text
        return text

    def image(self, connection: int, name: str) -> bytes | None:
        """Return a robot's last image of this name, as a JPEG; None: there is none."""
        newest = self.listener.newest.get(connection)
        if newest is None or newest.observation is None:
            return None
        return thumbnail(newest.observation, name)

    def plan(self, connection: int) -> Plan | None:
        """Return a robot's last chunk; None: there is none."""
        newest = self.listener.newest.get(connection)
        return None if newest is None else plan_of(newest.actions)

    def act(self, action: Action, number: int = 0) -> bool:
        """Have the server do something; False: it does not run."""
        server = self._server
        if server is None:
            return False
        done = server.operate(lambda operator: ACTIONS[action](operator, number))
        self._ask()
        return done

    def _ask(self) -> bool:
        """Ask the server how it is, unless it still owes an answer; say whether one is to come."""
        server, now = self._server, time.perf_counter()
        if self._asked_at is not None:
            return True
        loop = asyncio.get_running_loop()

        def answer(operator: Operator) -> None:
            state = operator.state()
            with contextlib.suppress(RuntimeError):  # we have ended meanwhile
                loop.call_soon_threadsafe(self._take_answer, state)

        if server is None or not server.operate(answer):
            self._state = None
            return False
        self._asked_at = now
        return True

    def _take_answer(self, state: ServerState) -> None:
        assert self._asked_at is not None
        lag_s = max(state.at - self._asked_at, 0.0)
        self._asked_at = None
        self._lag_ms = 1000 * lag_s
        self.statistics.counts.lag_s.add([lag_s])
        self._state = state
        self._ran = True
        self.take()
        self.statistics.see(state.unanswered, time.perf_counter())
        self._shown = (float("-inf"), b"")
        self._answered.set()

    def _surroundings(self, patience_s: float = _PATIENCE_S) -> Surroundings:
        now = time.perf_counter()
        silent_s = None if self._asked_at is None else now - self._asked_at
        return Surroundings(
            policy=self._policy,
            started=self._started,
            can_act=self._can_act,
            absent="it has stopped" if self._ran else "the policy is being loaded",
            lag_ms=self._lag_ms,
            silent_s=silent_s if silent_s is not None and silent_s > patience_s else None,
        )


def _texts(model: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in model.items() if isinstance(value, str) and value}
