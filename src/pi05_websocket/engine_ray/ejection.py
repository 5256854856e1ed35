# SPDX-License-Identifier: Apache-2.0
"""Which replicas are asked: not those that failed a moment ago, and of the others the least busy. Pure.

In: what was asked of whom, when, and what came of it. Out: the replicas in the order in which to try them.

    works ── failed ──▶ out for eject_s ── time is over ──▶ on trial: one request ── answered ──▶ works
                              ▲                                            │
                              └───────── twice as long ────────────────────┘ failed

A cluster notices after a minute that a machine is frozen; a robot notices after a second. When all are out all
are asked: then it is not a replica that is slow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Replicas"]


@dataclass(slots=True)
class _Standing:
    asked: int = 0
    """Requests that it has not answered."""

    failures: int = 0
    """In a row."""

    failed_at: float = float("-inf")
    out_until: float = float("-inf")
    on_trial: bool = False


class Replicas:
    """What one ingress knows of the replicas of one application. Times are monotonic seconds."""

    def __init__(
        self,
        *,
        eject_s: float,
        longest_eject_s: float,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._eject_s = eject_s
        self._longest_eject_s = longest_eject_s
        self._shuffle = shuffle
        self._standings: dict[str, _Standing] = {}

    def __repr__(self) -> str:
        failing = [name for name, standing in self._standings.items() if standing.failures]
        return f"<Replicas {len(self._standings)} failing={failing}>"

    def change(self, *, eject_s: float, longest_eject_s: float) -> None:
        """Leave out for other times, from the next failure on."""
        self._eject_s = eject_s
        self._longest_eject_s = longest_eject_s

    def order(
        self,
        names: Iterable[str],
        now: float,
        *,
        tried: Sequence[str] = (),
        before: str | None = None,
    ) -> list[str]:
        """Return whom to ask, the best first.

        Args:
            names: Who is there.
            now: The time.
            tried: Who was asked already for this request: last resort.
            before: Who answered this robot's last request: first among equals, since it may remember something.
        """
        known = list(names)
        self._shuffle(known)  # several ingresses that see the same must not all choose the same

        def rank(name: str) -> tuple[bool, bool, int, bool]:
            standing = self._standings.get(name) or _Standing()
            return (name in tried, self._is_out(standing, now), standing.asked, name != before)

        return sorted(known, key=rank)

    def unanswered(self, name: str) -> int:
        """Return how many requests it was asked and has not answered."""
        standing = self._standings.get(name)
        return 0 if standing is None else standing.asked

    def asked(self, name: str, now: float) -> None:
        """Note a request to a replica."""
        standing = self._standings.setdefault(name, _Standing())
        standing.asked += 1
        if standing.failures and now >= standing.out_until:
            standing.on_trial = True

    def answered(self, name: str) -> None:
        """Note that it has answered, however late: it works."""
        standing = self._standings.setdefault(name, _Standing())
        standing.failures, standing.on_trial = 0, False
        standing.out_until = float("-inf")

    def failed(self, name: str, asked_at: float, now: float) -> None:
        """Note that it died, or did not answer in time. What was asked before its last failure is no news."""
        standing = self._standings.setdefault(name, _Standing())
        standing.on_trial = False
        if asked_at <= standing.failed_at:
            return
        standing.failures += 1
        standing.failed_at = now
        away = self._eject_s * 2.0 ** min(standing.failures - 1, 32)
        standing.out_until = now + min(away, self._longest_eject_s)

    def done(self, name: str) -> None:
        """Note that a request to it is over, whatever came of it."""
        standing = self._standings.get(name)
        if standing is not None:
            standing.asked -= 1
            standing.on_trial = False

    def keep(self, names: Iterable[str]) -> None:
        """Forget those that are gone."""
        kept = set(names)
        self._standings = {
            name: standing
            for name, standing in self._standings.items()
            if name in kept or standing.asked > 0
        }

    @staticmethod
    def _is_out(standing: _Standing, now: float) -> bool:
        return standing.failures > 0 and (now < standing.out_until or standing.on_trial)
