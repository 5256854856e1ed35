# SPDX-License-Identifier: Apache-2.0
"""Shadow mode: a person drives, the policy is asked along, and both are compared, tick by tick. Pure.

In: what the person commanded, what the policy would have. Out: figures for each joint, and a table. Where a
policy was trained on such motions it should go the same way; a joint that goes the other way has the wrong
sign, one that is off by a constant the wrong zero, one that moves too much or too little the wrong unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array

__all__ = ["JointComparison", "Shadow"]

_FEWEST = 30
"""Ticks below which nothing can be said."""
_STILL = 1e-3
_SAME_WAY, _OTHER_WAY = 0.5, -0.5
_SCALE = 3.0
"""How many times larger or smaller a motion has to be to look like another unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointComparison:
    """One joint: the policy beside the person. Action units."""

    name: str
    off: float
    """Mean distance of their targets."""

    bias: float
    """Mean difference, policy minus person."""

    agreement: float | None
    """Correlation of the targets over time, -1 to 1; None where one of them stood still."""

    scale: float | None
    """How much the policy's target varies for each unit of the person's; None likewise."""

    @property
    def hint(self) -> str:
        """What that looks like; nothing where it looks right, or cannot be said."""
        if self.agreement is None or self.scale is None:
            return ""
        if self.agreement <= _OTHER_WAY:
            return "the other way: sign?"
        if self.agreement >= _SAME_WAY and not 1 / _SCALE <= self.scale <= _SCALE:
            return f"{self.scale:.3g} times the motion: unit?"
        return ""


class Shadow:
    """Collects ticks.

    Args:
        names: The joints', in action order.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = tuple(names)
        self._sums: npt.NDArray[np.float64] | None = None
        """Of person, policy, their squares, their product, and their distance, `(6, joints)`."""
        self._compared = 0
        self.ticks = 0
        """Ticks in all; those without a row of the policy's are not compared."""

    def __repr__(self) -> str:
        return f"<Shadow {self._compared} of {self.ticks} ticks>"

    def add(self, person: Float32Array, predicted: Float32Array | None) -> None:
        """Note a tick: what was commanded, and what the policy would have, `(joints,)` each.

        Raises:
            ValueError: They have not as many joints.
        """
        self.ticks += 1
        if predicted is None:
            return
        if np.shape(person) != np.shape(predicted):
            raise ValueError(
                f"a person's {np.shape(person)} joints against the policy's {np.shape(predicted)}"
            )
        x, y = np.asarray(person, np.float64), np.asarray(predicted, np.float64)
        sums = np.array([x, y, x * x, y * y, x * y, np.abs(y - x)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._compared += 1

    def joints(self) -> list[JointComparison]:
        """Return each joint's comparison; none before there is enough to say something."""
        if self._sums is None or self._compared < _FEWEST:
            return []
        width = self._sums.shape[1]
        names = self._names if len(self._names) == width else [f"joint {i}" for i in range(width)]
        means = self._sums / self._compared
        return [_compare(name, means[:, i]) for i, name in enumerate(names)]

    def table(self) -> str:
        """Return it as lines for people."""
        joints = self.joints()
        if not joints:
            return f"{self._compared} ticks with a plan: too few to compare (at least {_FEWEST})"
        width = max(len("joint"), *(len(joint.name) for joint in joints))
        lines = [f"{'joint':{width}}  {'off':>7}  {'bias':>8}  {'same way':>8}"]
        for joint in joints:
            agreement = "-" if joint.agreement is None else f"{joint.agreement:+.2f}"
            hint = f"  <- {joint.hint}" if joint.hint else ""
            lines.append(
                f"{joint.name:{width}}  {joint.off:7.2f}  {joint.bias:+8.2f}  {agreement:>8}{hint}"
            )
        lines.append(f"{self._compared} of {self.ticks} ticks compared")
        return "\n".join(lines)


def _compare(name: str, means: npt.NDArray[np.float64]) -> JointComparison:
    person, policy, person_squared, policy_squared, product, off = (float(mean) for mean in means)
    spread = (
        math.sqrt(max(0.0, person_squared - person**2)),
        math.sqrt(max(0.0, policy_squared - policy**2)),
    )
    moved = min(spread) > _STILL
    return JointComparison(
        name=name,
        off=off,
        bias=policy - person,
        agreement=(product - person * policy) / (spread[0] * spread[1]) if moved else None,
        scale=spread[1] / spread[0] if moved else None,
    )
