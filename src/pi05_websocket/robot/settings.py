# SPDX-License-Identifier: Apache-2.0
"""Pauses, resumes, limits and units: from flat settings and LeRobot's files to the library's frozen configs.

In: seconds, joint names, a calibration file, a robot. Out: `HoldConfig`, `ResumeConfig`, `LimitsConfig` in
ticks and in the policy's joint order, and a `UnitMap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pi05_websocket.chunks.hold import HoldConfig
from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.calibration import read_calibration
from pi05_websocket.robot.limits import (
    LimitsConfig,
    angles_from_calibration,
    ranges_from_calibration,
)
from pi05_websocket.units import Unit, UnitMap, checked_unit, in_unit, unit_in, unit_map

__all__ = [
    "AS_IT_IS",
    "NEVER_LEFT",
    "UnitSettings",
    "hold_config",
    "joint_ranges",
    "limits_config",
    "ranges_of_robot",
    "resume_config",
]

NEVER_LEFT = HoldConfig(coast_ticks=None, auto_resume_ticks=None)
"""For simulators that wait: no arm can be hurt, and an episode that stops for good tells nothing."""


AS_IT_IS = ResumeConfig(max_jump=(float("inf"),))
"""For them too: they shall see the policy's own rows."""


def hold_config(
    *, pose: str, coast: float | None, auto_resume: float | None, control_hz: float
) -> HoldConfig:
    """Return what holding is; durations in seconds, None: never."""

    def ticks(name: str, seconds: float | None) -> int | None:
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ConfigError(f"{name}={seconds}: must be 0 or more seconds, or none for never")
        return None if seconds is None else round(seconds * control_hz)

    return HoldConfig(
        pose=pose,  # type: ignore[arg-type]  # checked there
        coast_ticks=ticks("coast", coast),
        auto_resume_ticks=ticks("auto_resume", auto_resume),
    )


def resume_config(*, jump: float | None, velocity: float | None, control_hz: float) -> ResumeConfig:
    """Return how motion begins; `velocity` in action units per second."""
    return ResumeConfig(
        max_jump=None if jump is None else (jump,),
        max_velocity=None if velocity is None else (velocity / control_hz,),
        max_ticks=max(1, round(control_hz)),
    )


