# SPDX-License-Identifier: Apache-2.0
"""What a server's records add up to: each robot, all together, and counts since the start. Pure.

In: `server.records`, in their order, and the time. Out: figures. Bounded, however many robots come and go.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pi05_websocket.ops.fleet import Fleet
from pi05_websocket.ops.histogram import Histogram
from pi05_websocket.ops.robot import Robot
from pi05_websocket.ops.words import closing_reason, error_type, in_plain_words
from pi05_websocket.server.records import Closed, Opened, Record, RequestRecord
from pi05_websocket.wire.refusals import KINDS

__all__ = ["Counts", "Departed", "Statistics"]

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.5,
    10.0,
)
"""Close together where a robot at 30 Hz begins to notice."""

_LAG_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)

_MOST_NAMES = 200
"""Names in one counter; what else comes is counted as `other`. A keys file of 200 robots fits."""

_MOST_DEPARTED = 32
_REMEMBERED_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """Somebody who is gone, and why; who leaves again for the same reason is counted once more."""

    who: str
    host: str
    words: str
    failed: bool
    """Whether it went because its request failed."""

    at: float
    times: int


class Counts:
    """What Prometheus is told: only ever more."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter(answered=0, refused=0, failed=0)
        # From 0 on, not from the first one on: only then a rate sees the first.
        self.refusals: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self.failures: Counter[str] = Counter()
        """By the exception's name."""

        self.keys: Counter[tuple[str, str]] = Counter()
        """By name of the key and outcome."""

        self.key_misses: Counter[str] = Counter()
        self.misses = 0
        self.busy_s = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.opened = 0
        self.closed: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        self.unseen = 0
        """Records that were dropped because too many came at once."""

        self.queue_s = Histogram(_SECONDS)
        self.infer_s = Histogram(_SECONDS)
        self.total_s = Histogram(_SECONDS)
        self.network_s = Histogram(_SECONDS)
        self.batch = Histogram(_BATCHES)
        self.lag_s = Histogram(_LAG_SECONDS)

    def __repr__(self) -> str:
        return f"<Counts requests={self.outcomes.total()} opened={self.opened}>"

    def requests(self, records: Sequence[RequestRecord], who: Sequence[str]) -> None:
        """Count some requests and whose each is. All at once: one by one takes twice as long."""
        answered = [record for record in records if record.outcome == "answered"]
        for name in dict.fromkeys(who):
            self.key_misses.setdefault(_bounded(name, self.key_misses), 0)
        who = [name if name in self.key_misses else "other" for name in who]
        pairs = list(zip(who, [record.outcome for record in records], strict=True))
        self.keys.update(pairs)
        self.outcomes.update([outcome for _, outcome in pairs])
        self.bytes_in += sum([record.bytes_in for record in records])
        self.bytes_out += sum([record.bytes_out for record in records])
        self.busy_s += sum([record.policy_ms for record in answered]) / 1000
        self.total_s.add([record.total_ms / 1000 for record in records])
        self.network_s.add([record.age_ms / 500 for record in records if record.age_ms])
        self.queue_s.add([record.queue_ms / 1000 for record in answered])
        self.infer_s.add([record.infer_ms / 1000 for record in answered])
        self.batch.add([record.batch for record in answered if record.batch])
        for name, record in zip(who, records, strict=True):
            if record.outcome == "answered":
                if record.missed:
                    self.misses += 1
                    self.key_misses[name] += 1
            elif record.outcome == "refused":
                self.refusals[_bounded(record.why, self.refusals)] += 1
            else:
                self.failures[_bounded(error_type(record.why), self.failures)] += 1


class Statistics:
    """Adds up. One thread."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.fleet = Fleet()
        self._robots: dict[int, Robot] = {}
        self._departed: OrderedDict[tuple[str, str, str], Departed] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Statistics robots={len(self._robots)} {self.counts!r}>"

    @property
    def robots(self) -> Mapping[int, Robot]:
        """Who is connected, by number."""
        return self._robots

    def departed(self, now: float) -> list[Departed]:
        """Return who went in the last minutes, the last first."""
        return [
            gone for gone in reversed(self._departed.values()) if now - gone.at <= _REMEMBERED_S
        ]

    def take(self, records: Iterable[Record], now: float) -> None:
        """Add some records."""
        asked: list[RequestRecord] = []
        who: list[str] = []
        for record in records:
            if isinstance(record, RequestRecord):
                robot = self._robots.get(record.connection)
                if robot is not None:
                    robot.add(record)
                asked.append(record)
                who.append("other" if robot is None else robot.opened.who)
            elif isinstance(record, Opened):
                self.counts.opened += 1
                self._robots[record.connection] = Robot(record, now)
            elif isinstance(record, Closed):
                self._closed(record, now)
            else:
                self.counts.turned_away[record.reason] += 1
        self.counts.requests(asked, who)
        self.fleet.add(asked)

    def see(self, unanswered: Mapping[int, int], now: float) -> None:
        """Note how many requests of each connection the server has not answered yet."""
        for number, robot in self._robots.items():
            robot.see(unanswered.get(number, 0), now)

    def _closed(self, record: Closed, now: float) -> None:
        self.counts.closed[closing_reason(record.why)] += 1
        robot = self._robots.pop(record.connection, None)
        if robot is None:
            return
        last = robot.last
        failed = last is not None and last.outcome == "failed"
        words = record.why
        if last is not None and failed:
            words = in_plain_words(last.outcome, last.why)
        self._depart(robot.opened, words, failed=failed, now=now)

    def _depart(self, opened: Opened, words: str, *, failed: bool, now: float) -> None:
        host = opened.peer.rpartition(":")[0]
        key = opened.who, host, words
        before = self._departed.pop(key, None)
        again = before is not None and now - before.at <= _REMEMBERED_S
        self._departed[key] = Departed(
            who=opened.who,
            host=host,
            words=words,
            failed=failed,
            at=now,
            times=before.times + 1 if before is not None and again else 1,
        )
        if len(self._departed) > _MOST_DEPARTED:
            self._departed.popitem(last=False)


def _bounded(name: str, counter: Counter[str]) -> str:
    """Return a name to count under: its own while there are few."""
    return name if name in counter or len(counter) < _MOST_NAMES else "other"
