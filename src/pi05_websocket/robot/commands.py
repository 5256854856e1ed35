# SPDX-License-Identifier: Apache-2.0
"""The last stage on the way to the motors: a row or what stands in for it, begun gently, within limits.

In: the scheduler's action for a tick, or None and why. Out: one `Step`, finite, never a jump. Decides by ticks
alone: no clock, no thread, no network. Owned by the control thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pi05_websocket.chunks.hold import (
    Fallback,
    HoldConfig,
    HoldMachine,
    HoldState,
    fallback_action,
)
from pi05_websocket.chunks.resume import Approach, ResumeConfig
from pi05_websocket.data import Action, ActionKind, Float32Array
from pi05_websocket.errors import NoValidAction
from pi05_websocket.robot.causes import Cause, CauseName
from pi05_websocket.robot.limits import Limits, LimitsConfig

__all__ = ["Commands", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """What to command at one tick."""

    values: Float32Array
    """`(action_dim,)`, policy order and units."""

    source: str
    """"chunk", "hold", "zero" or "dry_run"."""

    seq: int
    """Request of the chunk, -1 for a fallback."""

    row: int
    """Row of the chunk, -1 for a fallback."""

    state: HoldState = HoldState.RUN
    """Whether rows are executed."""

    cause: CauseName | None = None
    """Why there is no row; None when there is one."""

    limited: tuple[str, ...] = ()
    """Which limits changed the values; "resume" while they are on their way to the plan."""

    predicted: Float32Array | None = None
    """In a dry run what a chunk's row would have commanded."""


