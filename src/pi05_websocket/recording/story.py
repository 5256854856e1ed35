# SPDX-License-Identifier: Apache-2.0
"""Why the arm paused or jumped: found in what happened at each tick. Pure.

In: the lines of a recording, or of a trace file. Out: pauses with their causes and what came before, and the
largest steps between two commands with the chunks they lie between. `words` says it in sentences.
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Jump", "Line", "Pause", "Story", "tell"]

Line = Mapping[str, Any]

_HELD = ("hold", "zero")
_NOTED = ("held", "outage", "state")
"""Lines that say something about a pause."""
_NEEDED = ("tick", "episode", "seq", "row")
_OPTIONAL = {"exchange": ("round_trip_ms", "server_ms"), "gap": ("lost",)}
_MOST = 1e15
_UNUSUAL = 3.0
"""Times the joint's own 95th percentile: a step that is larger is a jump."""
_ALIKE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Ticks in a row without a row of a chunk."""

    begin_s: float
    """On the machine's monotonic clock."""
    end_s: float
    """When a row was commanded again, or the last tick."""
    first_tick: int
    ticks: int
    episode: int
    causes: tuple[tuple[str, int], ...]
    """Name and ticks, in the order in which they came."""
    said: tuple[str, ...]
    """What was said of it at the time: with figures."""
    stopped: str | None
    """`coast` or `stop` where the pause went so far; None: a short one."""
    latched: bool
    """Whether only a person could end it."""
    before: Line | None
    """The last tick before it that had a row; None: none had in this episode."""
    exchange: Line | None
    """The last answer that came before it."""
    failed: tuple[Line, ...]
    """Requests that failed from a moment before its begin to its end."""
    after: Line | None
    """The first tick with a row after it; None: there was none."""

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end_s - self.begin_s

    @property
    def cause(self) -> str:
        """The cause that began it."""
        return self.causes[0][0]

    @property
    def main_cause(self) -> str:
        """The cause of most of its ticks."""
        return max(self.causes, key=lambda named: named[1])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A step between two commands that is large for its joint."""

    at_s: float
    tick: int
    joint: int
    step: float
    """In action units."""
    usual: float
    """The joint's 95th percentile of steps."""
    before: Line
    after: Line

    @property
    def where(self) -> str:
        """Where in the plan it lies: `seam`, `inside a chunk`, `pause` or `skipped ticks`."""
        before, after = self.before, self.after
        if after["tick"] - before["tick"] > 1:
            return "skipped ticks"
        if before["source"] in _HELD or after["source"] in _HELD:
            return "pause"
        if before["seq"] != after["seq"]:
            return "seam"
        return "inside a chunk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a recording tells."""

    ticks: tuple[Line, ...]
    exchanges: tuple[Line, ...]
    failed: tuple[Line, ...]
    pauses: tuple[Pause, ...]
    jumps: tuple[Jump, ...]
    """Largest first."""
    handovers: tuple[tuple[Line, Line], ...]
    """Of several servers: the last answer of one and the first of the next."""
    skipped: int
    """Ticks at which nothing was commanded, because the loop was late."""
    lost: int
    """Messages that the recorder had to leave out."""
    steps: tuple[float, ...]
    """Of each joint, the 95th percentile of steps while it moves."""

    @property
    def seconds(self) -> float:
        """From the first command to the last."""
        return float(self.ticks[-1]["time_s"] - self.ticks[0]["time_s"]) if self.ticks else 0.0

    @property
    def held_by_cause(self) -> dict[str, int]:
        """Ticks without a row, by cause."""
        held = Counter(_cause(tick) for tick in self.ticks if tick["source"] in _HELD)
        return dict(held.most_common())


def tell(lines: Iterable[Line], *, most_jumps: int = 5) -> Story:
    """Return what the lines tell; lines of kinds that are not known are left alone."""
    by_kind: dict[str, list[Line]] = {}
    noted: list[Line] = []
    for line in lines:
        if not _sound(line):
            continue
        by_kind.setdefault(line["kind"], []).append(line)
        if line["kind"] in _NOTED:
            noted.append(line)
    ticks = [tick for tick in by_kind.get("tick", []) if "source" in tick]
    exchanges, failed = by_kind.get("exchange", []), by_kind.get("failed", [])
    begun = sorted(float(line["time_s"]) for line in by_kind.get("episode", []))
    pairs = [(old, new) for old, new in itertools.pairwise(ticks) if _follows(old, new, begun)]
    usual = _usual_steps(pairs)
    return Story(
        ticks=tuple(ticks),
        exchanges=tuple(exchanges),
        failed=tuple(failed),
        pauses=tuple(_pauses(ticks, exchanges, failed, noted, begun)),
        jumps=tuple(_jumps(pairs, usual)[:most_jumps]),
        handovers=_handovers(exchanges),
        skipped=sum(max(0, new["tick"] - old["tick"] - 1) for old, new in pairs),
        lost=sum(int(line.get("lost", 0)) for line in by_kind.get("gap", [])),
        steps=usual,
    )


