# SPDX-License-Identifier: Apache-2.0
"""What a policy would do, beside where the arm is: for looking before anything moves. Pure.

In: a chunk, the pose the arm has. Out: figures, and a table for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pi05_websocket.data import Float32Array

__all__ = ["Comparison", "compare"]

_FAR = 3.0
"""A first row that is so many of the plan's own steps away is worth a mark."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A chunk beside a pose, joint by joint; all `(joints,)`, action units."""

    names: tuple[str, ...]
    now: Float32Array
    first: Float32Array
    """What the first row changes."""

    farthest: Float32Array
    """What the row changes that is farthest from the present pose, with its sign."""

    step: Float32Array
    """The largest change from one row to the next."""

    rows: int

    @property
    def far(self) -> tuple[str, ...]:
        """Joints whose first row is not near the pose: units, signs or order may be wrong."""
        # A joint that the plan keeps still sags a little all the same.
        marked = np.abs(self.first) > _FAR * np.maximum(self.step, self.step.mean())
        return tuple(name for name, far in zip(self.names, marked, strict=True) if far)

    def table(self) -> str:
        """Return it as lines, one for each joint."""
        width = max(len("joint"), *(len(name) for name in self.names))
        lines = [
            f"{'joint':{width}}  {'now':>8}  {'first row':>9}  {'farthest':>8}  {'per row':>7}"
        ]
        far = self.far
        for i, name in enumerate(self.names):
            mark = "  <- far: units, sign, order?" if name in far else ""
            lines.append(
                f"{name:{width}}  {self.now[i]:8.2f}  {self.first[i]:+9.2f}  {self.farthest[i]:+8.2f}  "
                f"{self.step[i]:7.2f}{mark}"
            )
        return "\n".join(lines)


def compare(rows: Float32Array, pose: Float32Array, names: Sequence[str] = ()) -> Comparison:
    """Put a chunk of absolute targets beside the pose it was planned from.

    Args:
        rows: `(H, joints)`.
        pose: `(joints,)`.
        names: The joints'; where there are not as many, numbers.
    """
    off = rows - pose
    farthest = np.abs(off).argmax(axis=0)
    known = len(names) == len(pose)
    return Comparison(
        names=tuple(names) if known else tuple(f"joint {i}" for i in range(len(pose))),
        now=pose,
        first=off[0],
        farthest=off[farthest, np.arange(len(pose))],
        step=np.abs(np.diff(rows, axis=0, prepend=rows[:1])).max(axis=0),
        rows=len(rows),
    )
