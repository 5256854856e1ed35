# SPDX-License-Identifier: Apache-2.0
"""From checked requests to answers, in as few forward passes as they allow.

In: rows, each one robot's observation and what it still executes. Out: an answer for each, or why there is
none. Runs on the policy thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, TypeVar

import numpy as np

from lerobot_policy_pi05_websocket.serving_batches import Processors
from lerobot_policy_pi05_websocket.serving_model import Model
from lerobot_policy_pi05_websocket.serving_prefix import ExpectedTime, Prefix, padded
from pi05_websocket.data import Float32Array
from pi05_websocket.policy import Result
from pi05_websocket.server.prefix import PrefixPlan
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime_reply

__all__ = ["Answer", "Passes", "Row", "Timed", "timed_by_the_wall_clock"]

logger = logging.getLogger(__name__)

Answer = Result | Exception

Timed = Callable[[Callable[[], Any]], tuple[Any, float]]
"""Runs some work; returns what it returns and how many milliseconds it took."""

T = TypeVar("T")


def timed_by_the_wall_clock(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns and how many milliseconds it took."""
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request that was checked."""

    batch: dict[str, Any]
    """Its observation, `(1, ...)` by LeRobot's names."""

    sizes: Hashable
    """Of its images."""

    seed: int | None = None
    """Of what is drawn for it; None: from torch's global generator."""

    realtime: RealtimeRequest | None = None
    queue_ms: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Part:
    """The rows of one pass, with their places among all rows; `plans` has as many entries, or none."""

    places: Sequence[int]
    rows: Sequence[Row]
    plans: Sequence[PrefixPlan]


class Passes:
    """The forward passes of one policy.

    Args:
        model: The policy.
        processors: Its own.
        prefix: How it follows a running chunk; None: it does not.
        max_batch: Most rows of a pass; None: as many as come.
    """

    def __init__(
        self, model: Model, processors: Processors, prefix: Prefix | None, max_batch: int | None
    ) -> None:
        self._model = model
        self._processors = processors
        self._prefix = prefix
        self.by_row = model.noise.by_row and processors.by_row
        """Whether rows can share a pass: each is treated alone and draws alone."""
        self.most = max_batch if self.by_row else 1
        self._expected = ExpectedTime()
        self.timed: Timed = timed_by_the_wall_clock
        """Runs a pass and says how long it took."""

    def __repr__(self) -> str:
        return f"<Passes most={self.most} {self._expected!r}>"

    def forget(self) -> None:
        """Expect nothing of what was measured."""
        self._expected = ExpectedTime()

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """Return an answer for each row, in their order.

        A pass that fails is tried again row by row: what one robot sends must not fail the others.
        """
        answers: dict[int, Answer] = {}
        waited_ms = 0.0
        for part in self._parts(rows):
            waited_ms += self._answer(part, answers, waited_ms)
        return [answers[place] for place in range(len(rows))]

    def _parts(self, rows: Sequence[Row]) -> Iterator[_Part]:
        """Yield what goes into each pass; rows that follow a running chunk first, for their delay counts."""
        plans = self._plans(rows)
        groups: dict[tuple[bool, Hashable], list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault((place not in plans, row.sizes), []).append(place)
        for (free, _), group in sorted(groups.items(), key=lambda item: item[0][0]):
            for places in batched(group, self.most or len(group)):
                yield _Part(
                    places=places,
                    rows=[rows[place] for place in places],
                    plans=[] if free else [plans[place] for place in places],
                )

    def _plans(self, rows: Sequence[Row]) -> dict[int, PrefixPlan]:
        """Return what each row follows that follows something: now that it begins, its delay is known."""
        if self._prefix is None:
            return {}
        asking = {
            place: (row, row.realtime)
            for place, row in enumerate(rows)
            if row.realtime is not None and len(row.realtime.leftover)
        }
        size = min(len(asking), self.most or len(asking))
        infer_ms = self._expected.ms(follows=True, rows=size)
        plans = {
            place: self._prefix.plan(realtime, queue_ms=row.queue_ms, infer_ms=infer_ms)
            for place, (row, realtime) in asking.items()
        }
        return {place: plan for place, plan in plans.items() if plan is not None}

    def _answer(self, part: _Part, answers: dict[int, Answer], waited_ms: float) -> float:
        """Answer one part; return how many milliseconds it took."""
        try:
            chunks, infer_ms = self.timed(lambda: self._pass(part))
        except Exception as exc:
            if len(part.rows) == 1:
                answers[part.places[0]] = exc
                return 0.0
            logger.warning("a pass of %d rows failed; now each alone", len(part.rows), exc_info=exc)
            return self._one_by_one(part, answers, waited_ms)
        if any(row.realtime is not None for row in part.rows):
            self._expected.add(infer_ms, follows=bool(part.plans), rows=len(part.rows))
        plans: Sequence[PrefixPlan | None] = part.plans or [None] * len(part.rows)
        for place, row, plan, chunk in zip(part.places, part.rows, plans, chunks, strict=True):
            # A copy: an answer that somebody keeps must not keep the others' in memory.
            result: Result = {"actions": np.array(chunk, np.float32, order="C")}
            if self._prefix is not None and row.realtime is not None:
                reply = self._prefix.reply(
                    row.realtime, plan, queue_ms=row.queue_ms + waited_ms, infer_ms=infer_ms
                )
                result = with_realtime_reply(result, reply)
            answers[place] = result
        return infer_ms

    def _one_by_one(self, part: _Part, answers: dict[int, Answer], waited_ms: float) -> float:
        took_ms = 0.0
        for at, place in enumerate(part.places):
            alone = _Part(places=[place], rows=[part.rows[at]], plans=part.plans[at : at + 1])
            took_ms += self._answer(alone, answers, waited_ms + took_ms)
        return took_ms

    def _pass(self, part: _Part) -> Float32Array:
        led = [row.realtime for row in part.rows if row.realtime is not None]
        batch, leftovers = self._processors.prepared(
            [row.batch for row in part.rows], padded(led) if part.plans else None
        )
        options: dict[str, Any] = {}
        if self._prefix is not None and leftovers is not None and part.plans:
            options = self._prefix.options(leftovers, part.plans)
        chunks = self._model.chunks(batch, [row.seed for row in part.rows], options)
        return self._processors.finished(chunks)
