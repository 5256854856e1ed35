# SPDX-License-Identifier: Apache-2.0
"""Where requests wait for the policy: in order within a connection, in turns between connections.

In: requests with their connection. Out: the next one. Pure; not thread-safe, the owner locks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A first-in-first-out queue for each connection; the connections take turns.

    ::

        pushed      a1 a2 a3 b1 c1 b2
        popped      a1 b1 c1 a2 b2 a3      a connection that pipelines delays nobody by more than one
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()  # whose turn is next: first

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __repr__(self) -> str:
        return f"<Mailbox requests={len(self)} connections={len(self._waiting)}>"

    def push(self, connection: Hashable, request: T) -> None:
        """Let a request wait behind the others of its connection."""
        self._waiting.setdefault(connection, deque()).append(request)

    def pop(self) -> T | None:
        """Take the request whose turn it is; None when none waits."""
        if not self._waiting:
            return None
        connection, requests = self._waiting.popitem(last=False)
        request = requests.popleft()
        if requests:
            self._waiting[connection] = requests  # behind everybody else
        return request

    def drop(self, connection: Hashable) -> int:
        """Forget what waits for a connection that is gone; return how many requests that were."""
        return len(self._waiting.pop(connection, ()))
