# SPDX-License-Identifier: Apache-2.0
"""Units and signs: a robot's numbers for its joints <-> the numbers a policy was trained with. Pure.

In: joint vectors, or rows of them, in one unit. Out: the same in the other. The wire does not say units, so a
person does; every conversion is a line `policy = scale * robot + offset` that can be read in a table.

    degrees       from the middle of the calibrated range (LeRobot since 0.4.4), or from the model's zero
    radians       the same
    normalized    -100 to 100 over the calibrated range (LeRobot before 0.4.4, `use_degrees=false`)
    percent       0 to 100 over it: LeRobot's gripper, in all versions
    fraction      0 to 1 over it

Between the first two and the others a joint's range has to be known, in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError, ObservationError

__all__ = [
    "UNIT_SYSTEMS",
    "JointUnits",
    "Unit",
    "UnitMap",
    "checked_unit",
    "in_unit",
    "unit_in",
    "unit_map",
]

Unit = Literal["degrees", "radians", "normalized", "percent", "fraction"]

_TO_DEGREES = {"degrees": 1.0, "radians": 180.0 / math.pi}
_TO_FRACTION = {"normalized": (1 / 200, 0.5), "percent": (1 / 100, 0.0), "fraction": (1.0, 0.0)}

UNIT_SYSTEMS: Mapping[str, tuple[Unit, Unit]] = {
    "lerobot": ("degrees", "percent"),
    "lerobot_normalized": ("normalized", "percent"),
    "radians": ("radians", "radians"),
    "radians_fraction": ("radians", "fraction"),
}
"""Name to the unit of the joints and of the gripper.

`lerobot` is LeRobot since 0.4.4; `lerobot_normalized` is LeRobot before, and what LeIsaac's policies get
(leisaac utils/robot_utils.py); `radians` is phosphobot's default and Isaac's own.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointUnits:
    """One joint, on both sides."""

    name: str
    robot: Unit
    policy: Unit
    sign: int = 1
    """-1 where the policy counts the other way round."""

    offset: float = 0.0
    """What the policy's number is more than the robot's, in the policy's unit."""

    range_degrees: tuple[float, float] | None = None
    """Smallest and largest angle, as the robot counts."""

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ConfigError(f"joint {self.name!r}: sign={self.sign}: expected 1 or -1")
        if not math.isfinite(self.offset):
            raise ConfigError(f"joint {self.name!r}: offset={self.offset}: must be a finite number")
        for unit in (self.robot, self.policy):
            checked_unit(unit, self.name)
        if self.range_degrees is not None and not self.range_degrees[0] < self.range_degrees[1]:
            raise ConfigError(
                f"joint {self.name!r}: range {self.range_degrees}: expected low < high"
            )
        if self.range_degrees is None and (self.robot in _TO_DEGREES) != (
            self.policy in _TO_DEGREES
        ):
            raise ConfigError(
                f"joint {self.name!r}: {self.robot} and {self.policy} need the joint's range in degrees. Name "
                "the arm's calibration_file, or give joint_limits for it"
            )

    @property
    def line(self) -> tuple[float, float]:
        """Scale and offset: what the policy is told is the first times the robot's number plus the second."""
        to_common, from_common = self._common(self.robot), self._common(self.policy)
        scale = self.sign * to_common[0] / from_common[0]
        return scale, self.sign * (to_common[1] - from_common[1]) / from_common[0] + self.offset

    def _common(self, unit: Unit) -> tuple[float, float]:
        """Return a unit's scale and offset to degrees, or to the fraction where both sides are shares of it."""
        if unit in _TO_DEGREES:
            return _TO_DEGREES[unit], 0.0
        scale, offset = _TO_FRACTION[unit]
        if self.robot in _TO_FRACTION and self.policy in _TO_FRACTION:
            return scale, offset
        assert self.range_degrees is not None  # checked when made
        low, high = self.range_degrees
        return scale * (high - low), low + offset * (high - low)


