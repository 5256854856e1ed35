# SPDX-License-Identifier: Apache-2.0
"""What no command may exceed: each joint's range, its speed, its distance from where it is measured. Pure.

In: what is to be commanded, what was commanded last, where the arm is. Out: the same within the limits, and
which of them were in the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import ActionKind, Float32Array
from pi05_websocket.errors import ConfigError

__all__ = [
    "Limits",
    "LimitsConfig",
    "angles_from_calibration",
    "ranges_from_calibration",
    "scaled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What no command may exceed, in action units. A single number counts for every joint; None: no limit."""

    low: tuple[float, ...] | None = None
    """Smallest joint target."""

    high: tuple[float, ...] | None = None
    """Largest joint target."""

    max_velocity: tuple[float, ...] | None = None
    """Largest change of a target in a second; for speeds the largest one, for deltas their sum in a second."""

    max_step: tuple[float, ...] | None = None
    """How far a target may be from where the joint is measured; LeRobot's `max_relative_target`."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            if bound is not None and (not bound or np.isnan(bound).any()):
                raise ConfigError(f"joint limits: {name}={bound}: expected numbers")
        for name in ("max_velocity", "max_step"):
            bound = getattr(self, name)
            if bound is not None and not (bound and all(value > 0 for value in bound)):
                raise ConfigError(f"{name}={bound}: expected numbers above 0")
        if self.low is not None and self.high is not None:
            if 1 not in (len(self.low), len(self.high)) and len(self.low) != len(self.high):
                raise ConfigError(
                    f"joint limits: {len(self.low)} lower and {len(self.high)} upper ones"
                )
            low, high = np.broadcast_arrays(self.low, self.high)
            if not (low < high).all():
                raise ConfigError(
                    f"joint limits: expected low < high, got {self.low} and {self.high}"
                )

    def words(self, joints: Sequence[str] = ()) -> str:
        """Return the limits as people read them, in action units."""
        said = []
        if self.low is not None or self.high is not None:
            low, high = np.broadcast_arrays(
                (-np.inf,) if self.low is None else self.low,
                (np.inf,) if self.high is None else self.high,
            )
            names = joints if len(joints) == len(low) else [f"joint {i}" for i in range(len(low))]
            ranges = [
                f"{name.removesuffix('.pos')} {least:.4g}..{most:.4g}"
                for name, least, most in zip(names, low, high, strict=True)
            ]
            said.append(", ".join(ranges))
        for name in ("max_velocity", "max_step"):
            bound = getattr(self, name)
            if bound is not None:
                said.append(f"{name} {', '.join(f'{value:.4g}' for value in dict.fromkeys(bound))}")
        return "; ".join(said) or "none of ours: only the robot's own"

    def converted(
        self, scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
    ) -> LimitsConfig:
        """Return the same limits for numbers that are `scale * x + offset`, `(action_dim,)` each."""

        def ends(bound: tuple[float, ...]) -> npt.NDArray[np.float64]:
            return np.asarray(scale * np.asarray(bound) + offset)

        none = (float("inf"),)
        low = None if self.low is None and self.high is None else ends(self.low or (-none[0],))
        high = None if low is None else ends(self.high or none)
        return LimitsConfig(
            low=None if low is None or high is None else _floats(np.minimum(low, high)),
            high=None if low is None or high is None else _floats(np.maximum(low, high)),
            max_velocity=scaled(self.max_velocity, scale),
            max_step=scaled(self.max_step, scale),
        )

    def check(self, action_dim: int) -> None:
        """Compare with the width of an action.

        Raises:
            ConfigError: There are more or fewer limits than joints.
        """
        for name in ("low", "high", "max_velocity", "max_step"):
            bound = getattr(self, name)
            if bound is not None and len(bound) not in (1, action_dim):
                raise ConfigError(
                    f"{name} has {len(bound)} values, an action {action_dim}: give one for each joint, in the "
                    "policy's order, or a single one for all"
                )


class Limits:
    """Applies the limits.

    Args:
        config: The limits.
        action_kind: What an action's numbers mean.
        control_hz: Ticks per second.
    """

    def __init__(self, config: LimitsConfig, action_kind: ActionKind, control_hz: float) -> None:
        self.config = config
        self._absolute = action_kind == "absolute"
        self._kind = action_kind
        self._hz = control_hz

    def __repr__(self) -> str:
        return f"<Limits {self.config}>"

    def apply(
        self,
        values: Float32Array,
        *,
        last: Float32Array | None,
        measured: Float32Array | None,
        ticks: int = 1,
    ) -> tuple[Float32Array, tuple[str, ...]]:
        """Return what may be commanded, and the names of the limits that changed it.

        Args:
            values: `(action_dim,)`, finite.
            last: What was commanded last; None: nothing was.
            measured: Where the joints are, in action order and units; None: not known.
            ticks: Ticks since `last` was commanded.
        """
        named: list[str] = []
        # The range first: an arm that is outside of it comes back no faster than the others allow. The step
        # last: it bounds the force, also where an old command is far from the arm.
        ranged = self._in_range(values)
        slow = self._slow(ranged, measured if last is None else last, max(1, ticks))
        near = self._near(slow, measured, last)
        steps = (values, ranged, slow, near)
        for name, before, after in zip(
            ("joint_limits", "max_velocity", "max_step"), steps, steps[1:], strict=False
        ):
            if not np.array_equal(before, after):
                named.append(name)
        return near, tuple(named)

    def hold(
        self, values: Float32Array, measured: Float32Array | None
    ) -> tuple[Float32Array, tuple[str, ...]]:
        """Return a target that is held, no farther from the arm than it may be: the arm gives way to a push."""
        near = self._near(values, measured, values)
        return near, () if np.array_equal(values, near) else ("max_step",)

    @property
    def needs_pose(self) -> bool:
        """Whether a bound compares with where the arm is."""
        return self._absolute and not (
            self.config.max_step is None and self.config.max_velocity is None
        )

    def _in_range(self, values: Float32Array) -> Float32Array:
        low, high = self.config.low, self.config.high
        if not self._absolute or (low is None and high is None):
            return values
        return np.clip(
            values,
            -np.inf if low is None else np.asarray(low, np.float32),
            np.inf if high is None else np.asarray(high, np.float32),
        ).astype(np.float32)

    def _near(
        self, values: Float32Array, measured: Float32Array | None, last: Float32Array | None
    ) -> Float32Array:
        reach = self.config.max_step
        if not self._absolute or reach is None:
            return values
        if measured is None:  # it cannot be said how far it would be: no farther than before
            return values if last is None else last
        return _within(values, measured, np.asarray(reach, np.float32))

    def _slow(self, values: Float32Array, start: Float32Array | None, ticks: int) -> Float32Array:
        velocity = self.config.max_velocity
        if velocity is None or self._kind == "torque":
            return values
        per_second = np.asarray(velocity, np.float32)
        if self._absolute:
            reach = per_second * (ticks / self._hz)
            return values if start is None else _within(values, start, reach)
        reach = per_second / self._hz if self._kind == "delta" else per_second
        slow = _within(values, np.zeros_like(values), reach)
        slow[-1] = values[-1]  # the gripper is a target
        return slow


def scaled(
    bound: tuple[float, ...] | None, scale: npt.NDArray[np.float64]
) -> tuple[float, ...] | None:
    """Return distances or speeds for numbers that are `scale * x`, `(action_dim,)`."""
    return None if bound is None else _floats(np.abs(scale) * np.asarray(bound))


def _floats(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _within(values: Float32Array, centre: Float32Array, reach: Float32Array) -> Float32Array:
    return np.clip(values, centre - reach, centre + reach).astype(np.float32)


_ENCODER_STEPS = 4095
"""Largest position of a Feetech STS3215: a turn is 4096 steps, LeRobot divides by 4095."""


def angles_from_calibration(
    calibration: Mapping[str, Mapping[str, Any]], joints: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return each joint's range in degrees, the gripper's too, counted from its middle.

    Raises:
        ConfigError: A joint is missing, or has no range.
    """
    found = {}
    for joint in joints:
        name = joint.removesuffix(".pos")
        entry = calibration.get(name)
        if entry is None:
            raise ConfigError(
                f"the calibration has no motor {name!r}; it has {', '.join(calibration) or 'none'}"
            )
        # Only its name makes the gripper a share of its range there.
        found[name] = ranges_from_calibration({"joint": entry}, ["joint"])[0]
    return found


