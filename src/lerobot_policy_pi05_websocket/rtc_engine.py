# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's `rtc` engine does to chunks, undone where it would move the arm wrongly. Pure.

The engine of LeRobot 0.6.1 (`rollout/inference/rtc.py`, `policies/rtc/action_queue.py`)
1. drops `ceil(latency * fps)` rows of every new chunk, also when the arm stood still meanwhile: the first
   command of a run jumps over that many rows (huggingface/lerobot#4223, #4454), and a chunk shorter than the
   latency is dropped whole, for ever;
2. pads the leftover it hands us with zeros, and hands an all-zero one when its queue has run dry. Zeros are
   real joint angles.

3. hands us an observation whose row it has taken already: it notes the observation of tick k, takes row k, and
   asks with what is left, from row k + 1 on. A policy's row 0 is for tick k.

In: the leftover it hands us, the chunk we returned last. Out: the true leftover, and the rows to put in front.
"""

from __future__ import annotations

import math

import numpy as np

from pi05_websocket.chunks.resume import Approach, ResumeConfig
from pi05_websocket.data import Float32Array
from pi05_websocket.robot.limits import Limits

__all__ = ["bounded", "from_observation", "rows_in_front", "true_leftover"]


def true_leftover(prefix: Float32Array | None, last: Float32Array | None) -> Float32Array:
    """Return the rows that really still wait in the engine's queue, `(n, action_dim)`; n is 0 when dry.

    Args:
        prefix: What the engine handed over: the queue's next rows, cut or zero-padded to its
            `execution_horizon`; None before the first chunk.
        last: The chunk we returned last, as we returned it.

        last     r0 r1 r2 r3 r4 r5
        prefix            r3 r4 r5 0  0          padded: the true leftover is r3 r4 r5
        prefix   r1 r2 r3                        cut: it is r1 r2 r3 r4 r5
    """
    if last is None:
        return np.zeros((0, 0), np.float32)
    nothing = last[:0]
    if prefix is None or not prefix.any():
        return nothing
    # From the end: where rows repeat, the shortest leftover claims the least about the future.
    for start in range(len(last) - 1, -1, -1):
        common = min(len(prefix), len(last) - start)
        if (
            np.array_equal(prefix[:common], last[start : start + common])
            and not prefix[common:].any()
        ):
            return last[start:]
    return nothing


def from_observation(leftover: Float32Array, last: Float32Array) -> Float32Array:
    """Return the leftover with the row of the observation's own tick in front; nothing stays nothing.

        last      r0 r1 r2 r3 r4 r5
        leftover            r3 r4 r5          observed at r2's tick
        returned         r2 r3 r4 r5

    That row is being executed, so a server pins it: it says where the arm is going. A chunk that answers this
    has to lose its row 0 before the engine counts its rows.
    """
    start = len(last) - len(leftover)
    return last[start - 1 :] if len(leftover) and start else leftover


def rows_in_front(*, latency_s: float, control_hz: float, leftover: int) -> int:
    """Return how many rows to put in front of a chunk so that dropping removes no motion.

    The engine will drop one row for each tick of latency. Only `leftover` of those ticks moved the arm; the
    others it stood still, and the chunk must not be shortened for them. One more covers what the engine does
    before and after calling us.

        latency 6 ticks, leftover 2:  front f f f f f | r0 r1 r2 r3 ...   dropped 6, so it goes on at r1
    """
    dropped = math.ceil(latency_s * control_hz)
    still = dropped - leftover
    return still + 1 if still > 0 else 0


def bounded(
    rows: Float32Array,
    *,
    pose: Float32Array | None,
    resume: ResumeConfig | None,
    limits: Limits,
) -> Float32Array:
    """Return a chunk whose rows begin where the arm is and keep the limits, from row to row.

    Args:
        rows: `(H, action_dim)`.
        pose: Where the arm stands, `(action_dim,)`; None: it is executing rows, or its pose is not known.
        resume: How motion begins; None: actions are no targets.
        limits: `max_step` is not applied: where the joints will be is not known here.
    """
    approach, last = None, pose
    if pose is not None and resume is not None:
        approach = Approach(resume)
        approach.begin(rows, 0, commanded=None, measured=pose)
    out = []
    for row in rows:
        wanted = row if approach is None else approach.follow(row)
        last, _ = limits.apply(wanted, last=last, measured=None)
        out.append(last)
    return np.array(out, np.float32)