def _sound(line: Line) -> bool:
    """Say whether what is reckoned with are numbers; a file may hold anything."""
    needed = ("time_s", *_NEEDED) if line["kind"] == "tick" else ("time_s",)
    given = [name for name in _OPTIONAL.get(line["kind"], ()) if line.get(name) is not None]
    if not all(_is_number(line.get(name)) for name in (*needed, *given)):
        return False
    if line["kind"] != "tick":
        return True
    values = line.get("values")
    return isinstance(values, list) and bool(values) and all(map(_is_number, values))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -_MOST < value < _MOST


def _episode(tick: Line, begun: Sequence[float]) -> int:
    """Return how many episodes had begun: a tick's own number also counts the plans that a pause has ended."""
    return bisect.bisect_right(begun, tick["time_s"])


def _follows(old: Line, new: Line, begun: Sequence[float]) -> bool:
    if _episode(old, begun) != _episode(new, begun) or len(old["values"]) != len(new["values"]):
        return False
    return bool(new["tick"] > old["tick"])


def _cause(tick: Line) -> str:
    return str(tick.get("cause") or "unknown")


def _pauses(
    ticks: Sequence[Line],
    exchanges: Sequence[Line],
    failed: Sequence[Line],
    noted: Sequence[Line],
    begun: Sequence[float],
) -> list[Pause]:
    found: list[Pause] = []
    groups = itertools.groupby(
        ticks, key=lambda tick: (_episode(tick, begun), tick["source"] in _HELD)
    )
    runs = [(episode, held, list(run)) for (episode, held), run in groups]
    for number, (episode, held, run) in enumerate(runs):
        if not held:
            continue
        before = runs[number - 1][2][-1] if number else None
        after = runs[number + 1][2][0] if number + 1 < len(runs) else None
        if after is not None and runs[number + 1][0] != episode:
            after = None
        begin = float(run[0]["time_s"])
        end = float(run[-1]["time_s"] if after is None else after["time_s"])
        # What is said at a tick is said before its line is written, and what went wrong a moment before that.
        since = float(before["time_s"]) if before is not None else begin - 1.0
        here = [line for line in noted if since <= line["time_s"] <= end]
        states = [line for line in here if line["kind"] == "state"]
        found.append(
            Pause(
                begin_s=begin,
                end_s=end,
                first_tick=run[0]["tick"],
                ticks=len(run),
                episode=episode,
                causes=_in_order(map(_cause, run)),
                said=_sentences(here),
                stopped=str(states[-1].get("state")) if states else None,
                latched=any(line.get("latched") for line in states),
                before=before if number and runs[number - 1][0] == episode else None,
                exchange=_last_before(exchanges, begin),
                failed=tuple(line for line in failed if since <= line["time_s"] <= end),
                after=after,
            )
        )
    return found


def _in_order(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    return tuple(counted.items())


def _sentences(noted: Sequence[Line]) -> tuple[str, ...]:
    """Return what was said, each once."""
    said = [line.get("text") or line.get("cause") for line in noted if line["kind"] != "state"]
    return tuple(dict.fromkeys(str(text) for text in said if text))


def _last_before(exchanges: Sequence[Line], moment: float) -> Line | None:
    found = [line for line in exchanges if line["time_s"] <= moment]
    return found[-1] if found else None


def _handovers(exchanges: Sequence[Line]) -> tuple[tuple[Line, Line], ...]:
    """Return where another server went on; hedged requests make two servers take turns, which is told too."""
    answered = [line for line in exchanges if isinstance(line.get("server"), str)]
    return tuple(
        (old, new) for old, new in itertools.pairwise(answered) if old["server"] != new["server"]
    )


def _usual_steps(pairs: Sequence[tuple[Line, Line]]) -> tuple[float, ...]:
    """Return each joint's 95th percentile of the steps that are steps at all."""
    if not pairs:
        return ()
    joints = max(len(new["values"]) for _, new in pairs)
    found = []
    for joint in range(joints):
        steps = [
            abs(new["values"][joint] - old["values"][joint])
            for old, new in pairs
            if joint < len(new["values"]) and new["tick"] == old["tick"] + 1
        ]
        moved = [step for step in steps if step > _ALIKE]
        found.append(
            statistics.quantiles(moved, n=20, method="inclusive")[-1]
            if len(moved) > 1
            else sum(moved)
        )
    return tuple(found)


def _jumps(pairs: Sequence[tuple[Line, Line]], usual: Sequence[float]) -> list[Jump]:
    """Return the steps that are large for their joint, one for each tick, largest first."""
    found: list[Jump] = []
    for old, new in pairs:
        steps = [n - o for o, n in zip(old["values"], new["values"], strict=True)]
        shares = [abs(step) / usual[j] if usual[j] else 0.0 for j, step in enumerate(steps)]
        joint = max(range(len(shares)), key=shares.__getitem__, default=None)
        if joint is None or shares[joint] < _UNUSUAL:
            continue
        found.append(
            Jump(
                at_s=float(new["time_s"]),
                tick=new["tick"],
                joint=joint,
                step=steps[joint],
                usual=usual[joint],
                before=old,
                after=new,
            )
        )
    return sorted(found, key=lambda jump: -abs(jump.step) / jump.usual)
