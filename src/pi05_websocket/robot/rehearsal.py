# SPDX-License-Identifier: Apache-2.0
"""A run in which nothing moves: the policy is asked and shown, the arm keeps the pose it has.

In: what would be commanded. Out: what is commanded instead, a table in the log, lines in the trace. Either for
the whole run, or until a person confirms. Owned by the player, on its thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pi05_websocket.chunks.hold import fallback_action
from pi05_websocket.clock import Clock
from pi05_websocket.data import ActionKind, Float32Array
from pi05_websocket.robot.commands import Step
from pi05_websocket.robot.dry_run import compare
from pi05_websocket.robot.trace import Trace

__all__ = ["Rehearsal"]

logger = logging.getLogger(__name__)

_SHOW_EVERY_S = 2.0


class Rehearsal:
    """Knows whether anything may move.

    Args:
        dry_run: Whether nothing may, to the end.
        confirm: Whether nothing may before a person has said so.
        action_kind: What an action's numbers mean.
        joint_names: What to call the joints.
        clock: What paces the tables.
        trace: Where to write them too.
        name: Put before every log line.
        how_to_confirm: What a person does, for the log.
    """

    def __init__(
        self,
        *,
        dry_run: bool,
        confirm: bool,
        action_kind: ActionKind,
        joint_names: Sequence[str],
        clock: Clock,
        trace: Trace,
        name: str,
        how_to_confirm: str,
    ) -> None:
        self._dry_run = dry_run
        self._waits = confirm
        self._kind = action_kind
        self._joints = tuple(joint_names)
        self._clock = clock
        self._trace = trace
        self._name = name
        self._until = "" if dry_run else f" until you let it: {how_to_confirm}"
        self._pose: Float32Array | None = None
        self._shown_at: float | None = None

    def __repr__(self) -> str:
        return f"<Rehearsal {'nothing moves' if self.dry else 'over'}>"

    @property
    def dry(self) -> bool:
        """Whether nothing moves, whatever the policy says."""
        return self._dry_run or self._waits

    def confirm(self) -> bool:
        """Let the arm move, as a person does; say whether that was waited for."""
        waited, self._waits = self._waits, False
        if waited and not self._dry_run:
            logger.warning("%sconfirmed: the arm moves", self._name)
            self._trace.write("confirmed")
        return waited

    def start_episode(self) -> None:
        """Forget the pose that was kept."""
        self._pose = self._shown_at = None

    def step(self, step: Step, measured: Float32Array | None, action_dim: int | None) -> Step:
        """Return a step that keeps the arm where it is, with what would have been commanded.

        Raises:
            NoValidAction: Where the arm is was never measured.
        """
        if self._pose is None:
            self._pose = fallback_action(
                "hold",
                action_kind=self._kind,
                last_commanded=None,
                measured=measured,
                action_dim=action_dim,
                cause="a dry run holds the measured pose",
            )
        predicted = step.values if step.source == "chunk" else None
        return replace(step, values=self._pose, source="dry_run", limited=(), predicted=predicted)

    def show(self, actions: Float32Array, observed: Float32Array | None) -> None:
        """Show a chunk beside the pose it was planned from, now and then.

        Args:
            actions: `(H, action_dim)`, as the policy gave them.
            observed: `(action_dim,)`; None: not known.
        """
        now = self._clock.now()
        if self._shown_at is not None and now - self._shown_at < _SHOW_EVERY_S:
            return
        self._shown_at = now
        head = f"{self._name}DRY RUN, nothing moves{self._until}"
        if observed is None or self._kind != "absolute":
            largest = ", ".join(f"{value:.3g}" for value in np.abs(actions).max(axis=0))
            logger.info("%s. Largest values of %d rows: %s", head, len(actions), largest)
            return
        found = compare(actions, observed, self._joints)
        logger.info("%s. The policy's next %d rows:\n%s", head, len(actions), found.table())
        self._trace.write(
            "plan",
            first=[round(float(value), 4) for value in found.first],
            farthest=[round(float(value), 4) for value in found.farthest],
            far=list(found.far),
        )
