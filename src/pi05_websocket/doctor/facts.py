# SPDX-License-Identifier: Apache-2.0
"""What the doctor knows of a setup before it judges: settings, a robot's readings, a server's answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import ActionKind, Float32Array, ServerMetadata
from pi05_websocket.keymap import KeyMap
from pi05_websocket.units import UnitMap
from pi05_websocket.wire.dialects import DialectChoice

__all__ = ["AnswerFacts", "CameraFacts", "RobotFacts", "Setup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the robot will be driven."""

    key_map: KeyMap
    units: UnitMap | None = None
    """From the robot's units to the policy's; None: nothing is converted."""

    policy_units: str = ""
    """What the settings say the policy counts in; empty: nothing."""

    task: str = ""
    control_hz: float = 30.0
    loop_hz: float | None = None
    """What the loop will run at, where a word of its own says so; None: `control_hz`."""

    action_horizon: int | None = None
    action_kind: ActionKind = "absolute"
    dialect: DialectChoice = "auto"
    joint_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Joint name to its calibrated range, in the robot's units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """What a camera gave while it was watched."""

    image: npt.NDArray[Any]
    """The last picture."""

    distinct: int
    """Pictures that differed from the one before, the first one counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotFacts:
    """What a robot gave while it was watched; nothing was sent to it."""

    pose: Float32Array
    """`(joints,)`, policy order, the robot's units."""

    cameras: Mapping[str, CameraFacts]
    read_s: Sequence[float]
    """How long each reading took."""

    seconds: float
    """How long it was watched."""

    noiseless: bool = False
    """Whether its cameras are simulated: still pictures are equal to the last bit."""

    units: str = ""
    """What the driver counts in, where it says so: lerobot or lerobot_normalized."""

    calibrated: bool | None = None
    """Whether the motors hold the calibration of the file; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """A server's answers to real observations."""

    rows: Float32Array
    """`(H, joints)` of the last answer, policy units."""

    pose: Float32Array | None
    """`(joints,)` that it was asked with, policy units; None: no robot."""

    round_trips_s: Sequence[float]
    """Of warm exchanges."""

    infer_s: float | None
    ping_s: Sequence[float]
    bytes_out: int
    metadata: ServerMetadata

    @property
    def step(self) -> npt.NDArray[np.float64]:
        """`(joints,)`: the largest change from one row to the next."""
        rows = self.rows.astype(np.float64)
        return np.asarray(np.abs(np.diff(rows, axis=0, prepend=rows[:1])).max(axis=0))
