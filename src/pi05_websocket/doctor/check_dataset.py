# SPDX-License-Identifier: Apache-2.0
"""A policy's rows beside recorded actions: which joint is off, and what explains it. Pure.

In: what the policy answered to recorded observations, and what was done then. Out: findings with figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.findings import Finding, found, passed

__all__ = ["Episode", "Replayed", "check_dataset", "check_episode"]

_MOVES = 1e-3
_FITS = 0.9
"""Correlation from which one number explains another."""
_UNITS = {"radians, recorded in degrees": 57.3, "degrees, recorded in radians": 1 / 57.3}
_SHARES = {"a fraction, recorded in percent": 100.0, "percent, recorded as a fraction": 0.01}

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A recorded episode, in the robot's names and units."""

    states: Float32Array
    """`(T, joints)`."""

    actions: Float32Array
    """`(T, joints)`."""

    images: Callable[[int], Mapping[str, npt.NDArray[Any]]]
    """Frame number to its pictures by camera."""

    fps: float
    tasks: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """All `(N, joints)`, one after the other, policy units."""

    predicted: Rows
    recorded: Rows
    pose: Rows
    """The pose that each row was planned from."""


def check_episode(episode: Episode, setup: Setup) -> list[Finding]:
    """Return what an episode says of the settings, before anybody is asked."""
    findings = []
    if setup.task and setup.task not in episode.tasks:
        said = f"{setup.task!r} is none of {', '.join(map(repr, episode.tasks))}"
        findings.append(found("data set", "dataset-prompt", said))
    if abs(episode.fps - setup.control_hz) > 0.01 * setup.control_hz:
        said = f"recorded at {episode.fps:g} Hz, the loop will run at {setup.control_hz:g}"
        findings.append(found("data set", "dataset-rate", said))
    return findings


def check_dataset(replayed: Replayed, setup: Setup) -> list[Finding]:
    """Return each joint's error, and what explains those that are off."""
    ours, theirs, pose = replayed.predicted, replayed.recorded, replayed.pose
    names = [name.removesuffix(".pos") for name in setup.key_map.joint_names]
    if len(names) != ours.shape[1]:
        names = [f"joint {number}" for number in range(ours.shape[1])]
    error = np.sqrt(((ours - theirs) ** 2).mean(axis=0))
    still = np.sqrt(((pose - theirs) ** 2).mean(axis=0))
    said = ", ".join(f"{name} {value:.1f}" for name, value in zip(names, error, strict=True))
    far = [i for i in range(len(names)) if error[i] > max(still[i], _MOVES)]
    if not far:
        return [passed("data set", f"error by joint: {said}")]
    order = _order(ours, theirs, far)
    if order:
        shown = ", ".join(f"{names[i]} is {names[j]}" for i, j in order.items())
        return [found("data set", "dataset-order", f"error by joint: {said}; the policy's {shown}")]
    explained = [_explained(ours[:, i], theirs[:, i], names[i]) for i in far]
    findings = [found("data set", name, text, fix=fix) for name, text, fix in explained if name]
    return findings or [found("data set", "dataset-far", f"error by joint: {said}")]


def _explained(ours: Rows, theirs: Rows, name: str) -> tuple[str, str, str]:
    """Return the mistake that turns a joint's rows into the recorded ones; an empty one: none does."""
    if abs(_alike(ours, theirs)) < _FITS:
        return "", "", ""
    slope, offset = (float(value) for value in np.polyfit(ours, theirs, 1))
    line = f"{name}: recorded = {slope:.3g} * policy {offset:+.3g}"
    for unit, factor in (_UNITS | _SHARES).items():
        if abs(slope / factor - 1) < 0.2:
            return "dataset-units", f"{line}: the policy counts {unit}", ""
    if slope < 0:
        fix = f"--policy.joint_signs='{{{name}: -1}}' with LeRobot, unit_map(signs=...) without."
        return "dataset-sign", line, fix
    if abs(slope - 1) < 0.25:
        fix = f"--policy.joint_offsets='{{{name}: {-offset:.0f}}}' with LeRobot, unit_map(offsets=...) without."
        return "dataset-offset", line, fix
    return "", "", ""


def _order(ours: Rows, theirs: Rows, far: Sequence[int]) -> dict[int, int]:
    """Return whose recorded rows each joint's are, where they are another's and not its own."""
    order = {}
    for i in far:
        gaps = np.sqrt(((ours[:, [i]] - theirs) ** 2).mean(axis=0))
        j = int(gaps.argmin())
        if j != i and gaps[j] < 0.2 * gaps[i]:
            order[i] = j
    return order if len(order) > 1 and set(order) == set(order.values()) else {}


def _alike(ours: Rows, theirs: Rows) -> float:
    """Return the correlation; 0 where one of them does not move."""
    if ours.std() < _MOVES or theirs.std() < _MOVES:
        return 0.0
    return float(np.corrcoef(ours, theirs)[0, 1])
