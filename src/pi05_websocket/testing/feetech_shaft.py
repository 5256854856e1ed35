# SPDX-License-Identifier: Apache-2.0
"""How a servo's shaft turns: towards its goal within a speed and an acceleration, or not at all without torque.

In: what the servo drives it to, and the time. Out: encoder ticks, 4096 a turn, and ticks per second. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["LIMP", "TICKS", "Drive", "MotorShaft", "Shaft"]

TICKS = 4096
"""Encoder ticks of one turn."""

_STEP_S = 0.002
_MOST_STEPS = 5000
"""A shaft nobody looked at for long moves in longer steps, which the braking rule bears."""


@dataclass(frozen=True, slots=True)
class Drive:
    """What the servo does with its shaft."""

    kind: Literal["limp", "position", "velocity"]

    target: float = 0.0
    """Encoder ticks for a position, ticks/s for a velocity."""

    speed: float = 0.0
    """Largest speed, ticks/s."""

    acceleration: float = 0.0
    """Largest acceleration, ticks/s²."""


LIMP = Drive("limp")
"""No torque: the shaft stays, or turns by hand."""


class Shaft(Protocol):
    """A shaft with an encoder."""

    position: float
    """Encoder ticks; goes on counting beyond a turn."""

    velocity: float
    """Ticks/s."""

    def drive(self, drive: Drive) -> None:
        """Take what to do from now on."""
        ...

    def advance(self, now: float) -> None:
        """Bring `position` and `velocity` up to `now`, seconds."""
        ...


class MotorShaft:
    """A shaft without a load.

    Args:
        position: Where it is at time 0, encoder ticks.
    """

    def __init__(self, position: float = TICKS / 2) -> None:
        self.position = position
        self.velocity = 0.0
        self._drive = LIMP
        self._now = 0.0

    def __repr__(self) -> str:
        return f"<MotorShaft {self.position:.1f} {self._drive.kind}>"

    def drive(self, drive: Drive) -> None:
        """Take what to do from now on."""
        self._drive = drive

    def advance(self, now: float) -> None:
        """Turn up to `now`; a time that lies back changes nothing."""
        span, self._now = max(0.0, now - self._now), max(now, self._now)
        if self._drive.kind == "limp":
            self.velocity = 0.0
            return
        if span == 0.0:
            return
        steps = min(_MOST_STEPS, math.ceil(span / _STEP_S))
        for _ in range(steps):
            if self._resting():
                break
            self._step(span / steps)

    def _resting(self) -> bool:
        drive = self._drive
        return drive.kind == "position" and self.velocity == 0.0 and self.position == drive.target

    def _step(self, dt: float) -> None:
        drive = self._drive
        if drive.kind == "velocity":
            wanted = max(-drive.speed, min(drive.speed, drive.target))
            change = drive.acceleration * dt
            self.velocity += max(-change, min(change, wanted - self.velocity))
            self.position += self.velocity * dt
            return
        left = drive.target - self.position
        direction = math.copysign(1.0, left)
        towards = self.velocity * direction + drive.acceleration * dt
        if towards < 0:  # still turning away: brake first
            self.velocity = towards * direction
        else:
            braking = math.sqrt(2.0 * drive.acceleration * abs(left))
            reaching = abs(left) / dt
            if reaching <= min(towards, drive.speed, braking):
                self.position, self.velocity = drive.target, 0.0
                return
            self.velocity = min(towards, drive.speed, braking) * direction
        self.position += self.velocity * dt
