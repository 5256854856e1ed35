# SPDX-License-Identifier: Apache-2.0
"""How a robot is doing, in words: whether it suffers, and from what. Pure.

In: `Figures`. Out: a sentence, and how bad it is. The first rule that applies wins; the worst comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pi05_websocket.ops.robot import Figures, Split
from pi05_websocket.ops.words import percent

__all__ = ["LEVELS", "Level", "Verdict", "judge"]

Level = Literal["bad", "warn", "idle", "fine"]
"""`bad`: somebody should look; `warn`: perhaps; `idle`: nothing to judge; `fine`."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""From the worst on."""

_WAITS_S = 5.0
_SILENT_S = 5.0
_SILENT_GAPS = 4.0
"""A robot is silent after so many of its usual gaps, and never before `_SILENT_S`."""

_NEW_S = 10.0
_FEW_LOST = 0.02
"""One reply in fifty too late: a chunk bridges that."""
_MANY_LOST = 0.1
_REPLACED = 0.2
_QUEUE_MS = 100.0
"""Longest wait that a robot which states no deadline is not asked about: three ticks at 30 Hz."""
_FAR_MS = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a robot is doing."""

    level: Level
    words: str


def judge(figures: Figures) -> Verdict:
    """Return how a robot is doing."""
    return (
        _waits(figures)
        or _silent(figures)
        or _asks_too_often(figures)
        or _loses(figures)
        or _queues(figures)
        or _replaced(figures)
        or Verdict(level="fine", words=_fine(figures.split))
    )


def _waits(figures: Figures) -> Verdict | None:
    waited_s = figures.waiting_s
    if waited_s is None or waited_s < _WAITS_S:
        return None
    words = (
        f"suffers: has waited {waited_s:.0f} s for an answer, the policy is busy, paused or stuck"
    )
    return Verdict(level="bad", words=words)


def _silent(figures: Figures) -> Verdict | None:
    if figures.waiting_s is not None:
        return None
    if figures.total == 0:
        if figures.connected_s < _NEW_S:
            return Verdict(level="idle", words="has just come, and not asked yet")
        words = f"has not asked in the {figures.connected_s:.0f} s it is here"
        return Verdict(level="warn", words=words)
    if figures.silent_s < max(_SILENT_S, _SILENT_GAPS * (figures.gap_s or 0.0)):
        return None
    return Verdict(level="warn", words=f"silent for {figures.silent_s:.0f} s")


def _asks_too_often(figures: Figures) -> Verdict | None:
    refused = figures.refused.get("rate", 0)
    if refused <= _FEW_LOST * figures.asked:
        return None
    words = (
        f"sends too often: {percent(refused, figures.asked)} refused, its key allows fewer a second"
    )
    return Verdict(level="bad", words=words)


def _loses(figures: Figures) -> Verdict | None:
    busy, late = figures.refused.get("busy", 0), figures.refused.get("late", 0)
    lost = figures.missed + busy + late
    if lost <= _FEW_LOST * figures.asked:
        return None
    words = f"suffers: {percent(lost, figures.asked)} too late; {_culprit(figures, busy, late)}"
    return Verdict(level="bad" if lost > _MANY_LOST * figures.asked else "warn", words=words)


def _culprit(figures: Figures, busy: int, late: int) -> str:
    split = figures.split
    network = 0.0 if split is None else split.network or 0.0
    # Who is refused for want of time lost it on the way, where that is most of the round trip.
    nearby = split is None or network < split.total / 2
    if nearby and busy > max(late, figures.missed):
        return f"{busy} refused, the policy is the bottleneck"
    if split is None:
        return "its deadlines are shorter than an inference takes"
    parts = {
        split.queue: f"waits {split.queue:.0f} ms in the queue, the policy is the bottleneck",
        network: f"network {network:.0f} ms of {split.total:.0f} ms",
        split.model: f"one inference takes {split.model:.0f} ms of {split.total:.0f} ms",
        split.rest: f"encoding and sending take {split.rest:.0f} ms, the server's processor is busy",
    }
    return parts[max(parts)]


def _queues(figures: Figures) -> Verdict | None:
    """A robot that states no deadline suffers too, in silence."""
    split = figures.split
    if split is None or figures.due_ms is not None:
        return None
    if split.queue < _QUEUE_MS or split.queue < split.model:
        return None
    words = f"suffers: waits {split.queue:.0f} ms in the queue, the policy is the bottleneck"
    return Verdict(level="bad", words=words)


def _replaced(figures: Figures) -> Verdict | None:
    replaced = figures.refused.get("superseded", 0)
    if replaced <= _REPLACED * figures.asked:
        return None
    share = percent(replaced, figures.asked)
    words = f"asks faster than it is answered: {share} of its observations replaced by newer ones"
    return Verdict(level="warn", words=words)


def _fine(split: Split | None) -> str:
    if split is None or (split.network or 0.0) < _FAR_MS:
        return "fine"
    return f"fine, though far away: network {split.network:.0f} ms"
