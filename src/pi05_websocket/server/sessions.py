# SPDX-License-Identifier: Apache-2.0
"""Where requests wait for the policy: a line for each connection, of which only the first may be taken.

In: requests as they come, and what is known of them once they are decoded. Out: who may be taken now, and whose
answer is certain without asking the policy. Pure; not thread-safe, the owner locks.

    connection a   a1 under way   a2 waiting   a3 waiting     a2 is superseded by a3 if the robot reads refusals
    connection b   b1 waiting                                 only b1 may be taken: a2 has to wait for a1
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from pi05_websocket.wire.refusals import Refusal

__all__ = ["NORMAL_PRIORITY", "PRIORITIES", "SUPERSEDED", "Priority", "Sessions", "Waiting"]

T = TypeVar("T")
A = TypeVar("A")

Priority = Literal["low", "normal", "high"]

PRIORITIES: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}
"""Priority class of a key to its rank; a lower rank goes first."""

NORMAL_PRIORITY = PRIORITIES["normal"]

_PAUSES_AFTER_S = 10.0
"""A robot that has nothing waiting and does not ask for so long wants nothing: its waiting begins anew."""

SUPERSEDED = Refusal(
    kind="superseded", text="a newer observation of the same robot came before its turn"
)


@dataclass(slots=True, eq=False, kw_only=True)
class Waiting(Generic[T, A]):
    """One request in its line. Times are monotonic seconds."""

    item: T
    session: Hashable
    """Whose line it stands in: one connection."""

    arrived: float
    priority: int = NORMAL_PRIORITY

    read: bool = False
    """Whether it is known what it says; its images may still be packed."""

    packed: bool = False
    """Whether it is read, and its encoded images wait to be unpacked; what follows is known from then on."""

    ready: bool = False
    """Whether it is decoded, images and all."""

    group: Hashable = None
    """Requests of one batch have it in common."""

    due: float | None = None
    """When its answer must leave so that the robot need not hold; None: it does not say, and waits already."""

    deadline: float | None = None
    """When its answer must leave to be of any use; None: the robot waits for it as long as it takes."""

    reads_refusals: bool = False
    """Whether its robot understands `busy`, `late` and `superseded`. A stock client is always answered."""

    robot: int = 0
    """Which of the robots of this connection: several may share one."""

    answer: A | Refusal | None = None
    """What it is answered without asking the policy."""

    since: float = field(init=False)
    """Since when its robot has asked in vain: the arrival of the first request after its last answer."""

    def __post_init__(self) -> None:
        self.since = self.arrived


@dataclass(slots=True)
class _Line(Generic[T, A]):
    requests: deque[Waiting[T, A]] = field(default_factory=deque)
    under_way: bool = False
    since: float | None = None
    last_asked: float = 0.0

    def answered(self) -> None:
        """Let the waiting begin anew, with the first request that is left."""
        self.since = min((waiting.arrived for waiting in self.requests), default=None)
        for waiting in self.requests:
            assert self.since is not None
            waiting.since = self.since

    def paused_until(self, now: float) -> bool:
        """Whether its robot has wanted nothing for a while."""
        idle = not self.requests and not self.under_way
        return idle and now - self.last_asked > _PAUSES_AFTER_S


class Sessions(Generic[T, A]):
    """The lines of all connections."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[T, A]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Sessions requests={self._count} connections={len(self._lines)}>"

    def push(self, waiting: Waiting[T, A]) -> None:
        """Let a request wait behind the others of its connection."""
        line = self._lines.setdefault(waiting.session, _Line())
        if line.since is None or line.paused_until(waiting.arrived):
            line.since = waiting.arrived
        line.last_asked = waiting.arrived
        waiting.since = line.since
        line.requests.append(waiting)
        self._count += 1

    def supersede(self, session: Hashable) -> None:
        """Refuse what waits before a newer request of the same robot, if that reads refusals: newest wins.

        Call it when a request of this connection has been read, or has become ready. What could be taken now
        gives way only to what could be taken too: else a robot that asks faster than its images are unpacked
        would never be answered. Stock requests are left alone.
        """
        read: set[int] = set()
        ready: set[int] = set()
        for waiting in reversed(self._requests(session)):
            if not waiting.reads_refusals or waiting.answer is not None:
                continue
            if waiting.robot in ready or (waiting.packed and waiting.robot in read):
                waiting.answer = SUPERSEDED
            if waiting.packed or waiting.ready:
                read.add(waiting.robot)
            if waiting.ready:
                ready.add(waiting.robot)

    def settle(self, sessions: Iterable[Hashable]) -> list[Waiting[T, A]]:
        """Take out whose answer is certain and whose turn it is in these lines; answer them in this order."""
        return [waiting for session in sessions for waiting in self._settled(session)]

    def heads(self) -> list[Waiting[T, A]]:
        """Return the requests that may be taken: decoded, first in their line, nothing of it under way."""
        return [first for first in self._firsts() if first.ready and first.answer is None]

    def line(self, session: Hashable) -> list[Waiting[T, A]]:
        """Return what waits for this connection, the first one first."""
        return list(self._requests(session))

    def overdue(self, now: float, bound_s: float) -> list[Waiting[T, A]]:
        """Return those that nobody has taken since `bound_s`; the first one of each line."""
        return [
            first
            for first in self._firsts()
            if first.answer is None and now - first.arrived >= bound_s
        ]

    def waits(self, now: float) -> list[float]:
        """Return for each connection with something waiting how long it has asked in vain, in seconds."""
        return [now - line.requests[0].since for line in self._lines.values() if line.requests]

    def take(self, waiting: Waiting[T, A]) -> None:
        """Take out a request that the policy is asked for now: nothing else of its line until `done`."""
        line = self._lines[waiting.session]
        first = line.requests.popleft()
        assert first is waiting
        line.under_way = True
        self._count -= 1

    def put_back(self, waiting: Waiting[T, A]) -> bool:
        """Let a request that was taken stand first in its line again: nobody has answered it.

        Returns:
            False if its connection is gone: then it is forgotten.
        """
        line = self._lines.get(waiting.session)
        if line is None:
            return False
        line.requests.appendleft(waiting)
        line.under_way = False
        self._count += 1
        return True

    def done(self, session: Hashable) -> None:
        """Note that the request of this connection that was under way is answered."""
        line = self._lines.get(session)
        if line is None:
            return
        line.under_way = False
        line.answered()

    def drop(self, session: Hashable) -> int:
        """Forget a connection that is gone; return how many of its requests waited."""
        line = self._lines.pop(session, None)
        dropped = 0 if line is None else len(line.requests)
        self._count -= dropped
        return dropped

    def _firsts(self) -> Iterator[Waiting[T, A]]:
        for line in self._lines.values():
            if line.requests and not line.under_way:
                yield line.requests[0]

    def _requests(self, session: Hashable) -> deque[Waiting[T, A]]:
        line = self._lines.get(session)
        return deque() if line is None else line.requests

    def _settled(self, session: Hashable) -> list[Waiting[T, A]]:
        line = self._lines.get(session)
        settled: list[Waiting[T, A]] = []
        if line is None or line.under_way:
            return settled
        while line.requests and line.requests[0].answer is not None:
            settled.append(line.requests.popleft())
            self._count -= 1
        # Who is refused has asked in vain; any other answer is one.
        if not all(isinstance(waiting.answer, Refusal) for waiting in settled):
            line.answered()
        return settled