class Commands:
    """Makes a command of every tick.

    Args:
        fallback: What to command without a row.
        hold: What holding is, and when it ends.
        resume: How motion begins.
        limits: What no command may exceed.
        action_kind: What an action's numbers mean.
        control_hz: Ticks per second.
        stall_ticks: Ticks without a command after which the arm may be somewhere else: somebody else drove it.
    """

    def __init__(
        self,
        *,
        fallback: Fallback,
        hold: HoldConfig,
        resume: ResumeConfig,
        limits: LimitsConfig,
        action_kind: ActionKind,
        control_hz: float,
        stall_ticks: int,
    ) -> None:
        self._stall_ticks = stall_ticks
        self.machine = HoldMachine(hold)
        self.last_values: Float32Array | None = None
        """What was commanded last in this episode."""
        self.zeroed_at: int | None = None
        """First tick since the last row at which zeros moved the arm."""
        self._fallback = fallback
        self._kind = action_kind
        self._approach = Approach(resume)
        self._limits = Limits(limits, action_kind, control_hz)
        self._last_tick: int | None = None
        self._elsewhere = False
        """Whether the arm may be somewhere else than it was commanded."""
        self._last_row: Float32Array | None = None
        """The row executed last: what deltas ramp down from."""
        self._last_seq = -1
        """Whose row it was."""
        self._held_pose: Float32Array | None = None
        """The pose held since the rows ran out."""
        self.jump = 0.0
        """How far off the plan was when motion last began, 0 where it was near enough."""
        self.approach_ticks = 0
        """How long the way there takes, about."""

    def __repr__(self) -> str:
        return f"<Commands {self.machine!r} {self._approach!r}>"

    def start_episode(self) -> None:
        """Forget what was commanded."""
        self.machine.start_episode()
        self.last_values = self._last_row = self._held_pose = None
        self.zeroed_at = self._last_tick = None
        self._elsewhere = False
        self._approach.cancel()

    def forget_pose(self) -> None:
        """Note that the arm may be somewhere else than it was commanded: somebody else may have moved it."""
        self._elsewhere = True
        self._held_pose = self._last_tick = None
        self._approach.cancel()

    def execute(
        self, action: Action, plan: Float32Array, tick: int, measured: Float32Array | None
    ) -> Step:
        """Return the step for a row.

        Args:
            action: The row.
            plan: The chunk it is of, `(H, action_dim)`, as the policy gave it.
            tick: Now.
            measured: Where the joints are, in action order and units; None: not known.

        Raises:
            NoValidAction: A limit compares with where the arm is, and that was never known.
        """
        gap = 1 if self._last_tick is None else tick - self._last_tick
        if gap > self._stall_ticks:
            self.forget_pose()
        begins = self.machine.state is not HoldState.RUN or self._elsewhere
        last = self._last(measured)
        if last is None and measured is None and self._limits.needs_pose:
            raise NoValidAction(
                "max_step and max_velocity compare with where the arm is, and its joints were never measured"
            )
        self.machine.row()
        self.zeroed_at = self._held_pose = None
        self._elsewhere = False
        values = action.values
        limited: tuple[str, ...] = ()
        if self._kind == "absolute":
            if begins:
                self.jump = self._approach.begin(
                    plan, action.row, commanded=last, measured=measured
                )
                self.approach_ticks = self._approach.ticks(values)
                last = self._approach.origin
            elif self._approach.active and action.seq != self._last_seq:
                self._approach.follow_plan(plan)
            self._last_seq = action.seq
            values = self._approach.follow(values)
            limited = ("resume",) if self._approach.active else ()
        # Time that passed without a command allows no larger step: the servo would make it at once.
        ticks = 1 if begins else min(gap, self._stall_ticks)
        values, stopped_by = self._limits.apply(values, last=last, measured=measured, ticks=ticks)
        self._commanded(values, tick)
        self._last_row = self.last_values
        return Step(values.copy(), "chunk", action.seq, action.row, limited=limited + stopped_by)

    def fall_back(
        self,
        tick: int,
        measured: Float32Array | None,
        action_dim: int | None,
        cause: Cause,
        *,
        hold: bool = False,
    ) -> Step:
        """Return the step for a tick without a row.

        Args:
            tick: Now.
            measured: Where the joints are; None: not known.
            action_dim: Width of an action where it is known.
            cause: Why there is no row.
            hold: Hold, whatever the fallback: a person has stopped the arm, or it is only a rehearsal.

        Raises:
            NoValidAction: With the fallback "raise", or when there is nothing to hold.
        """
        self._approach.cancel()
        held = self.machine.held_ticks(tick)
        last = self._last(measured)
        pose_wanted = self.machine.config.pose == "measured" and self._last_row is not None
        if self._kind == "absolute" and pose_wanted and self._held_pose is None:
            self._held_pose = last if measured is None else measured.copy()
        if self._kind != "absolute":
            last = self._last_row
        fallback: Fallback = "hold" if hold or self.machine.by_person else self._fallback
        values = fallback_action(
            fallback,
            action_kind=self._kind,
            last_commanded=last if self._held_pose is None else self._held_pose,
            measured=measured,
            action_dim=action_dim,
            cause=cause.text,
            ramp=max(0.0, 1.0 - (held + 1) / self.machine.config.ramp_ticks),
        )
        source = "zero" if fallback == "zero" else "hold"
        sent = values
        limited: tuple[str, ...] = ()
        if source == "zero" and self._kind == "absolute":
            values, limited = self._limits.apply(values, last=last, measured=measured)
            sent = values
            if self.zeroed_at is None:
                self.zeroed_at = tick
        elif self._kind == "absolute":
            # What is held stays what it was: else an arm that is pushed would creep.
            sent, limited = self._limits.hold(values, measured)
        self._commanded(values, tick)
        return Step(sent.copy(), source, -1, -1, self.machine.state, cause.name, limited)

    def _last(self, measured: Float32Array | None) -> Float32Array | None:
        """Return what was commanded last; None where the arm may be elsewhere, and where it is can be seen."""
        return None if self._elsewhere and measured is not None else self.last_values

    def _commanded(self, values: Float32Array, tick: int) -> None:
        if not np.isfinite(values).all():
            raise AssertionError(f"an action that is no number was to be commanded: {values}")
        self.last_values, self._last_tick = values, tick
        self._elsewhere = False
