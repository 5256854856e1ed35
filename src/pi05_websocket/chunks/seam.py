# SPDX-License-Identifier: Apache-2.0
"""How one chunk follows another: replaced, blended, or averaged. Pure.

In: what was commanded last, what is left of the running chunk, the new chunk and the row it takes over at.
Out: the new chunk, with the rows after the seam changed so that the commands go on without a jump.

    replace    the new rows as they are; what every other client does, and a step wherever plans differ
    blend      a quintic that takes the difference of position, velocity and acceleration to zero over some
               ticks, as many as the bounds of speed and acceleration ask for
    ensemble   ACT's weighted mean of all chunks that have a row for the tick
    rtc        the server has conditioned the chunk on the rows being executed, so it goes on where they end;
               what is left of a difference, and a chunk the server could not condition, is blended
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError

__all__ = [
    "ENSEMBLE_MAX_DELAY",
    "SEAMS",
    "Offset",
    "Seam",
    "SeamConfig",
    "blend",
    "blend_ticks",
    "ensemble",
    "join",
    "own_bounds",
    "quintic",
]

Seam = Literal["replace", "blend", "ensemble", "rtc"]
SEAMS: tuple[Seam, ...] = ("replace", "blend", "ensemble", "rtc")

ENSEMBLE_MAX_DELAY = 2
"""Inference delay, in ticks, beyond which chunks are blended instead of averaged: means of old plans and new
ones led to protective stops at +100 ms (Black et al., Real-Time Chunking, arXiv 2506.07339)."""

ENSEMBLE_DECAY = 0.01
"""ACT's `m` in `exp(-m * i)`, i = 0 for the oldest chunk (Zhao et al., arXiv 2304.13705)."""

_MARGIN = 1.1
"""Where no bound is given: how much faster a seam may be than the fastest step inside the two chunks."""
_TICKS_TO_FULL_SPEED = 4

Float64Array = npt.NDArray[np.float64]

