# SPDX-License-Identifier: Apache-2.0
"""Which requests the policy is asked for next, together: by urgency, class and fairness. Pure.

In: who waits, the time, how long batches take. Out: a batch, those that cannot be answered in time, or how long
to wait for more.

    now ──── expected end of the batch ──── due: the robot runs out of rows ──── deadline: no row is of use
                                    slack ◄─┤  the least slack first             refused if it cannot be met

A batch is formed when the policy is free, from everything that waits: never on a timer, unless the settings say
so, and never beyond what the most urgent can afford. In the order:

1. the priority class; who has waited long goes up a class;
2. while nobody need hold: who is due first. A robot that does not say when stands still until it is answered,
   so its arrival counts;
3. once somebody must: who has waited the longest share of what it can afford, so that under overload all are
   served alike and nobody starves. The earliest first would serve requests that are nearly lost.

The batch grows while nobody in it is late for it and a larger one answers more requests a second.
Why so and not otherwise: `docs/decisions/0014-batches-by-deadline.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from pi05_websocket.server.sessions import Waiting

__all__ = ["BatchSettings", "Plan", "batches_ahead", "plan_batch"]

_AFFORDS_S = 1.0
"""How long a robot that does not say when it is due can afford to wait, for the comparison under overload."""

_LEAST_AFFORDED_S = 0.1
"""And the least that any counts for: one that is out of rows must not outweigh all others."""

_PROMOTED_AFTER_S = 2.0
"""After so long without an answer a robot goes up a class, and after twice as long two. A newer observation
in the place of the last one does not begin anew."""

_DOUBTED_AFTER_S = 1.0
"""A policy that has done nothing for as long, because all would be late, is asked once to see."""

_NEVER = float("inf")

_WORTH_IT = 0.97
"""A larger batch is taken although it answers this little less a second: medians differ by 3 % by chance."""


C = TypeVar("C", bound=Waiting[Any, Any])

Expect = Callable[[Hashable, int], float]
"""Group and size of a batch to the seconds it takes; see `model_time.ModelTimes.expect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What the policy allows and its owner wants."""

    max_batch: int = 1
    """Most requests the policy takes at once."""

    window_s: float = 0.0
    """Longest time the first request waits for others to share its batch, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[C]):
    """What to do now."""

    batch: list[C] = field(default_factory=list)
    """Ask the policy for these."""

    late: list[C] = field(default_factory=list)
    """Refuse these: not even an idle policy would answer them in time."""

    wait_until: float | None = None
    """Nothing to ask yet, but at this time at the latest."""


def plan_batch(
    waiting: Sequence[C],
    now: float,
    expect: Expect,
    settings: BatchSettings,
    *,
    idle_s: float = 0.0,
) -> Plan[C]:
    """Return what to do with the requests that may be taken now, for a policy that is free.

    Args:
        waiting: The oldest of each robot.
        now: The time.
        expect: How long batches take.
        settings: What the policy allows.
        idle_s: How long the policy has had nothing to do. What it took then may be wrong by now: a first
            inference compiles, and if all are refused because of it, nothing else is ever measured.
    """
    late = [request for request in waiting if _too_late(request, now, expect)]
    hopeful = [request for request in waiting if not _too_late(request, now, expect)]
    if not hopeful:
        if late and idle_s >= _DOUBTED_AFTER_S:
            tried = max(late, key=lambda request: request.deadline or 0.0)
            return Plan(batch=[tried], late=[request for request in late if request is not tried])
        return Plan(late=late)
    order = _in_order(hopeful, now, expect, settings.max_batch)
    together = _together(order, settings.max_batch)
    size = _size(together, now, expect)
    until = _wait_until(together, size, now, expect, settings)
    if now < until:
        return Plan(late=late, wait_until=until)
    return Plan(late=late, batch=together[:size])


def batches_ahead(waiting: int, expect: Expect, group: Hashable, settings: BatchSettings) -> float:
    """Return the seconds that a policy takes for so many requests."""
    whole, rest = divmod(waiting, settings.max_batch)
    seconds = whole * expect(group, settings.max_batch)
    return seconds + (expect(group, rest) if rest else 0.0)


def _too_late(request: Waiting[Any, Any], now: float, expect: Expect) -> bool:
    return request.deadline is not None and now + expect(request.group, 1) > request.deadline


def _due(request: Waiting[Any, Any]) -> float:
    return request.arrived if request.due is None else request.due


def _must_end_by(request: Waiting[Any, Any], now: float, expect: Expect) -> float:
    """Return when a batch with it must be over: before its robot holds, if possible, and while it is of use."""
    deadline = _NEVER if request.deadline is None else request.deadline
    if request.due is None or now + expect(request.group, 1) > request.due:
        return deadline
    return min(request.due, deadline)


def _rank(request: Waiting[Any, Any], now: float) -> int:
    promoted = int((now - request.since) / _PROMOTED_AFTER_S)
    return max(request.priority - promoted, 0)


def _in_order(waiting: list[C], now: float, expect: Expect, max_batch: int) -> list[C]:
    by_due = sorted(waiting, key=lambda request: (_rank(request, now), _due(request)))
    if _nobody_holds(by_due, now, expect, max_batch):
        return by_due
    return sorted(waiting, key=lambda request: (_rank(request, now), -_share_waited(request, now)))


def _share_waited(request: Waiting[Any, Any], now: float) -> float:
    affords_s = _AFFORDS_S if request.due is None else request.due - request.arrived
    return (now - request.since) / max(affords_s, _LEAST_AFFORDED_S)


def _nobody_holds(order: list[C], now: float, expect: Expect, max_batch: int) -> bool:
    """Whether in this order, batch after batch, nobody is late who need not be."""
    bounds = {id(request): _must_end_by(request, now, expect) for request in order}
    if min(bounds.values()) == _NEVER:
        return True
    lines: dict[Hashable, deque[C]] = {}
    for request in order:
        lines.setdefault(request.group, deque()).append(request)
    for request in order:
        line = lines[request.group]
        if not line or line[0] is not request:
            continue  # it was in an earlier batch
        size = _size(list(islice(line, max_batch)), now, expect)
        now += expect(request.group, size)
        if any(bounds[id(line.popleft())] < now for _ in range(size)):
            return False
    return True


def _together(order: list[C], max_batch: int) -> list[C]:
    """Return those that could share a batch with the first."""
    return [request for request in order if request.group == order[0].group][:max_batch]


def _size(together: Sequence[C], now: float, expect: Expect) -> int:
    """Return how many of them to ask for: the most that are all in time and are worth it; one at least."""
    group, size, most = together[0].group, 1, _a_second(expect, together[0].group, 1)
    bound = _must_end_by(together[0], now, expect)
    for count, request in enumerate(together[1:], 2):
        bound = min(bound, _must_end_by(request, now, expect))
        if now + expect(group, count) > bound:
            break
        answered = _a_second(expect, group, count)
        most = max(most, answered)
        if answered >= _WORTH_IT * most:
            size = count
    return size


def _a_second(expect: Expect, group: Hashable, size: int) -> float:
    seconds = expect(group, size)
    return size / seconds if seconds > 0.0 else float("inf")


def _wait_until(
    together: Sequence[C], size: int, now: float, expect: Expect, settings: BatchSettings
) -> float:
    """Return until when others may still join this batch; the past when nobody is to be waited for."""
    if size >= settings.max_batch or size < len(together):
        return float("-inf")
    seconds = expect(together[0].group, size + 1)
    bounds = [_must_end_by(request, now, expect) - seconds for request in together]
    return min([min(request.arrived for request in together) + settings.window_s, *bounds])
