# SPDX-License-Identifier: Apache-2.0
"""What is remembered of one connected robot, and the figures that follow from it. Pure.

In: its records without what was seen and answered, the time. Out: `Figures` of the last seconds. Times are
seconds on the clock of `RequestRecord.arrived`, durations in figures milliseconds where they are named so.

    sent ── network/2 ──> last byte ── queue ──> inference ── model ──> reply ── rest ──> network/2 ──> there
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median

from pi05_websocket.ops.words import in_plain_words
from pi05_websocket.server.records import Opened, RequestRecord

__all__ = ["ErrorSeen", "Figures", "Robot", "Split", "quantile"]

RECENT_S = 10.0
"""Rate, split and misses are of so many seconds."""

WINDOW_S = 60.0
"""Quantiles are of so many seconds, or of the last `_MOST` requests."""

_MOST = 300
"""75 kB a robot."""

_FEW = 5
"""A robot that asks seldom is judged by its last requests, however old."""

_ERRORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Where a round trip's time goes, on average, in milliseconds."""

    network: float | None
    """There and back, as the robot estimates; None: it does not say."""

    queue: float
    model: float
    rest: float
    """Encoding the reply and handing it to the network."""

    @property
    def total(self) -> float:
        """The sum of what is known."""
        return (self.network or 0.0) + self.queue + self.model + self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSeen:
    """Requests that were not answered, all for one reason."""

    words: str
    at: float
    """When the last one was."""

    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How one robot is doing. Counts are of the last seconds."""

    connected_s: float
    silent_s: float
    """Since its last request was answered, refused or failed, or since it came."""

    gap_s: float | None
    """Usual time from one of its requests to the next; None: it has not asked twice."""

    waiting_s: float | None = None
    """How long it has waited for the answer it waits for; None: for none."""

    total: int = 0
    """Requests since it came."""

    per_second: float = 0.0
    asked: int = 0
    answered: int = 0
    missed: int = 0
    """Answered, but so late that the arm had to hold."""

    failed: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By kind."""

    split: Split | None = None
    """None: nothing was answered."""

    p50_ms: float | None = None
    """Median round trip, network included where the robot estimates it."""
    p99_ms: float | None = None

    due_ms: float | None = None
    """The last that it stated: how long its rows last, from its request's arrival here."""

    batch: float | None = None
    """Requests in an inference, on average."""

    bytes_in: int = 0
    """Of its last request."""

    errors: tuple[ErrorSeen, ...] = ()
    """The last few reasons, newest first."""


class Robot:
    """One connection's past. Takes as much memory after a day as after a minute."""

    def __init__(self, opened: Opened, now: float) -> None:
        self.opened = opened
        self.since = now
        self._total = 0
        self._records: deque[RequestRecord] = deque(maxlen=_MOST)
        self._errors: OrderedDict[str, ErrorSeen] = OrderedDict()
        self._waits_since: float | None = None

    def __repr__(self) -> str:
        return f"<Robot {self.opened.connection} {self.opened.who} requests={self._total}>"

    @property
    def last(self) -> RequestRecord | None:
        """What became of its last request."""
        return self._records[-1] if self._records else None

    def add(self, record: RequestRecord) -> None:
        """Take what became of one of its requests."""
        self._total += 1
        self._waits_since = None
        self._records.append(record)
        if record.outcome != "answered" and record.why != "superseded":
            self._remember(in_plain_words(record.outcome, record.why), _at(record))

    def see(self, unanswered: int, now: float) -> None:
        """Note how many of its requests the server has not answered yet."""
        if unanswered == 0:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now

    def figures(self, now: float) -> Figures:
        """Return how it is doing."""
        window = [record for record in self._records if now - _at(record) <= WINDOW_S]
        recent = [record for record in window if now - _at(record) <= RECENT_S]
        if len(recent) < _FEW:
            recent = list(self._records)[-_FEW:]
        last = self.last
        trips = [_round_trip_ms(record) for record in window if record.outcome == "answered"]
        answered = [record for record in recent if record.outcome == "answered"]
        batches = [record.batch for record in answered if record.batch]
        return Figures(
            connected_s=now - self.since,
            silent_s=now - (self.since if last is None else _at(last)),
            gap_s=_gap_s(window),
            waiting_s=None if self._waits_since is None else now - self._waits_since,
            total=self._total,
            per_second=self._per_second(now),
            asked=len(recent),
            answered=len(answered),
            missed=sum(record.missed for record in answered),
            failed=sum(record.outcome == "failed" for record in recent),
            refused=dict(Counter(record.why for record in recent if record.outcome == "refused")),
            split=_split(answered),
            p50_ms=quantile(trips, 0.5),
            p99_ms=quantile(trips, 0.99),
            due_ms=None if last is None else last.due_ms,
            batch=fmean(batches) if batches else None,
            bytes_in=0 if last is None else last.bytes_in,
            errors=tuple(reversed(self._errors.values())),
        )

    def _remember(self, words: str, at: float) -> None:
        before = self._errors.pop(words, None)
        times = 1 if before is None else before.times + 1
        self._errors[words] = ErrorSeen(words=words, at=at, times=times)
        if len(self._errors) > _ERRORS:
            self._errors.popitem(last=False)

    def _per_second(self, now: float) -> float:
        times = [_at(record) for record in self._records if now - _at(record) <= RECENT_S]
        if not times:
            return 0.0
        # What was before a full memory's oldest request is not known.
        known_since = times[0] if len(times) == _MOST else self.since
        return len(times) / min(max(now - known_since, 1.0), RECENT_S)


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that this share of all is at most; None of none."""
    if not values:
        return None
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def _at(record: RequestRecord) -> float:
    return record.arrived + record.total_ms / 1000


def _network_ms(record: RequestRecord) -> float | None:
    # A robot that has no estimate yet says 0.
    return 2 * record.age_ms if record.age_ms else None


def _round_trip_ms(record: RequestRecord) -> float:
    return (_network_ms(record) or 0.0) + record.total_ms


def _gap_s(records: Sequence[RequestRecord]) -> float | None:
    times = [record.arrived for record in records]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return median(gaps) if gaps else None


def _split(answered: Sequence[RequestRecord]) -> Split | None:
    if not answered:
        return None
    network = [ms for record in answered if (ms := _network_ms(record)) is not None]
    rest = [max(record.total_ms - record.queue_ms - record.infer_ms, 0.0) for record in answered]
    return Split(
        network=fmean(network) if network else None,
        queue=fmean(record.queue_ms for record in answered),
        model=fmean(record.infer_ms for record in answered),
        rest=fmean(rest),
    )
