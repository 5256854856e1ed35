# SPDX-License-Identifier: Apache-2.0
"""All robots together, second by second for the last minute. Pure; the time is a parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pi05_websocket.server.records import RequestRecord

__all__ = ["Fleet", "Totals"]

_SECONDS = 60
_RECENT = 10
"""Rates are of the last so many whole seconds."""


@dataclass(slots=True)
class _Second:
    number: int = -1
    requests: int = 0
    refused: int = 0
    failed: int = 0
    missed: int = 0
    busy_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    batches: Counter[int] = field(default_factory=Counter)
    """Size of an inference to the requests that were in one of that size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What all robots together did."""

    per_second: float
    """Requests, over the last ten seconds; so are the shares and rates that follow."""

    busy: float
    """Share of the time in which the policy was at work, 0 to 1."""

    asked: int
    refused: int
    failed: int
    missed: int
    bytes_in_per_second: float
    bytes_out_per_second: float

    batches: dict[int, int]
    """Size of an inference to how many had it, in the last minute."""

    history: list[int]
    """Requests in each of the last sixty seconds, oldest first."""


class Fleet:
    """A ring of seconds."""

    def __init__(self) -> None:
        self._ring = [_Second() for _ in range(_SECONDS + 1)]

    def __repr__(self) -> str:
        return f"<Fleet seconds={sum(second.number >= 0 for second in self._ring)}>"

    def add(self, records: Iterable[RequestRecord]) -> None:
        """Count each request in the second in which it ended."""
        for record in records:
            self._add(record)

    def _add(self, record: RequestRecord) -> None:
        number = int(record.arrived + record.total_ms / 1000)
        place = number % len(self._ring)
        second = self._ring[place]
        if second.number > number:
            return  # more than a minute old
        if second.number < number:
            second = self._ring[place] = _Second(number=number)
        second.requests += 1
        second.bytes_in += record.bytes_in
        second.bytes_out += record.bytes_out
        if record.outcome == "answered":
            second.busy_ms += record.policy_ms
            if record.batch:
                second.batches[record.batch] += 1
            second.missed += record.missed
        elif record.outcome == "refused":
            second.refused += 1
        else:
            second.failed += 1

    def totals(self, now: float) -> Totals:
        """Return the totals up to the second before this one."""
        recent = list(self._last(now, _RECENT))
        minute = list(self._last(now, _SECONDS))
        shared: Counter[int] = Counter()
        for second in minute:
            shared.update(second.batches)
        return Totals(
            per_second=sum(second.requests for second in recent) / _RECENT,
            busy=min(sum(second.busy_ms for second in recent) / (1000 * _RECENT), 1.0),
            asked=sum(second.requests for second in recent),
            refused=sum(second.refused for second in recent),
            failed=sum(second.failed for second in recent),
            missed=sum(second.missed for second in recent),
            bytes_in_per_second=sum(second.bytes_in for second in recent) / _RECENT,
            bytes_out_per_second=sum(second.bytes_out for second in recent) / _RECENT,
            batches={size: -(-requests // size) for size, requests in sorted(shared.items())},
            history=[second.requests for second in minute],
        )

    def _last(self, now: float, seconds: int) -> Iterator[_Second]:
        for number in range(int(now) - seconds, int(now)):
            second = self._ring[number % len(self._ring)]
            yield second if second.number == number else _Second()
