# SPDX-License-Identifier: Apache-2.0
"""How motion begins: at the first chunk, and after every pause. Pure.

In: the pose the arm has, the rows it is to execute. Out: the rows, or what approaches them at a bounded speed.
A plan made elsewhere may begin anywhere; the arm must not jump there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError

__all__ = ["Approach", "ResumeConfig"]

_USUAL = 0.9
"""Which of a plan's steps, by size, counts as its speed: not the largest, which a plan that is wrong has."""
_MARGIN = 1.1
_HANGS = 3.0
"""How many ticks of motion an arm may be from its target and still count as being there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeConfig:
    """Bounds of the first motion after a pause, in action units, for every joint or each."""

    max_jump: tuple[float, ...] | None = None
    """How far from the present pose the first action may be to be executed as it is; None: as far as the
    chunk itself moves in nine of ten ticks, and a tenth more."""

    max_velocity: tuple[float, ...] | None = None
    """How much the command may change in a tick until it has caught up with the plan; None: the same, or more
    where that would take longer than `max_ticks`."""

    max_ticks: int = 30
    """How long to take for the way to the plan at most, where no velocity is given."""

    def __post_init__(self) -> None:
        if self.max_ticks < 1:
            raise ConfigError(f"max_ticks={self.max_ticks}: must be 1 or more")
        for name in ("max_jump", "max_velocity"):
            bound = getattr(self, name)
            if bound is not None and not (bound and all(value > 0 for value in bound)):
                raise ConfigError(f"{name}={bound}: expected numbers above 0")

    def scaled(self, scale: npt.NDArray[np.float64]) -> ResumeConfig:
        """Return the same bounds for numbers that are `scale * x`, `(action_dim,)`."""

        def times(bound: tuple[float, ...] | None) -> tuple[float, ...] | None:
            if bound is None:
                return None
            return tuple(float(value) for value in np.abs(scale) * np.asarray(bound))

        return replace(self, max_jump=times(self.max_jump), max_velocity=times(self.max_velocity))


class Approach:
    """Leads the commands from a pose to a plan, no faster than allowed. Absolute targets only."""

    def __init__(self, config: ResumeConfig) -> None:
        self._config = config
        self.origin: Float32Array | None = None
        """Where motion began last, `(action_dim,)`: the command, or the pose where the arm is not near it."""
        self._at: Float32Array | None = None
        self._velocity: Float32Array | None = None

    def __repr__(self) -> str:
        return f"<Approach {'under way' if self.active else 'done'}>"

    @property
    def active(self) -> bool:
        """Whether the commands are still on their way to the plan."""
        return self._at is not None

    def begin(
        self,
        rows: Float32Array,
        row: int,
        *,
        commanded: Float32Array | None,
        measured: Float32Array | None,
    ) -> float:
        """Begin where the arm is; return how far off the plan's next row is where that is too far, else 0.

        An arm hangs a little below its target, so it begins at the target; but one that was pushed away or has
        lost its torque would be jerked back there, so then it begins where it is measured.

        Args:
            rows: The chunk that is to be executed, `(H, action_dim)`.
            row: The row that is executed next.
            commanded: What was commanded last in this episode, `(action_dim,)`; None: nothing was.
            measured: Where the joints are; None: not known.
        """
        self.cancel()
        own = _usual_step(rows)
        config = self._config
        jump = own if config.max_jump is None else np.asarray(config.max_jump, np.float32)
        pose = measured if commanded is None else commanded
        if commanded is not None and measured is not None:
            hangs = np.abs(commanded - measured) <= _HANGS * np.maximum(jump, own)
            pose = commanded if hangs.all() else measured
        self.origin = pose
        if pose is None:
            return 0.0
        off = np.abs(rows[row] - pose)
        if (off <= jump).all():
            return 0.0
        self._at = pose.astype(np.float32)
        if config.max_velocity is not None:
            self._velocity = np.broadcast_to(np.asarray(config.max_velocity, np.float32), off.shape)
        else:
            self._velocity = np.maximum(own, off / config.max_ticks)
        return float(off.max())

    def follow_plan(self, rows: Float32Array) -> None:
        """Let another chunk's own speed count too: it may move a joint that the one before kept.

        Args:
            rows: The chunk that is executed now, `(H, action_dim)`.
        """
        if self._velocity is not None and self._config.max_velocity is None:
            self._velocity = np.maximum(self._velocity, _usual_step(rows))

    def ticks(self, target: Float32Array) -> int:
        """Return how many ticks the way to a plan that stands still would take."""
        if self._at is None or self._velocity is None:
            return 0
        off = np.abs(target - self._at)
        # A joint that is there, of a plan that keeps it, has no speed: it takes no time.
        way = np.divide(off, self._velocity, out=np.zeros_like(off), where=self._velocity > 0)
        return math.ceil(float(way.max()))

    def follow(self, target: Float32Array) -> Float32Array:
        """Return what to command instead of the plan's `target`; itself once it is reached."""
        if self._at is None or self._velocity is None:
            return target
        step = np.clip(target - self._at, -self._velocity, self._velocity)
        self._at = (self._at + step).astype(np.float32)
        if np.allclose(self._at, target, rtol=0, atol=1e-6 * (1 + float(np.abs(target).max()))):
            self.cancel()
            return target
        return self._at

    def cancel(self) -> None:
        """Forget the way: the arm stands still, or follows the plan."""
        self._at = self._velocity = None


def _usual_step(rows: Float32Array) -> Float32Array:
    """Return how far each joint goes in nine of ten ticks at most, and a tenth more; nothing with one row."""
    if len(rows) < 2:
        return np.zeros(rows.shape[1], np.float32)
    steps = np.abs(np.diff(rows, axis=0))
    return np.asarray(_MARGIN * np.quantile(steps, _USUAL, axis=0), np.float32)
