# SPDX-License-Identifier: Apache-2.0
"""Which request is decoded next: one of each connection in turn, so that nobody's images hold up the others.

In: requests as they come, and which are over. Out: the next one. Pure; not thread-safe, the owner locks.

    connection a   a1 under way   a2   a3     whatever it sends, one thread at most works for it
    connection b   b1                         next, before a2
    connection c   c1                         then this one

A request is read first, which is quick; its encoded images are unpacked later, if it is still wanted then.
All of a connection's are read before the first is unpacked: the last may make the others needless.
What is unpacked keeps what has come since unread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["DecodingOrder"]

J = TypeVar("J")


@dataclass(slots=True)
class _Line(Generic[J]):
    unread: deque[J] = field(default_factory=deque)
    packed: deque[J] = field(default_factory=deque)
    under_way: bool = False
    unpacking: bool = False
    """Whether what is under way has been read before."""

    @property
    def empty(self) -> bool:
        return not (self.unread or self.packed or self.under_way)


class DecodingOrder(Generic[J]):
    """What is to be decoded, of all connections."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[J]] = {}
        """Who is first is next."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<DecodingOrder requests={self._count} connections={len(self._lines)}>"

    def to_read(self, session: Hashable, job: J) -> None:
        """Let a request wait that has just come."""
        self._lines.setdefault(session, _Line()).unread.append(job)
        self._count += 1

    def to_unpack(self, session: Hashable, job: J) -> None:
        """Let a request wait that has been read; call it before `done`. Nothing if its connection is gone."""
        line = self._lines.get(session)
        if line is not None:
            line.packed.append(job)
            self._count += 1

    def take(self, *, to_read: bool = False) -> J | None:
        """Return the next one and note that it is under way; None: there is none that may be begun now.

        Args:
            to_read: Only one that is to be read, for a thread that has better things to do than unpack images.
        """
        for session, line in self._lines.items():
            jobs = line.unread or (None if to_read else line.packed)
            if line.under_way or not jobs:
                continue
            line.unpacking = jobs is line.packed
            del self._lines[session]
            self._lines[session] = line  # the others come first now
            line.under_way = True
            self._count -= 1
            return jobs.popleft()
        return None

    def unpacking(self, session: Hashable) -> bool:
        """Say whether images of this connection are being unpacked: nothing of it is read meanwhile."""
        line = self._lines.get(session)
        return line is not None and line.under_way and line.unpacking

    def done(self, session: Hashable) -> None:
        """Note that the request of this connection that was under way is read, or unpacked, or not wanted."""
        line = self._lines.get(session)
        if line is None:
            return
        line.under_way = False
        if line.empty:
            del self._lines[session]

    def drop(self, session: Hashable) -> None:
        """Forget a connection that is gone."""
        line = self._lines.pop(session, None)
        if line is not None:
            self._count -= len(line.unread) + len(line.packed)
