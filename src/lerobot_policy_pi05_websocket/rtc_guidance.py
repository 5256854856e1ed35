# SPDX-License-Identifier: Apache-2.0
"""A flow policy's chunk made to follow the running one: guided (any flow policy) or pinned (trained for it).

In: the sampler's state, time and velocity, the rows to follow. Out: the velocity to integrate instead.
Runs on the policy thread. LeRobot's flow time t runs from 1 (noise) to 0 (actions), against the papers'
τ = 1 − t, and its velocity is dx/dt, so the papers' signs turn round.

Source: Black et al., Real-Time Execution of Action Chunking Flow Policies, arXiv 2506.07339, equations 2 to 5;
the same authors' Training-Time Action Conditioning, arXiv 2512.05964.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "PrefixMode",
    "PrefixSampler",
    "guidance_weight",
    "guided_velocity",
    "pinned_velocity",
    "prefix_weights",
]

PrefixMode = Literal["guided", "trained"]

Velocity = Callable[..., Tensor]
"""`(x)` or `(x, time)` to dx/dt, `(batch, rows, columns)`."""


def prefix_weights(rows: int, *, delay: int | Tensor, horizon: int | Tensor) -> Tensor:
    """Return the soft mask W, `(rows,)`: 1 up to `delay`, falling to 0 at `horizon` (the paper's H − s).

    Equation 5: W_i = c_i (e^c_i − 1) / (e − 1) with c_i = (horizon − i) / (horizon − delay + 1) between them.

    Args:
        rows: H.
        delay: d; `(batch,)` for one mask each, `(batch, rows)` together.
        horizon: H − s, likewise.
    """
    i = torch.arange(rows, dtype=torch.float64)
    d, end = (torch.as_tensor(n, dtype=torch.float64)[..., None] for n in (delay, horizon))
    c = ((end - i) / (end - d + 1)).clamp(0.0, 1.0)
    falling = c * torch.expm1(c) / (math.e - 1)
    weights = torch.where(i >= end, 0.0, torch.where(i < d, 1.0, falling))
    return weights.float()


def guidance_weight(time: float, most: float) -> float:
    """Return how strongly to correct at LeRobot's time t: equation 2's min(β, (1 − τ) / (τ r²))."""
    tau = 1.0 - time
    if tau <= 0.0 or time <= 0.0:
        return most
    r_squared = time**2 / (tau**2 + time**2)
    return min(most, time / (tau * r_squared))


def guided_velocity(
    velocity: Velocity, x: Tensor, time: float, *, target: Tensor, weights: Tensor, most: float
) -> Tensor:
    """Return the velocity that leads `x` to a chunk whose first rows follow `target`.

    The correction is the vector-Jacobian product of the predicted chunk x − t v(x) with the weighted error: v
    is part of the graph, so that one row's error moves all rows as the model couples them. LeRobot 0.6.1
    computes v outside the graph; its correction is the weighted error itself and no row after the prefix
    hears of it.

    Args:
        velocity: The model at this time.
        x: `(batch, rows, columns)`.
        time: LeRobot's t, 1 (noise) to 0 (actions).
        target: Like x, in the model's units; only where `weights` is not 0 it matters.
        weights: Broadcasts to x.
        most: β, the largest guidance weight.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = velocity(x)
        predicted = x - time * v
        error = ((target - predicted) * weights).detach()
        (correction,) = torch.autograd.grad(predicted, x, error)
    return v.detach() - guidance_weight(time, most) * correction


def pinned_velocity(
    velocity: Velocity, x: Tensor, time: float, *, target: Tensor, delay: int | Tensor
) -> Tensor:
    """Return the velocity for a model that was trained with clean rows in front.

    The model sees the first `delay` rows as they will be, with time 0 (clean), and the others at time t. The
    pinned rows move in a straight line, so that they end on the target.

    Args:
        velocity: The model, called with `x` and one time for each row, `(batch, rows)`.
        x: `(batch, rows, columns)`.
        time: LeRobot's t, 1 (noise) to 0 (actions).
        target: Like x, in the model's units.
        delay: How many rows are pinned; `(batch,)` where each chunk has its own number.
    """
    delays = torch.as_tensor(delay, device=x.device).reshape(-1, 1)
    pinned = torch.arange(x.shape[1], device=x.device) < delays
    times = torch.where(pinned, 0.0, time).float().expand(x.shape[0], -1)
    v = velocity(torch.where(pinned[..., None], target, x), times)
    return torch.where(pinned[..., None], (x - target) / time, v)


class PrefixSampler:
    """What LeRobot's sampling loop calls in each step where its own `RTCProcessor` would stand.

    Without a prefix it hands the model's velocity on, bit for bit. The loop hands delay and horizon on as they
    come, so that in a batch they may be tensors: a number for each chunk.

    Args:
        mode: How to follow the prefix.
        most: β, the largest guidance weight; the paper's 5. More follows more strictly and less smoothly.
    """

    def __init__(self, mode: PrefixMode, most: float = 5.0) -> None:
        self.mode = mode
        self.most = most

    def __repr__(self) -> str:
        return f"<PrefixSampler {self.mode} most={self.most:g}>"

    def is_debug_enabled(self) -> bool:
        """Say that nothing is recorded (LeRobot asks after each step)."""
        return False

    def denoise_step(
        self,
        x_t: Tensor,
        prev_chunk_left_over: Tensor | None,
        inference_delay: int | Tensor | None,
        time: float,
        original_denoise_step_partial: Velocity,
        execution_horizon: int | Tensor | None = None,
        **_ignored: Any,
    ) -> Tensor:
        """Return the velocity of one step, in LeRobot's words.

        Args:
            x_t: `(batch, rows, columns)`; columns beyond the policy's action are padding.
            prev_chunk_left_over: The leftover in the model's units, `(batch, n, action_dim)`; shorter ones are
                repeated at the end up to n, and their horizon says where they end.
            inference_delay: d, `(batch,)` where they differ.
            time: t.
            original_denoise_step_partial: The model at this time.
            execution_horizon: LeRobot's word for the prefix attention horizon H − s; None: all that is left.
        """
        if prev_chunk_left_over is None:
            return original_denoise_step_partial(x_t)
        delay = torch.as_tensor(0 if inference_delay is None else inference_delay)
        target, column_weights = _like(prev_chunk_left_over, x_t)
        if self.mode == "trained":
            return pinned_velocity(
                original_denoise_step_partial, x_t, time, target=target, delay=delay
            )
        rows, left = x_t.shape[1], prev_chunk_left_over.shape[1]
        horizon = torch.as_tensor(left if execution_horizon is None else execution_horizon)
        horizon = horizon.clamp(max=left)
        weights = prefix_weights(rows, delay=torch.minimum(delay, horizon), horizon=horizon)
        return guided_velocity(
            original_denoise_step_partial,
            x_t,
            time,
            target=target,
            weights=weights.to(x_t.device)[..., None] * column_weights,
            most=self.most,
        )


def _like(leftover: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leftover in x's shape, and a weight for each column: 0 where the model only pads.

    After the last row it is repeated, never filled with zeros: in the model's units a zero is the data set's
    mean, a motion. Those rows have no weight; they only keep the numbers tame.
    """
    rows = leftover[:, : x.shape[1]].to(x)
    repeated = rows[:, -1:].expand(-1, x.shape[1] - rows.shape[1], -1)
    target = torch.zeros_like(x)
    target[..., : rows.shape[2]] = torch.cat([rows, repeated], dim=1)
    column_weights = torch.zeros(x.shape[2], device=x.device)
    column_weights[: rows.shape[2]] = 1.0
    return target, column_weights
