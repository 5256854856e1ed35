# SPDX-License-Identifier: Apache-2.0
"""Robots that ask at a fixed rate with numbered observations, and notice every answer that is not theirs.

In: a port and what to ask. Out: what each robot saw. A thread for each robot.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from openpi_client.websocket_client_policy import WebsocketClientPolicy

from pi05_websocket.client import ConnectionConfig, RemotePolicy

Infer = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Seen:
    """What one robot saw. Times are monotonic seconds."""

    answers: list[tuple[float, float, dict[str, Any]]] = field(default_factory=list)
    """Sent, received, the answer."""
    lost: list[tuple[float, str]] = field(default_factory=list)
    """When a request failed, and why."""
    refused: list[tuple[float, str]] = field(default_factory=list)
    """When it could not connect, and why."""
    foreign: list[str] = field(default_factory=list)


class Robots:
    """So many robots, each in a thread of its own, until `stop`."""

    def __init__(
        self,
        port: int,
        count: int,
        hz: float,
        *,
        stock: int = 0,
        restarted: bool = False,
        **extra: Any,
    ) -> None:
        """Start them.

        Args:
            port: Of the server.
            count: How many.
            hz: How often each asks.
            stock: How many of them, the first, are OpenPI's own client, which never reconnects.
            restarted: Whether those are started anew after an error, as a person would.
            extra: Goes into every observation.
        """
        self.seen = [Seen() for _ in range(count)]
        self._port = port
        self._hz = hz
        self._restarted = restarted
        self._extra = extra
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, number < stock), daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def __enter__(self) -> Robots:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def lost(self) -> list[tuple[float, str]]:
        """When requests failed, and why."""
        return sorted(lost for seen in self.seen for lost in seen.lost)

    @property
    def foreign(self) -> list[str]:
        """Answers that belong to somebody else, or to an earlier observation."""
        return [text for seen in self.seen for text in seen.foreign]

    @property
    def answers(self) -> list[tuple[float, float, dict[str, Any]]]:
        """All answers."""
        return sorted(
            (answer for seen in self.seen for answer in seen.answers), key=lambda answer: answer[1]
        )

    def pids(self) -> set[int]:
        """Processes that have answered."""
        return {answer["pid"] for _, _, answer in self.answers}

    def worst_wait(self, after: float = 0.0) -> float:
        """Return the longest time that an answer took which came after a moment."""
        return max((end - sent for sent, end, _ in self.answers if end > after), default=0.0)

    def full_rate_after(self, moment: float, share: float = 0.9, window_s: float = 2.0) -> float:
        """Return after how many seconds the robots had their whole rate again, for two seconds at least.

        Only a loss within the first seconds counts as one of what happened then.
        """
        ends = [end for _, end, _ in self.answers]
        want = share * len(self.seen) * self._hz * window_s
        good = [
            sum(begin <= end < begin + window_s for end in ends) >= want
            for begin in (moment + 0.25 * step for step in range(400))
        ]
        if all(good[:8]):
            return 0.0
        after = good.index(False)
        return 0.25 * good.index(True, after) if True in good[after:] else float("inf")

    def _run(self, robot: int, stock: bool) -> None:
        number = 0
        while not self._over.is_set():
            try:
                with connected(self._port, stock) as infer:
                    number = self._ask(robot, number, infer, stock)
            except Exception as exc:  # it could not connect
                self.seen[robot].refused.append((time.monotonic(), f"{type(exc).__name__}: {exc}"))
            if not self._restarted or self._over.wait(0.25):
                return

    def _ask(self, robot: int, number: int, infer: Infer, stock: bool) -> int:
        """Ask until the end; OpenPI's client until its first error."""
        seen = self.seen[robot]
        due = time.monotonic() + (robot * 0.618 % 1.0) / self._hz
        while not self._over.wait(max(due - time.monotonic(), 0.0)):
            due = max(due + 1.0 / self._hz, time.monotonic())
            number += 1
            sent = time.monotonic()
            try:
                answer = infer({"robot": robot, "number": number, **self._extra})
            except Exception as exc:
                seen.lost.append((time.monotonic(), f"{type(exc).__name__}: {exc}"[:200]))
                if stock:
                    break
                continue
            seen.answers.append((sent, time.monotonic(), answer))
            first = float(answer["actions"][0, 0])
            if (answer["robot"], answer["number"], first) != (robot, number, number):
                seen.foreign.append(f"robot {robot} asked {number} and got {answer}")
        return number


@contextlib.contextmanager
def connected(port: int, stock: bool = False, *, path: str = "/") -> Iterator[Infer]:
    """Connect a robot; OpenPI's own client knows no path."""
    if stock:
        client = WebsocketClientPolicy("127.0.0.1", port)
        with contextlib.closing(client._ws):
            yield client.infer
        return
    config = ConnectionConfig(url=f"ws://127.0.0.1:{port}{path}", request_timeout=10.0)
    with RemotePolicy(config=config, wait_for_server=30) as policy:
        yield policy.infer