def joint_ranges(
    *,
    joint_limits: Mapping[str, Sequence[float]],
    calibration_file: str | Path | None,
    joints: Sequence[str],
    units: Sequence[Unit],
) -> tuple[tuple[float, float], ...] | None:
    """Return each joint's range in the policy's order, the robot's units; None where nothing is known of any.

    Args:
        joint_limits: Joint to its smallest and largest target; a joint that is not named has no limit.
        calibration_file: LeRobot's file of the arm, for the joints that are not named.
        joints: Names in the policy's order.
        units: What the robot counts each of them in.

    Raises:
        ConfigError: An unknown joint, a range that is none, a file that cannot be read.
    """
    if not joint_limits and calibration_file is None:
        return None
    if not joints:
        raise ConfigError("limits for joints need `joint_names`: the key map does not know them")
    names = [joint.removesuffix(".pos") for joint in joints]
    ranges = dict.fromkeys(names, (-float("inf"), float("inf")))
    if calibration_file is not None:
        angles = angles_from_calibration(read_calibration(calibration_file), names)
        for name, unit in zip(names, units, strict=True):
            ranges[name] = in_unit(angles[name], unit)
    for joint, bounds in joint_limits.items():
        name = joint.removesuffix(".pos")
        if name not in ranges:
            raise ConfigError(f"joint_limits: no joint {joint!r}; there are {', '.join(names)}")
        if len(bounds) != 2:
            raise ConfigError(f"joint_limits: {joint}: expected [smallest, largest], got {bounds}")
        ranges[name] = (float(bounds[0]), float(bounds[1]))
    return tuple(ranges[name] for name in names)


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """What a person says about units; see the fields of the same names in the policy's settings."""

    robot_units: str = ""
    policy_units: str = ""
    robot_joint_units: Mapping[str, str] = field(default_factory=dict)
    policy_joint_units: Mapping[str, str] = field(default_factory=dict)
    joint_signs: Mapping[str, int] = field(default_factory=dict)
    joint_offsets: Mapping[str, float] = field(default_factory=dict)

    def robot_side(self, joints: Sequence[str]) -> list[Unit]:
        """Return what the robot counts each joint in; LeRobot's units where nothing is said."""
        own = {name.removesuffix(".pos"): unit for name, unit in self.robot_joint_units.items()}
        found = []
        for joint in joints:
            name = joint.removesuffix(".pos")
            unit = own.get(name) or unit_in(self.robot_units or "lerobot", name)
            found.append(checked_unit(unit, name))
        return found

    def unit_map(
        self,
        joints: Sequence[str],
        *,
        known: str,
        joint_limits: Mapping[str, Sequence[float]],
        calibration_file: str | Path | None,
        action_kind: str,
    ) -> UnitMap | None:
        """Return what is converted; None where nothing is.

        Args:
            joints: Names in the policy's order.
            known: The key map's units, for a policy whose units were not named.
            joint_limits: Ranges where the robot counts in degrees, for joints whose range is needed.
            calibration_file: LeRobot's file of the arm, for the same.
            action_kind: What the policy's actions are.

        Raises:
            ConfigError: An unknown name, a range that is needed and not known, actions that are no targets.
        """
        own = (
            self.robot_joint_units,
            self.policy_joint_units,
            self.joint_signs,
            self.joint_offsets,
        )
        if not self.robot_units and not self.policy_units and not any(own):
            return None
        ranges: dict[str, tuple[float, float]] = {}
        if calibration_file is not None:
            ranges.update(angles_from_calibration(read_calibration(calibration_file), joints))
        names = [joint.removesuffix(".pos") for joint in joints]
        sides = dict(zip(names, self.robot_side(joints), strict=True))
        ranges |= {
            name.removesuffix(".pos"): (float(bounds[0]), float(bounds[1]))
            for name, bounds in joint_limits.items()
            if sides.get(name.removesuffix(".pos")) == "degrees"
        }
        robot = self.robot_units or "lerobot"
        made = unit_map(
            joints,
            robot=robot,
            policy=self.policy_units or known or robot,
            robot_units=self.robot_joint_units,
            policy_units=self.policy_joint_units,
            signs=self.joint_signs,
            offsets=self.joint_offsets,
            ranges_degrees=ranges,
        )
        if made.identity:
            return None
        if action_kind != "absolute":
            raise ConfigError(
                f"units, signs and offsets are for joint targets; this policy's actions are {action_kind}"
            )
        return made


def limits_config(
    ranges: Sequence[tuple[float, float]] | None,
    *,
    max_velocity: float | None,
    max_step: float | None,
) -> LimitsConfig:
    """Return the last stage's limits, in action units."""
    return LimitsConfig(
        low=None if ranges is None else tuple(low for low, _ in ranges),
        high=None if ranges is None else tuple(high for _, high in ranges),
        max_velocity=None if max_velocity is None else (max_velocity,),
        max_step=None if max_step is None else (max_step,),
    )


def ranges_of_robot(robot: Any) -> dict[str, list[float]]:
    """Return the joint ranges LeRobot knows of a robot, by joint name; empty where it knows none.

    Feetech arms: from their calibration, in the units they are driven in. The simulated arm: from its model.
    """
    stated = getattr(robot, "joint_ranges", None)
    if isinstance(stated, Mapping):
        return {name: [float(low), float(high)] for name, (low, high) in stated.items()}
    calibration = getattr(robot, "calibration", None)
    motors = getattr(getattr(robot, "bus", None), "motors", None)
    if not calibration or not motors:
        return {}
    steps = {
        name: {"range_min": entry.range_min, "range_max": entry.range_max}
        for name, entry in calibration.items()
    }
    found: dict[str, list[float]] = {}
    for name, motor in motors.items():
        mode = getattr(motor.norm_mode, "value", "")
        if name not in steps or mode not in ("degrees", "range_m100_100", "range_0_100"):
            continue
        if mode == "range_0_100":
            found[name] = [0.0, 100.0]
        else:
            span = ranges_from_calibration({name: steps[name]}, [name], degrees=mode == "degrees")[
                0
            ]
            found[name] = list(span)
    return found
