# SPDX-License-Identifier: Apache-2.0
"""What to command when no valid action exists, and when motion may begin again. Pure.

Local to the robot: nothing here needs the network, and no message can change the state but by bringing a row.

            a row           no row           coast_ticks        auto_resume_ticks
    WAIT ───────────► RUN ─────────► COAST ─────────────► STOP ────────────────► STOP, latched
      ▲                ▲               │ a row              │ a fresh row               │
      │                └───────────────┴────────────────────┘                           │
      └─────────────────────── a person: `resume`, or a new episode ────────────────────┘

In WAIT nothing has been commanded yet: the first chunk may take minutes, while a model compiles.
COAST is a short gap: the chunk that was asked for still counts. STOP is none: what was asked before it is
dropped, and only a chunk planned from an observation taken in STOP ends it. Latched, nothing ends it but a
person. How the motion begins again is bounded in `resume`.

For absolute joint positions zeros are a motion: an SO-101 told 0 degrees sweeps to its mid pose. So `hold` is
the default and `zero` happens only where a user chose it by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from pi05_websocket.data import ActionKind, Float32Array
from pi05_websocket.errors import ConfigError, NoValidAction

__all__ = [
    "FALLBACKS",
    "HOLD_POSES",
    "Fallback",
    "HoldConfig",
    "HoldMachine",
    "HoldPose",
    "HoldState",
    "fallback_action",
]

Fallback = Literal["hold", "zero", "raise"]
FALLBACKS: tuple[Fallback, ...] = ("hold", "zero", "raise")

HoldPose = Literal["commanded", "measured"]
HOLD_POSES: tuple[HoldPose, ...] = ("commanded", "measured")


class HoldState(Enum):
    """Whether rows are executed; see the module."""

    WAIT = "wait"
    RUN = "run"
    COAST = "coast"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig:
    """What holding is, and how long a gap may be. Times in ticks."""

    pose: HoldPose = "commanded"
    """What an arm with absolute targets holds: the last commanded target, or the joints as they were measured
    at the first tick without a row. The latter gives way to gravity and to a hand, the former presses on."""

    ramp_ticks: int = 4
    """Ticks in which deltas, speeds and torques go to zero."""

    coast_ticks: int | None = 30
    """Ticks without a row after which what was asked for before is dropped; None: never."""

    auto_resume_ticks: int | None = 300
    """Ticks without a row up to which motion begins again by itself; after more a person has to say so. 0:
    always a person; None: never."""

    def __post_init__(self) -> None:
        if self.pose not in HOLD_POSES:
            raise ConfigError(f"hold_pose={self.pose!r}: expected one of {', '.join(HOLD_POSES)}")
        if self.ramp_ticks < 1:
            raise ConfigError(f"ramp_ticks={self.ramp_ticks}: must be 1 or more")
        for name in ("coast_ticks", "auto_resume_ticks"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}={value}: must be 0 or more")


class HoldMachine:
    """Knows the state. Told of each tick once: `row` or `starved`."""

    def __init__(self, config: HoldConfig) -> None:
        self.config = config
        self.state = HoldState.WAIT
        self.latched = False
        """Whether a person has to let the arm move again."""
        self.by_person = False
        """Whether a person has stopped it: then it holds, whatever the fallback."""
        self._since = 0

    def __repr__(self) -> str:
        return f"<HoldMachine {self.state.name}{' latched' if self.latched else ''}>"

    def start_episode(self) -> None:
        """Begin a new episode, which a person does: nothing is commanded yet, nothing is latched."""
        self.state = HoldState.WAIT
        self.latched = self.by_person = False

    def row(self) -> None:
        """Note that this tick has a row. Not to be called while latched."""
        if self.latched:
            raise AssertionError("a row was executed in a latched stop")
        self.state = HoldState.RUN

    def starved(self, tick: int) -> bool:
        """Note that this tick has no row; say whether the state has changed."""
        before = (self.state, self.latched)
        if self.state is HoldState.RUN:
            self.state, self._since = HoldState.COAST, tick
        if self.state is not HoldState.WAIT:
            held, config = tick - self._since, self.config
            if config.auto_resume_ticks is not None and held >= config.auto_resume_ticks:
                self.state, self.latched = HoldState.STOP, True
            elif config.coast_ticks is not None and held >= config.coast_ticks:
                self.state = HoldState.STOP
        return (self.state, self.latched) != before

    def held_ticks(self, tick: int) -> int:
        """Return for how many ticks there has been no row; 0 in WAIT and RUN."""
        return tick - self._since if self.state in (HoldState.COAST, HoldState.STOP) else 0

    def stop(self, tick: int) -> None:
        """Stop as a person does: latched until a person lets it go on."""
        if self.state not in (HoldState.COAST, HoldState.STOP):
            self._since = tick
        self.state, self.latched, self.by_person = HoldState.STOP, True, True

    def resume(self) -> bool:
        """Let the arm move again, as a person does; say whether it was latched.

        It waits as at the beginning of an episode.
        """
        if not self.latched:
            return False
        self.start_episode()
        return True


def fallback_action(
    fallback: Fallback,
    *,
    action_kind: ActionKind,
    last_commanded: Float32Array | None,
    measured: Float32Array | None,
    action_dim: int | None,
    cause: str,
    ramp: float = 0.0,
) -> Float32Array:
    """Return the action for a starved tick, `(action_dim,)` float32.

    `hold` repeats the last commanded target of an absolute action; before the first one it is the measured
    pose. For `delta`, `velocity` and `torque` actions repeating would move on, so they go to zero; their last
    value, the gripper in every known key set (droid, libero), is an absolute target and stays what it was,
    before the first action what was measured.

    Args:
        last_commanded: The row executed last in this episode, or the pose to hold instead; None before the
            first.
        measured: The state of the present observation, None when it is not comparable with an action.
        action_dim: Width of an action where it is known.
        cause: Why there is no valid action, for the error text.
        ramp: How much of a delta, speed or torque is left, 1 to 0.

    Raises:
        NoValidAction: With "raise", or when there is nothing to hold.
    """
    if fallback == "raise":
        raise NoValidAction(f"no valid action: {cause}")
    known = last_commanded if last_commanded is not None else measured
    width = action_dim if action_dim is not None else (None if known is None else len(known))
    if width is None:
        raise NoValidAction(f"no valid action and no pose to hold: {cause}")
    if fallback == "zero":
        return np.zeros(width, np.float32)
    if action_kind == "absolute":
        return _hold_position(last_commanded, measured, width, cause)
    still = np.zeros(width, np.float32)
    if last_commanded is not None:
        still[:-1] = ramp * last_commanded[:-1]
    if known is not None:  # else nothing is known of the gripper, and zero is all there is
        still[-1] = known[-1]
    return still


def _hold_position(
    last_commanded: Float32Array | None, measured: Float32Array | None, width: int, cause: str
) -> Float32Array:
    if last_commanded is not None:
        return last_commanded.copy()
    if measured is None or len(measured) != width or not np.isfinite(measured).all():
        got = "no measured pose" if measured is None else f"a measured state {measured!r}"
        raise NoValidAction(
            f"no valid action, and nothing to hold before the first one: an action has {width} values, "
            f"got {got}. Cause: {cause}"
        )
    return measured.astype(np.float32)
