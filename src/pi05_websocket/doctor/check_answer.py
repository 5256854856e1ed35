# SPDX-License-Identifier: Apache-2.0
"""A server's answer beside the pose it was asked with, and how long answers take. Pure.

What one chunk shows is evidence, no proof: only what nothing else explains is refused.
"""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import numpy.typing as npt

from pi05_websocket.chunks.budget import Measured, budget
from pi05_websocket.doctor.facts import AnswerFacts, Setup
from pi05_websocket.doctor.findings import Finding, found, passed

__all__ = ["check_answer", "check_rates", "check_timing"]

_NEAR = 4.0
"""Degrees or percent that a first row may be off at least."""
_STEPS = 3.0
"""Of the plan's own steps."""
_MANY = 8
"""Joints above which orders are not tried."""

Vector = npt.NDArray[np.float64]


def check_answer(answer: AnswerFacts, setup: Setup) -> list[Finding]:
    """Return what the first row says about units, signs and order."""
    rows, pose = answer.rows.astype(np.float64), answer.pose
    said = f"{rows.shape[0]} rows of {rows.shape[1]} values"
    if setup.action_kind != "absolute":
        return [
            passed("answer", f"{said}; {setup.action_kind} actions are not compared with the pose")
        ]
    if not rows.any() and (pose is None or pose.any()):
        return [found("answer", "answer-of-zeros", f"{said}, all of them 0")]
    if pose is None or len(pose) != rows.shape[1]:
        return [passed("answer", said)]
    at, first = pose.astype(np.float64), rows[0]
    near = np.maximum(_STEPS * np.maximum(answer.step, answer.step.mean()), _nearest(setup))
    off = np.abs(first - at) > near
    if not off.any():
        return [passed("answer", f"{said}; the first one is near the pose")]
    names = _names(setup, len(at))
    table = "; ".join(
        f"{name} is at {here:.1f}, first row {there:.1f}"
        for name, here, there, far in zip(names, at, first, off, strict=True)
        if far
    )
    mistake, fix = _explained(first, at, rows, near, off, names)
    return [found("answer", mistake, table, fix=fix)]


def _explained(
    first: Vector,
    at: Vector,
    rows: Vector,
    near: Vector,
    off: npt.NDArray[np.bool_],
    names: list[str],
) -> tuple[str, str]:
    """Return the mistake that explains the joints that are off, and its fix where it has figures."""
    far = [int(i) for i in np.flatnonzero(off)]
    large = [i for i in far if abs(at[i]) > 10]
    if len(large) >= 2 and all(abs(math.degrees(first[i]) - at[i]) <= near[i] for i in large):
        return "answer-in-radians", ""
    if len(large) >= 2 and np.abs(rows).max() < 0.25 * np.abs(at).max():
        return "answer-of-deltas", ""
    if all(names[i] == "gripper" and abs(100 * first[i] - at[i]) <= near[i] for i in far):
        return "answer-gripper-fraction", ""
    if all(abs(first[i] + at[i]) <= near[i] for i in far):
        signs = ", ".join(f"{names[i]}: -1" for i in far)
        return (
            "answer-sign",
            "Compare with how the arm moves in shadow mode; then "
            f"--policy.joint_signs='{{{signs}}}' with LeRobot, unit_map(signs=...) without.",
        )
    order = _order(first, at, near, far)
    if order is not None:
        shown = ", ".join(names[i] for i in order)
        named = "joint_names (--policy.joint_names, KeyMap.joint_names)"
        return "answer-order", f"If the policy's order is {shown}: give it as {named}."
    turns = [90 * round((first[i] - at[i]) / 90) for i in far]
    if all(
        turn and abs(first[i] - at[i] - turn) <= near[i] for i, turn in zip(far, turns, strict=True)
    ):
        offsets = ", ".join(f"{names[i]}: {turn}" for i, turn in zip(far, turns, strict=True))
        return (
            "answer-offset",
            "If the arm is calibrated as the data set's was not: "
            f"--policy.joint_offsets='{{{offsets}}}' with LeRobot, unit_map(offsets=...) without.",
        )
    return "answer-far", ""


def _order(first: Vector, at: Vector, near: Vector, far: list[int]) -> list[int] | None:
    """Return which joint's pose each value of the row is near to, where that is another order."""
    if not 2 <= len(far) <= _MANY:
        return None
    for tried in itertools.permutations(far):
        if all(abs(first[i] - at[j]) <= near[i] for i, j in zip(far, tried, strict=True)):
            order = list(range(len(at)))
            for i, j in zip(far, tried, strict=True):
                order[i] = j
            return order
    return None


def _nearest(setup: Setup) -> float:
    radians = "radians" in (setup.policy_units, setup.key_map.unit_system)
    return math.radians(_NEAR) if radians else _NEAR


def _names(setup: Setup, count: int) -> list[str]:
    names = [name.removesuffix(".pos") for name in setup.key_map.joint_names]
    return names if len(names) == count else [f"joint {number}" for number in range(count)]


def check_rates(setup: Setup) -> list[Finding]:
    """Return whether the loop runs at the rate that the policy's settings say; nothing where it does."""
    loop, policy = setup.loop_hz, setup.control_hz
    if loop is None or abs(loop - policy) <= 0.01 * policy:
        return []
    said = f"the loop will run at {loop:g} Hz (--fps), the policy's rows are {policy:g} a second"
    return [found("timing", "rates-differ", said)]


def check_timing(answer: AnswerFacts, setup: Setup) -> list[Finding]:
    """Return whether answers come in time, and what takes the time."""
    ping = statistics.median(answer.ping_s) if answer.ping_s else None
    rows = len(answer.rows)
    measured = Measured(
        round_trips_s=answer.round_trips_s,
        infer_s=answer.infer_s,
        ping_s=ping,
        bytes_out=answer.bytes_out,
        rows=rows,
    )
    plan = budget(measured, control_hz=setup.control_hz, action_kind=setup.action_kind)
    median = statistics.median(answer.round_trips_s)
    said = f"round trip {1000 * median:.0f} ms, jitter {1000 * _jitter(answer):.0f}"
    if answer.infer_s is not None:
        said += f", model {1000 * answer.infer_s:.0f}"
    if ping is not None:
        said += f", empty message {1000 * ping:.1f}"
    said += f"; {answer.bytes_out / 1e6:.2f} MB"
    if plan.upload_s:
        said += f" at {8 * answer.bytes_out / plan.upload_s / 1e6:.0f} Mbit/s"
    said += f"; {plan.delay} of {rows // 2} possible ticks"
    findings = []
    horizon = setup.action_horizon
    if horizon is not None and horizon > rows:
        findings.append(
            found(
                "timing", "horizon-beyond-chunk", f"action_horizon {horizon}, chunk of {rows} rows"
            )
        )
    if not plan.feasible:
        sending = plan.upload_s is not None and plan.upload_s > median / 2
        findings.append(found("timing", "uplink-too-slow" if sending else "delay-too-long", said))
    return findings or [passed("timing", said)]


def _jitter(answer: AnswerFacts) -> float:
    return max(answer.round_trips_s) - min(answer.round_trips_s)