class UnitMap:
    """All joints of an arm, in the policy's order."""

    def __init__(self, joints: Sequence[JointUnits]) -> None:
        self.joints = tuple(joints)
        lines = [joint.line for joint in self.joints]
        self.scale = np.array([scale for scale, _ in lines], np.float64)
        self.offset = np.array([offset for _, offset in lines], np.float64)

    def __repr__(self) -> str:
        return f"<UnitMap {'as it is' if self.identity else f'{len(self.joints)} joints'}>"

    @property
    def identity(self) -> bool:
        """Whether nothing changes: then nothing is touched, to the last bit."""
        return bool((self.scale == 1.0).all() and (self.offset == 0.0).all())

    def to_policy(self, values: npt.NDArray[np.floating]) -> Float32Array:
        """Return joint positions `(..., joints)` in the policy's units.

        Raises:
            ObservationError: Another number of joints.
        """
        self._check(values, "state")
        return (self.scale * values.astype(np.float64) + self.offset).astype(np.float32)

    def to_robot(self, values: npt.NDArray[np.floating]) -> Float32Array:
        """Return joint targets `(..., joints)` in the robot's units.

        Raises:
            ObservationError: Another number of joints.
        """
        self._check(values, "actions")
        return ((values.astype(np.float64) - self.offset) / self.scale).astype(np.float32)

    def _check(self, values: npt.NDArray[np.floating], key: str) -> None:
        if values.shape[-1:] != (len(self.joints),):
            names = ", ".join(joint.name for joint in self.joints)
            raise ObservationError(
                key, f"{len(self.joints)} joints, whose units are set: {names}", str(values.shape)
            )

    def table(self) -> str:
        """Return what is converted into what, a line for each joint, for people."""
        width = max(len(joint.name) for joint in self.joints)
        lines = [f"{'joint':{width}}  {'robot':<11} {'policy':<11} policy ="]
        for joint, scale, offset in zip(self.joints, self.scale, self.offset, strict=True):
            formula = (
                "robot" if (scale, offset) == (1.0, 0.0) else f"{scale:.6g} * robot {offset:+.6g}"
            )
            lines.append(f"{joint.name:{width}}  {joint.robot:<11} {joint.policy:<11} {formula}")
        return "\n".join(lines)


def unit_map(
    joints: Sequence[str],
    *,
    robot: str,
    policy: str,
    robot_units: Mapping[str, str] | None = None,
    policy_units: Mapping[str, str] | None = None,
    signs: Mapping[str, int] | None = None,
    offsets: Mapping[str, float] | None = None,
    ranges_degrees: Mapping[str, tuple[float, float]] | None = None,
) -> UnitMap:
    """Make the map of an arm from names as people write them.

    Args:
        joints: Names in the policy's order, with or without `.pos`; the one called `gripper` is the gripper.
        robot: A system (`UNIT_SYSTEMS`), or a unit for all joints.
        policy: The same for the policy.
        robot_units: Joints whose unit is another on the robot's side.
        policy_units: The same on the policy's.
        signs: -1 for joints that the policy counts the other way round.
        offsets: What the policy's number is more than the robot's, in the policy's unit.
        ranges_degrees: Each joint's smallest and largest angle, where units need it.

    Raises:
        ConfigError: An unknown name, or a range that is needed and not known.
    """
    names = [joint.removesuffix(".pos") for joint in joints]
    if not names:
        raise ConfigError("units need `joint_names`: the key map does not know the joints")
    given = [robot_units or {}, policy_units or {}, signs or {}, offsets or {}]
    own = [{key.removesuffix(".pos"): value for key, value in each.items()} for each in given]
    unknown = {name for each in own for name in each} - set(names)
    if unknown:
        raise ConfigError(f"units: no joint {sorted(unknown)}; there are {', '.join(names)}")
    ranges = {key.removesuffix(".pos"): r for key, r in (ranges_degrees or {}).items()}
    return UnitMap(
        [
            JointUnits(
                name=name,
                robot=own[0].get(name) or unit_in(robot, name),  # type: ignore[arg-type]
                policy=own[1].get(name) or unit_in(policy, name),  # type: ignore[arg-type]
                sign=own[2].get(name, 1),  # type: ignore[arg-type]
                offset=own[3].get(name, 0.0),  # type: ignore[arg-type]
                range_degrees=ranges.get(name),
            )
            for name in names
        ]
    )


def in_unit(range_degrees: tuple[float, float], unit: Unit) -> tuple[float, float]:
    """Return a joint's range, known in degrees, in another unit."""
    scale, offset = JointUnits(
        name="joint", robot="degrees", policy=unit, range_degrees=range_degrees
    ).line
    low, high = range_degrees
    return scale * low + offset, scale * high + offset


def checked_unit(unit: str, joint: str) -> Unit:
    """Return a unit that is one.

    Raises:
        ConfigError: It is none.
    """
    if unit not in get_args(Unit):
        raise ConfigError(
            f"joint {joint!r}: unknown unit {unit!r}; there are {', '.join(get_args(Unit))}"
        )
    return unit  # type: ignore[return-value]  # looked at above


def unit_in(system: str, joint: str) -> str:
    """Return a joint's unit in a system; a plain unit is one for all joints."""
    known = UNIT_SYSTEMS.get(system)
    if known is not None:
        return known[1] if joint == "gripper" else known[0]
    if system not in get_args(Unit):
        raise ConfigError(
            f"unknown units {system!r}: expected {', '.join([*UNIT_SYSTEMS, *get_args(Unit)])}"
        )
    return system