Offset = tuple[Float64Array, Float64Array, Float64Array]
"""Position, velocity and acceleration of a difference, each `(action_dim,)`, per tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamConfig:
    """How chunks are joined. Lengths in ticks; bounds in action units per tick, for every joint or each."""

    kind: Seam = "replace"
    """`replace`, `blend`, `ensemble` or `rtc`; see the module."""

    min_blend_ticks: int = 5
    """Shortest blend."""

    max_blend_ticks: int = 15
    """Longest blend; a chunk shorter than that is blended over what it has."""

    max_velocity: tuple[float, ...] | None = None
    """Largest change from one tick to the next; None: what the two chunks do themselves, and a tenth more."""

    max_acceleration: tuple[float, ...] | None = None
    """Largest change of that change; None: the same, and at least full speed within four ticks."""

    def __post_init__(self) -> None:
        if self.kind not in SEAMS:
            raise ConfigError(f"seam={self.kind!r}: expected one of {', '.join(SEAMS)}")
        if not 1 <= self.min_blend_ticks <= self.max_blend_ticks:
            raise ConfigError(
                f"min_blend_ticks={self.min_blend_ticks} max_blend_ticks={self.max_blend_ticks}: "
                "expected 1 <= min <= max"
            )
        for name in ("max_velocity", "max_acceleration"):
            bound = getattr(self, name)
            if bound is not None and not (bound and all(value > 0 for value in bound)):
                raise ConfigError(f"{name}={bound}: expected numbers above 0")


def join(
    rows: Float32Array,
    row: int,
    config: SeamConfig,
    *,
    recent: Float32Array,
    running: Float32Array | None = None,
    old: Float32Array | None = None,
    counts: tuple[int, ...] = (),
    conditioned: bool = False,
) -> tuple[Float32Array, tuple[int, ...]]:
    """Return a new chunk joined to what was commanded before it; see the module.

    Args:
        rows: The new chunk, `(H, action_dim)`; it is not changed.
        row: Its row that is executed next.
        config: How.
        recent: The last commands, oldest first, `(0 to 3, action_dim)`.
        running: The chunk that ran until now.
        old: What it still has, from the tick of the takeover on.
        counts: How many chunks each row of `old` is the mean of; empty: one.
        conditioned: Whether the server has conditioned the new chunk on `old`.

    Returns:
        The chunk, and how many chunks its rows from `row` on are the mean of; empty: one.
    """
    if config.kind == "replace" or not len(recent) or row >= len(rows):
        return rows, ()
    if config.kind == "ensemble" and old is not None and row <= ENSEMBLE_MAX_DELAY:
        return ensemble(rows, row, old, counts or (1,) * len(old))
    # What was conditioned needs no blend where it fits already.
    shortest = 0 if conditioned else None
    return blend(rows, row, recent, config, running=running, shortest=shortest), ()


def blend(
    rows: Float32Array,
    row: int,
    recent: Float32Array,
    config: SeamConfig,
    *,
    running: Float32Array | None = None,
    shortest: int | None = None,
) -> Float32Array:
    """Return a copy of a chunk that goes on from what was commanded last.

    The difference between the commands so far and the chunk, as it is at the tick before the takeover, fades
    out along a quintic: position, velocity and acceleration of the commands have no step there, nor where the
    blend ends (Source: VLA-RAIL, arXiv 2512.24673).

    Args:
        rows: The new chunk, `(H, action_dim)`.
        row: Its row that is executed next.
        recent: The last commands, oldest first, `(1 to 3, action_dim)`; fewer than three count as standing
            still before.
        running: The chunk before, for the bounds where none are set.
        shortest: Shortest blend in ticks; 0 leaves a chunk alone that already fits. None: the config's.
    """
    now = _derivatives(recent.astype(np.float64))
    plan = _derivatives(_rows_before(rows, row).astype(np.float64))
    offset = (now[0] - plan[0], now[1] - plan[1], now[2] - plan[2])
    future = rows[row:].astype(np.float64)
    velocity, acceleration = _bounds(rows, running, config)
    shortest = config.min_blend_ticks if shortest is None else shortest
    ticks = blend_ticks(
        future,
        recent.astype(np.float64),
        offset,
        range(shortest, min(config.max_blend_ticks, len(future)) + 1),
        velocity,
        acceleration,
    )
    out = rows.copy()
    if ticks:
        out[row : row + ticks] = future[:ticks] + quintic(offset, ticks)
    return out


def quintic(offset: Offset, ticks: int) -> Float64Array:
    """Return how a difference fades out, `(ticks, action_dim)`: its values 1, 2, ... `ticks` ticks later.

    Args:
        offset: Its position, velocity and acceleration now, per tick; after `ticks` ticks all three are zero.
    """
    p, v, a = offset
    w = float(ticks)
    s = (np.arange(1, ticks + 1) / w)[:, None]
    v, a = v * w, a * w * w
    c3 = -10 * p - 6 * v - 1.5 * a
    c4 = 15 * p + 8 * v + 1.5 * a
    c5 = -6 * p - 3 * v - 0.5 * a
    return np.asarray(p + s * (v + s * (a / 2 + s * (c3 + s * (c4 + s * c5)))))


def blend_ticks(
    future: Float64Array,
    recent: Float64Array,
    offset: Offset,
    lengths: range,
    max_velocity: Float64Array,
    max_acceleration: Float64Array,
) -> int:
    """Return the shortest of `lengths` whose commands keep the bounds; the longest where none does.

    Args:
        future: The new chunk from the takeover on, `(n, action_dim)`.
        recent: The last commands, oldest first.
        offset: What fades out.
        max_velocity: `(action_dim,)` per tick.
        max_acceleration: `(action_dim,)` per tick and tick.
    """
    if not lengths:
        return len(future)  # fewer rows than the shortest blend: over all of them
    before = recent if len(recent) > 1 else np.concatenate([recent, recent])
    for ticks in lengths:
        joined = future[: ticks + 2].copy()
        if ticks:
            joined[:ticks] += quintic(offset, ticks)
        velocity = np.diff(np.concatenate([before[-2:], joined]), axis=0)
        acceleration = np.diff(velocity, axis=0)
        fast = np.abs(velocity[1:]) > max_velocity
        if not fast.any() and not (np.abs(acceleration) > max_acceleration).any():
            return ticks
    return lengths[-1]


def ensemble(
    rows: Float32Array, row: int, old: Float32Array, counts: tuple[int, ...]
) -> tuple[Float32Array, tuple[int, ...]]:
    """Return ACT's weighted mean of a new chunk and what is left of the chunks before it.

    Args:
        rows: The new chunk, `(H, action_dim)`.
        row: Its row that is executed next.
        old: What the chunks before have for that tick and the following, already averaged.
        counts: How many chunks each of those rows is the mean of.

    Returns:
        The chunk with its rows from `row` on averaged, and how many chunks each of them is the mean of.

    Source: `ACTTemporalEnsembler`, tonyzzhaogpu/act and huggingface/lerobot: the oldest chunk weighs 1, the
    i-th after it exp(-m i).
    """
    out = rows.copy()
    common = min(len(old), len(rows) - row)
    for i in range(common):
        count = counts[i]
        before = sum(math.exp(-ENSEMBLE_DECAY * k) for k in range(count))
        weight = math.exp(-ENSEMBLE_DECAY * count)
        out[row + i] = (old[i] * before + rows[row + i] * weight) / (before + weight)
    return out, tuple(counts[i] + 1 for i in range(common)) + (1,) * (len(rows) - row - common)


def _derivatives(last: Float64Array) -> Offset:
    """Return position, velocity and acceleration at the last of up to three values a tick apart."""
    still = np.repeat(last[:1], 3 - len(last), axis=0)
    a, b, c = np.concatenate([still, last])
    return c, c - b, c - 2 * b + a


def _rows_before(rows: Float32Array, row: int) -> Float32Array:
    """Return the three rows before `row`, made up where the chunk begins later: as if it had come steadily."""
    step = rows[1] - rows[0] if len(rows) > 1 else np.zeros_like(rows[0])
    made_up = [rows[0] + (row - 3 + i) * step for i in range(max(0, 3 - row))]
    return np.concatenate(
        [np.array(made_up).reshape(-1, rows.shape[1]), rows[max(0, row - 3) : row]]
    )


def own_bounds(*chunks: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return the largest velocity and acceleration inside chunks and a tenth more, `(action_dim,)` per tick."""
    found = []
    for order in (1, 2):
        steps = [np.diff(chunk, n=order, axis=0) for chunk in chunks]
        inside = [np.abs(step).max(axis=0) for step in steps if len(step)]
        largest = np.max(inside, axis=0) if inside else np.zeros(chunks[0].shape[1])
        found.append(_MARGIN * largest.astype(np.float64))
    return found[0], found[1]


def _bounds(
    rows: Float32Array, running: Float32Array | None, config: SeamConfig
) -> tuple[Float64Array, Float64Array]:
    """Return the largest velocity and acceleration `(action_dim,)` that a seam may have."""
    velocity, acceleration = own_bounds(rows) if running is None else own_bounds(rows, running)
    if config.max_velocity is not None:
        velocity = np.broadcast_to(np.asarray(config.max_velocity, np.float64), rows.shape[1:])
    if config.max_acceleration is not None:
        acceleration = np.broadcast_to(
            np.asarray(config.max_acceleration, np.float64), rows.shape[1:]
        )
    else:  # plans of constant speed would allow none at all
        acceleration = np.maximum(acceleration, velocity / _TICKS_TO_FULL_SPEED)
    return velocity, acceleration
