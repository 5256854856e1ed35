# SPDX-License-Identifier: Apache-2.0
"""A robot's joints as they were read, beside what the policy expects. Pure."""

from __future__ import annotations

import statistics

import numpy as np

from pi05_websocket.doctor.facts import RobotFacts, Setup
from pi05_websocket.doctor.findings import Finding, found, passed

__all__ = ["check_robot"]

_RADIANS = 3.2
_SLACK = 5.0
"""Degrees or percent that a joint may be beyond its calibrated range: a hand pushes it there."""
_GRIPPER_SLACK = 10.0


def check_robot(robot: RobotFacts, setup: Setup) -> list[Finding]:
    """Return what is to be said of the joints, their units, and the loop."""
    key_map = setup.key_map
    names = [name.removesuffix(".pos") for name in key_map.joint_names]
    if key_map.state_dim not in (None, len(robot.pose)):
        said = (
            f"the robot has {len(robot.pose)} joints, key map {key_map.name!r} {key_map.state_dim}"
        )
        return [found("robot", "joint-count", said)]
    if len(names) != len(robot.pose):
        names = [f"joint {number}" for number in range(len(robot.pose))]
    wrong = [name for name, value in zip(names, robot.pose, strict=True) if not np.isfinite(value)]
    if wrong:
        return [found("robot", "joint-not-finite", f"no number: {', '.join(wrong)}")]
    findings = _units(robot, setup, names)
    if robot.calibrated is False:
        said = "the motors hold another calibration than the file"
        findings.append(found("robot", "calibration-differs", said))
    findings += _ranges(robot, setup, names)
    shown = ", ".join(f"{name} {value:.1f}" for name, value in zip(names, robot.pose, strict=True))
    if not findings:
        findings.append(passed("robot", shown))
    findings.append(_rate(robot, setup))
    return findings


def _units(robot: RobotFacts, setup: Setup, names: list[str]) -> list[Finding]:
    expected = setup.policy_units or setup.key_map.unit_system
    if robot.units and expected and robot.units != expected and setup.units is None:
        said = f"the driver counts {robot.units}, the policy {expected}, and nothing is converted"
        return [found("robot", "robot-units", said)]
    degrees = setup.units is None and expected in ("", "lerobot", "degrees")
    body = [abs(float(v)) for name, v in zip(names, robot.pose, strict=True) if name != "gripper"]
    if degrees and not robot.units and max(body, default=0.0) > 0.0 and max(body) <= _RADIANS:
        said = f"no joint is farther than {max(body):.2f} from 0"
        return [found("robot", "robot-in-radians", said)]
    return []


def _ranges(robot: RobotFacts, setup: Setup, names: list[str]) -> list[Finding]:
    findings = []
    for name, value in zip(names, robot.pose.tolist(), strict=True):
        low, high = setup.joint_ranges.get(name, (-np.inf, np.inf))
        if not low - _SLACK <= value <= high + _SLACK:
            said = f"{name} is at {value:.1f}, its calibrated range is {low:.1f} to {high:.1f}"
            findings.append(found("robot", "pose-beyond-calibration", said))
        elif _percent(name, setup) and not -_GRIPPER_SLACK <= value <= 100 + _GRIPPER_SLACK:
            said = f"the gripper is at {value:.1f}, expected 0 (closed) to 100"
            findings.append(found("robot", "gripper-not-percent", said))
    return findings


def _percent(name: str, setup: Setup) -> bool:
    """Say whether a joint is a gripper that counts 0 to 100."""
    key_map = setup.key_map
    so101 = key_map.state_dim == 6 and key_map.unit_system != "radians"
    return name == "gripper" and so101 and setup.units is None


def _rate(robot: RobotFacts, setup: Setup) -> Finding:
    took, tick = statistics.median(robot.read_s), 1.0 / setup.control_hz
    said = (
        f"reading takes {1000 * took:.1f} ms, a tick of {setup.control_hz:g} Hz {1000 * tick:.1f}"
    )
    return found("robot", "loop-too-slow", said) if took > tick else passed("robot", said)