def ranges_from_calibration(
    calibration: Mapping[str, Mapping[str, Any]], joints: Sequence[str], *, degrees: bool = True
) -> tuple[tuple[float, float], ...]:
    """Return each joint's range as LeRobot's calibration file states it.

    Args:
        calibration: Motor name to `range_min` and `range_max`, in encoder steps: LeRobot's
            `calibration/robots/so_follower/ID.json`.
        joints: Names in action order, with or without `.pos`.
        degrees: Whether the arm is driven in degrees (LeRobot since 0.4.4) and not in -100..100.

    Raises:
        ConfigError: A joint is missing, or has no range.

    Source: `MotorsBus._normalize` of LeRobot 0.6: degrees count from the middle of the range; the gripper is
    0..100 always.
    """
    ranges = []
    for joint in joints:
        name = joint.removesuffix(".pos")
        entry = calibration.get(name)
        if entry is None:
            raise ConfigError(
                f"the calibration has no motor {name!r}; it has {', '.join(calibration) or 'none'}"
            )
        try:
            span = float(entry["range_max"]) - float(entry["range_min"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigError(f"the calibration of {name!r} has no range: {exc!r}") from exc
        if not span > 0:
            raise ConfigError(f"the calibration of {name!r} has an empty range: {dict(entry)}")
        if name == "gripper":
            ranges.append((0.0, 100.0))
        elif degrees:
            reach = span / 2 * 360.0 / _ENCODER_STEPS
            ranges.append((-reach, reach))
        else:
            ranges.append((-100.0, 100.0))
    return tuple(ranges)
