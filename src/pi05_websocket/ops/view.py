# SPDX-License-Identifier: Apache-2.0
"""What the page shows, as plain maps, lists, texts and numbers. Pure.

In: statistics, how the server is, the newest of each robot, the time. Out: `/api/state`.
Texts of robots and policies go through as they are: the page must show them as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pi05_websocket.ops.pictures import image_names, prompt_of
from pi05_websocket.ops.robot import Figures, Robot
from pi05_websocket.ops.statistics import Departed, Statistics
from pi05_websocket.ops.verdict import LEVELS, judge
from pi05_websocket.server.records import RequestRecord, ServerState, UpstreamStanding

__all__ = ["Surroundings", "model_of", "state_of", "view"]

_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What does not come from robots."""

    policy: str
    """What the server was told to serve."""

    started: float
    """On the clock of `now`."""

    can_act: bool
    """Whether there are keys that may pause, drain and disconnect."""

    absent: str
    """Why the server does not run, while it does not."""

    lag_ms: float | None = None
    """How long the robots' event loop let us wait the last time; None: it has not answered."""

    silent_s: float | None = None
    """How long it has not answered us; None: it does."""


def view(
    statistics: Statistics,
    state: ServerState | None,
    newest: Mapping[int, RequestRecord],
    around: Surroundings,
    now: float,
) -> dict[str, Any]:
    """Return everything the page shows; robots in trouble first."""
    robots = [
        _robot(robot, robot.figures(now), newest.get(number))
        for number, robot in statistics.robots.items()
    ]
    robots.sort(key=_trouble)
    return {
        "server": _server(state, around, now),
        "model": {} if state is None else model_of(state.metadata),
        "upstreams": [] if state is None else [_upstream(each) for each in state.upstreams],
        "totals": {"robots": len(robots), **asdict(statistics.fleet.totals(now))},
        "robots": robots,
        "departed": [_departed(gone, now) for gone in statistics.departed(now)],
    }


def state_of(state: ServerState | None, around: Surroundings) -> tuple[str, str]:
    """Return the server's state in a word, and why: `ready`, `paused`, `draining`, `unready` or `silent`."""
    if around.silent_s is not None:
        return "silent", f"its event loop has not answered for {around.silent_s:.1f} s"
    if state is None:
        return "unready", around.absent
    if state.unready is None:
        return "ready", ""
    word = "draining" if state.draining else "paused" if state.paused else "unready"
    return word, state.unready


def model_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the metadata says of the model, under the names the page and the metrics use."""
    name = next((metadata[key] for key in ("model", "policy", "name") if key in metadata), "")
    fingerprint = metadata.get("fingerprint", "")
    if isinstance(fingerprint, Mapping):
        parts = (f"{key} {str(value)[:12]}" for key, value in sorted(fingerprint.items()))
        fingerprint = ", ".join(parts)
    names = metadata.get("action_names")
    return {
        "model": _text(name),
        "version": _text(metadata.get("version", "")),
        "fingerprint": _text(fingerprint),
        "action_names": [_text(n) for n in names[:32]] if isinstance(names, list | tuple) else [],
    }


def _text(value: Any) -> str:
    return str(value)[:_LONGEST] if isinstance(value, str | int | float) else ""


def _server(state: ServerState | None, around: Surroundings, now: float) -> dict[str, Any]:
    word, why = state_of(state, around)
    return {
        "state": word,
        "why": why,
        "policy": around.policy,
        "up_s": now - around.started,
        "waiting": 0 if state is None else state.waiting,
        "paused": state is not None and state.paused,
        "draining": state is not None and state.draining,
        "can_act": around.can_act,
        "can_pause": state is not None and state.can_pause,
        "lag_ms": around.lag_ms,
    }


def _upstream(upstream: UpstreamStanding) -> dict[str, Any]:
    word = "sound" if upstream.sound else "not relied on" if upstream.usable else "away"
    return {
        "url": _text(upstream.url),
        "word": word,
        "why": _text(upstream.trouble.removeprefix(f"{upstream.url}: ")),
        "connections": upstream.connections,
        "under_way": upstream.under_way,
        "turnaround_ms": 1000 * upstream.turnaround_s or None,
    }


def _robot(robot: Robot, figures: Figures, newest: RequestRecord | None) -> dict[str, Any]:
    verdict = judge(figures)
    said = asdict(figures)
    now = robot.since + figures.connected_s
    said["errors"] = [
        {"words": error.words, "times": error.times, "ago_s": now - error.at}
        for error in figures.errors
    ]
    observation = None if newest is None else newest.observation
    return {
        "connection": robot.opened.connection,
        "who": robot.opened.who,
        "peer": robot.opened.peer,
        "path": robot.opened.path,
        "level": verdict.level,
        "verdict": verdict.words,
        "lost": figures.missed + figures.refused.get("busy", 0) + figures.refused.get("late", 0),
        **said,
        "prompt": prompt_of(observation),
        "images": image_names(observation),
        "newest": None if newest is None else newest.number,
        "has_plan": newest is not None and newest.actions is not None,
    }


def _trouble(robot: Mapping[str, Any]) -> tuple[int, float, float, int]:
    share_lost = robot["lost"] / max(robot["asked"], 1)
    return LEVELS.index(robot["level"]), -share_lost, -(robot["p50_ms"] or 0.0), robot["connection"]


def _departed(gone: Departed, now: float) -> dict[str, Any]:
    return {
        "who": gone.who,
        "host": gone.host,
        "words": gone.words,
        "failed": gone.failed,
        "times": gone.times,
        "ago_s": now - gone.at,
    }
