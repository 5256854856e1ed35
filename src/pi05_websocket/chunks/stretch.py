# SPDX-License-Identifier: Apache-2.0
"""The same motion at a fraction of its speed, for a first try. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import ActionKind, Float32Array
from pi05_websocket.errors import ConfigError

__all__ = ["check_speed", "stretched"]


def check_speed(speed: float) -> None:
    """Refuse a speed that is none.

    Raises:
        ConfigError: Not above 0 and at most 1: a policy's motion is never made faster.
    """
    if not 0.0 < speed <= 1.0:
        raise ConfigError(f"speed_scale={speed}: expected more than 0 and at most 1")


def stretched(
    actions: Float32Array,
    speed: float,
    *,
    action_kind: ActionKind,
    start: Float32Array | None,
) -> Float32Array:
    """Return a chunk whose motion takes `1 / speed` times as long.

    Targets are interpolated between the rows. Deltas and speeds are repeated at `speed` times their value;
    torques are repeated as they are, because a weaker one would not be a slower one. The last value of what is
    no target, the gripper, stays a target.

    Args:
        actions: `(H, action_dim)`.
        speed: More than 0, at most 1.
        action_kind: What an action's numbers mean.
        start: Where the joints were when the chunk's observation was taken, `(action_dim,)`: the motion begins
            there. None: not known, it begins at the first row.

    Returns:
        `(ceil(H / speed), action_dim)`; `actions` itself at speed 1.
    """
    if speed == 1.0:
        return actions
    rows = math.ceil(len(actions) / speed)
    # Row 0 is for one tick after the observation, so the way to it counts as a row too.
    way = actions if start is None else np.concatenate([start[None], actions])
    first = 0.0 if start is None else 1.0
    positions = np.minimum(speed * np.arange(1, rows + 1) - 1.0 + first, len(way) - 1.0)
    if action_kind != "absolute":
        ends = np.minimum(speed * np.arange(1, rows + 1), float(len(actions)))
        nearest = np.minimum(np.ceil(ends - 1e-9).astype(int) - 1, len(actions) - 1)
        made: Float32Array = actions[nearest].copy()
        if action_kind != "torque":
            # Whatever share of the rows a tick covers, the last one less: their sum stays what it was.
            made[:, :-1] = _covered(actions[:, :-1], ends)
        return made
    at = np.maximum(positions, 0.0)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(way) - 1)
    share = (at - below)[:, None]
    return np.asarray((1 - share) * way[below] + share * way[above], np.float32)


def _covered(rows: Float32Array, ends: npt.NDArray[np.float64]) -> Float32Array:
    """Return the sums of the shares of rows between one end and the next, `(len(ends), n)`."""
    total = np.concatenate(
        [np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)]
    )
    below = np.minimum(np.floor(ends).astype(int), len(rows) - 1)
    upto = total[below] + (ends - below)[:, None] * rows[below]
    return np.diff(upto, axis=0, prepend=0.0).astype(np.float32)
