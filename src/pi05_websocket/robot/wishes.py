# SPDX-License-Identifier: Apache-2.0
"""What a person can want of a running robot, and what has come of it, in a sentence. Pure.

In: the control page's status before a wish and now. Out: an `Outcome`; None while there is nothing to say yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["WISHES", "Outcome", "Wish", "WishName", "last_word", "outcome"]

WishName = Literal["resume", "pause", "episode", "task", "quit"]
WISHES: tuple[WishName, ...] = get_args(WishName)

Status = Mapping[str, Any]

_SILENT_S = 1.0
"""A loop that has not ticked for so long grants nothing for now."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing a person wants."""

    name: WishName
    text: str = ""
    """The task."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a person is told."""

    text: str
    granted: bool = True


def outcome(name: WishName, task: str, before: Status, now: Status) -> Outcome | None:
    """Return what a wish has come to, if that can be seen already.

    Args:
        name: What is wanted.
        task: The task that is wanted.
        before: The status before.
        now: The present one.
    """
    if _silent_s(now) > _SILENT_S or not _ticked(before, now):
        return None  # the loop has not looked since
    if name == "pause" and now.get("latched"):
        return Outcome("The arm holds, whatever comes, until `resume`.")
    if name == "episode" and now.get("episode") != before.get("episode"):
        return Outcome(f"Episode {now.get('episode')} has begun.")
    if name == "task" and now.get("task") == task:
        return Outcome(f"The task is now: {task}")
    if name != "resume" or now.get("latched"):
        return None
    if now.get("state") == "dry run" and before.get("state") == "dry run":
        return None  # it was to be confirmed, and is not yet
    if now.get("state") == "dry run":
        return Outcome("It goes on, and only shows what it would do: this is a dry run.")
    if now.get("state") == "run":
        stopped = before.get("latched") or before.get("state") == "dry run"
        return Outcome("The arm moves." if stopped else "The arm was not stopped: it moves.")
    return None


def last_word(name: WishName, now: Status) -> Outcome:
    """Return what to say of a wish that nothing was seen of in time."""
    silent_s = _silent_s(now)
    if silent_s > _SILENT_S:
        known = math.isfinite(silent_s)
        since = f"has not looked for {silent_s:.0f} s" if known else "has not begun yet"
        return Outcome(f"Asked for. The control loop {since}; it does so when it looks.", False)
    because = f": {why}" if (why := now.get("why") or now.get("cause")) else ""
    if name != "resume":
        return Outcome(
            f"Asked for; nothing of it is to be seen. The robot's log says more{because}.", False
        )
    if now.get("latched"):
        return Outcome(
            f"It still holds{because}. Where that names another policy, `resume` once more.", False
        )
    if now.get("state") == "dry run":
        return Outcome("It is a dry run: nothing moves, whatever is wanted.", False)
    return Outcome(f"It may move, and waits for a plan from a fresh observation{because}.")


def _silent_s(status: Status) -> float:
    """Return for how many seconds the control loop has not looked; infinity before its first tick."""
    age_s = status.get("age_s")
    return math.inf if age_s is None else float(age_s)


def _ticked(before: Status, now: Status) -> bool:
    ticks = ("episode", "ticks")
    return any(before.get(each) != now.get(each) for each in ticks)
