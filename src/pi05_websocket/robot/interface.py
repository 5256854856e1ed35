# SPDX-License-Identifier: Apache-2.0
"""What the control side wants of a robot, and of a policy it can ask without waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array, Observation, ServerMetadata
from pi05_websocket.errors import (
    DeadlineExceeded,
    ObservationError,
    Pi05WebsocketError,
    PolicyChanged,
)

__all__ = [
    "PendingExchange",
    "PendingReply",
    "Preflight",
    "RequestPolicy",
    "Robot",
    "RobotReading",
    "SeveralServers",
    "Teleoperator",
    "WatchedExchange",
    "check_joints",
]


@dataclass(frozen=True, slots=True)
class RobotReading:
    """What a robot sees and feels at one moment, by its own names."""

    images: Mapping[str, npt.NDArray[np.uint8]]
    """Camera name to `(H, W, 3)` RGB."""

    joints: Float32Array
    """`(action_dim,)` in the policy's order and units."""


class Robot(Protocol):
    """An arm with cameras, as `runtime.Runtime` drives it."""

    def get_observation(self) -> RobotReading:
        """Return the newest images and joints; must not wait longer than a tick."""

    def send_action(self, values: Float32Array, /) -> None:
        """Command the joints, `(action_dim,)` in the policy's order and units."""


class PendingReply(Protocol):
    """What a finished exchange holds."""

    @property
    def value(self) -> Any:
        """The decoded message, untrusted."""

    @property
    def nbytes(self) -> int:
        """Its size on the wire."""

    @property
    def received_at(self) -> float:
        """When it came, in monotonic seconds."""


class PendingExchange(Protocol):
    """A request under way, as `RemotePolicy.submit` returns it."""

    @property
    def limit(self) -> float:
        """Seconds after which the reply counts as late."""

    @property
    def nbytes(self) -> int:
        """The request's size on the wire."""

    @property
    def quality(self) -> int | None:
        """Quality of its images as JPEG; None: they are raw."""

    @property
    def sent_at(self) -> float:
        """When it was handed over, in monotonic seconds."""

    def done(self) -> bool:
        """Say whether `result` returns or raises at once."""

    def late(self) -> DeadlineExceeded:
        """Return the error that says it is late, and which setting allows more time."""

    def age(self) -> float:
        """Return the seconds since the request was handed over."""

    def result(self, timeout: float | None = None) -> PendingReply:
        """Return the reply or raise why there is none."""


def check_joints(joints: Float32Array, names: Sequence[str] = ()) -> None:
    """Refuse joints that are no numbers: no limit could be kept, and no pose held.

    Raises:
        ObservationError: With the first such joint's name.
    """
    wrong = np.flatnonzero(~np.isfinite(joints))
    if len(wrong):
        first = int(wrong[0])
        name = names[first] if first < len(names) else f"joint {first}"
        raise ObservationError("state", "finite joint positions", f"{name} = {joints[first]}")


class Teleoperator(Protocol):
    """What a person holds: a leader arm, a gamepad."""

    def get_action(self) -> Float32Array:
        """Return the joint targets `(joints,)` a person wants now, in the robot's order and units."""


class Preflight(Protocol):
    """Looks at the first exchange before anything moves."""

    def asked(self, metadata: ServerMetadata, /) -> None:
        """Look at the server that is about to be asked; raise where it is for another robot."""

    def observed(self, observation: Observation, /) -> None:
        """Look at an observation before it is sent."""

    def answered(self, rows: Float32Array, pose: Float32Array | None, /) -> None:
        """Look at an answer before a row of it is executed."""

    def failed(self, error: Pi05WebsocketError, /) -> None:
        """Say what a failed request means for the settings."""


class RequestPolicy(Protocol):
    """A policy that can be asked without waiting. `RemotePolicy` is one."""

    @property
    def metadata(self) -> ServerMetadata:
        """What the server says about itself; `{}` while it is not known."""

    def submit(self, observation: Observation, /) -> PendingExchange:
        """Send an observation and return at once."""

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return why no request can be sent now, or None."""


@runtime_checkable
class SeveralServers(Protocol):
    """A policy that a person may have to accept: `RemotePolicy` and `PolicyPool` are."""

    def accept(self, told: PolicyChanged, /) -> bool:
        """Go on with the policy that a person was told of; say whether it was still that one."""


@runtime_checkable
class WatchedExchange(Protocol):
    """An exchange that may be asked of a second server: while rows are left, that can wait."""

    def rows_last(self, seconds: float) -> None:
        """Note how long the rows last that are left; `done` decides by it."""
