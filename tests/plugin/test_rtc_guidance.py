# SPDX-License-Identifier: Apache-2.0
"""Guidance against the paper's equations, finite differences, and toy flows whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from lerobot.configs import RTCAttentionSchedule  # noqa: E402
from lerobot.policies.common.flow_matching import euler_integrate  # noqa: E402
from lerobot.policies.rtc import RTCConfig  # noqa: E402
from lerobot.policies.rtc.modeling_rtc import RTCProcessor  # noqa: E402

from lerobot_policy_pi05_websocket.rtc_guidance import (  # noqa: E402
    PrefixSampler,
    guidance_weight,
    guided_velocity,
    pinned_velocity,
    prefix_weights,
)

ROWS, COLUMNS = 8, 3
RNG = np.random.default_rng(4)
MIX_ROWS = RNG.normal(size=(ROWS, ROWS)) / 4
MIX_COLUMNS = RNG.normal(size=(COLUMNS, COLUMNS)) / 2
X = RNG.normal(size=(ROWS, COLUMNS))
TARGET = RNG.normal(size=(ROWS, COLUMNS))


def a_field(x: torch.Tensor, time: float = 0.6) -> torch.Tensor:
    """A velocity that is not linear and couples all rows and columns."""
    rows, columns = torch.as_tensor(MIX_ROWS).to(x), torch.as_tensor(MIX_COLUMNS).to(x)
    return torch.tanh(rows @ x @ columns) * (1.5 - time) + 0.1 * x


def paper_weights(rows: int, d: int, end: int) -> np.ndarray:
    """Equation 5, row by row; `end` is H − s."""
    weights = np.zeros(rows)
    for i in range(rows):
        if i < d:
            weights[i] = 1.0
        elif i < end:
            c = (end - i) / (end - d + 1)
            weights[i] = c * (math.exp(c) - 1) / (math.e - 1)
    return weights


def numerical_jacobian(x: np.ndarray, time: float) -> np.ndarray:
    """Return d(x − t v(x)) / dx by central differences, flattened."""

    def predicted(flat: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(flat.reshape(1, ROWS, COLUMNS))
        return (at - time * a_field(at, time)).numpy().ravel()

    step = 1e-6
    columns = []
    for k in range(x.size):
        nudge = np.zeros(x.size)
        nudge[k] = step
        difference = predicted(x.ravel() + nudge) - predicted(x.ravel() - nudge)
        columns.append(difference / (2 * step))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(("d", "end"), [(0, 8), (2, 6), (3, 3), (4, 5), (0, 0), (8, 8)])
def test_the_mask_is_the_papers(d: int, end: int) -> None:
    """Ones, an exponential fall, zeros."""
    ours = prefix_weights(ROWS, delay=d, horizon=end).numpy()
    np.testing.assert_allclose(ours, paper_weights(ROWS, d, end), atol=1e-7)


def test_the_mask_is_lerobots_too() -> None:
    """Its schedule EXP draws the same curve, so only the product differs."""
    theirs = RTCProcessor(RTCConfig(prefix_attention_schedule=RTCAttentionSchedule.EXP))
    expected = theirs.get_prefix_weights(2, 6, ROWS)
    torch.testing.assert_close(prefix_weights(ROWS, delay=2, horizon=6), expected)


@pytest.mark.parametrize(
    ("time", "expected"),
    [(1.0, 5.0), (0.9, 5.0), (0.5, 2.0), (0.3, 0.58 / 0.21), (0.05, 5.0), (0.0, 5.0)],
)
def test_the_strength_is_the_papers(time: float, expected: float) -> None:
    """min(β, (1 − τ) / (τ r²)): at the ends β, in the middle 2."""
    assert guidance_weight(time, 5.0) == pytest.approx(expected)


@pytest.mark.parametrize("time", [1.0, 0.6, 0.1])
def test_guidance_is_the_papers_equation(time: float) -> None:
    """The guided velocity equals equations 2 to 4, computed with numpy and finite differences.

    The paper integrates v_paper = −dx/dt over τ = 1 − t: v' = v + w Jᵀ (W (target − x̂)).
    """
    weights = paper_weights(ROWS, 2, 6)
    x = torch.from_numpy(X)[None]
    v_paper = -a_field(x, time).numpy()[0]
    estimate = X + time * v_paper  # x̂ = A + (1 − τ) v
    error = (TARGET - estimate) * weights[:, None]
    tau = 1 - time
    strength = 5.0
    if tau > 0:
        r_squared = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        strength = min(5.0, (1 - tau) / (tau * r_squared))
    product = (numerical_jacobian(X, time).T @ error.ravel()).reshape(ROWS, COLUMNS)
    expected = v_paper + strength * product

    ours = guided_velocity(
        lambda at: a_field(at, time),
        x,
        time,
        target=torch.from_numpy(TARGET)[None],
        weights=torch.from_numpy(weights)[:, None],
        most=5.0,
    )

    np.testing.assert_allclose(-ours.numpy()[0], expected, rtol=1e-6, atol=1e-8)


def corrections(sampler: Any) -> torch.Tensor:
    """Return how a sampler changes the velocity at t = 0.6, for a prefix of five rows, two of them pinned."""
    x = torch.from_numpy(X).float()[None]
    leftover = torch.from_numpy(TARGET[:5]).float()[None]
    with torch.no_grad():
        guided = sampler.denoise_step(
            x_t=x,
            prev_chunk_left_over=leftover,
            inference_delay=2,
            time=0.6,
            original_denoise_step_partial=a_field,
            execution_horizon=5,
        )
        return guided - a_field(x)


def test_rows_after_the_prefix_hear_of_it() -> None:
    """LeRobot's own processor moves the prefix only; the true product moves every row the model couples."""
    exp = RTCConfig(prefix_attention_schedule=RTCAttentionSchedule.EXP, max_guidance_weight=5.0)
    theirs, ours = corrections(RTCProcessor(exp)), corrections(PrefixSampler("guided", 5.0))
    assert theirs[0, 5:].abs().max() == 0.0
    assert ours[0, 5:].abs().min() > 1e-4


def straight_to(goal: torch.Tensor) -> Any:
    """Return the flow of a policy that knows one chunk only, up to a shift of all rows together.

    Data: goal + shift with shift ~ N(0, 1) for each column, so that a prefix says where all rows belong.
    The exact velocity of the straight path x_t = (1 − t) data + t noise.
    """

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        t = times.reshape(-1)[0]
        rows = x.shape[1]
        # E[shift | x]: rows are (1 − t)(goal + shift) + t noise, a linear Gaussian model.
        residual = (x - (1 - t) * goal).mean(dim=1, keepdim=True)
        gain = (1 - t) / ((1 - t) ** 2 + t**2 / rows)
        data = goal + gain * residual
        return (x - data) / t

    return velocity


def test_a_guided_chunk_continues_the_leftover() -> None:
    """A flow whose chunks differ by a shift is led to the shift of the leftover, in the rows after it too."""
    goal = torch.linspace(0, 1, ROWS)[None, :, None].expand(1, ROWS, COLUMNS)
    leftover = goal[:, :4] + 1.5
    noise = torch.randn(1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    free, led = (
        euler_integrate(
            straight_to(goal),
            noise,
            10,
            rtc_processor=PrefixSampler("guided"),
            rtc_enabled=True,
            inference_delay=3,
            prev_chunk_left_over=prefix,
            execution_horizon=4,
        )
        for prefix in (None, leftover)
    )
    wanted = goal + 1.5
    assert (led - wanted).abs().max() < 0.35
    assert (led - wanted).abs()[:, 4:].max() < 0.5 * (free - wanted).abs()[:, 4:].min()


def test_without_a_prefix_the_velocity_is_the_models() -> None:
    """Bit for bit, so that a policy serves as if nothing were installed."""
    x = torch.from_numpy(X).float()[None]
    for mode in ("guided", "trained"):
        stock = PrefixSampler(mode).denoise_step(x, None, None, 0.6, a_field)
        assert torch.equal(stock, a_field(x))


def test_columns_that_only_pad_are_not_guided() -> None:
    """A policy of two joints in a model of three columns: what the third is, is the model's affair."""
    x = torch.from_numpy(X).float()[None]
    still = PrefixSampler("guided").denoise_step(
        x, torch.zeros(1, 5, 2), 2, 0.6, lambda at: 0.0 * at, execution_horizon=5
    )
    assert still[0, 0, 0] != 0.0
    assert still[0, :, 2].abs().max() == 0.0


def test_after_the_leftover_there_is_nothing_to_follow() -> None:
    """However long the horizon asked for, a row that does not exist has no weight."""
    x = torch.from_numpy(X).float()[None]
    leftover = torch.full((1, 2, COLUMNS), 7.0)
    moved = PrefixSampler("guided").denoise_step(
        x, leftover, 2, 0.6, lambda at: 0.0 * at, execution_horizon=6
    )
    assert moved[0, 2:].abs().max() == 0.0
    assert moved[0, :2].abs().min() > 0.0


def test_a_trained_policy_sees_the_pinned_rows_clean() -> None:
    """Time 0 and the leftover's values for pinned rows, in every step; the rest at t."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append((x.clone(), times.clone()))
        return torch.zeros_like(x)

    leftover = torch.from_numpy(TARGET).float()[None]
    chunk = euler_integrate(
        velocity,
        torch.from_numpy(X).float()[None],
        5,
        rtc_processor=PrefixSampler("trained"),
        rtc_enabled=True,
        inference_delay=3,
        prev_chunk_left_over=leftover[:, :4],
        execution_horizon=4,
    )
    assert len(seen) == 5
    for k, (x, times) in enumerate(seen):
        assert torch.equal(x[:, :3], leftover[:, :3])
        assert times[0, :3].tolist() == [0.0] * 3
        assert times[0, 3:].tolist() == pytest.approx([1 - k / 5] * 5)
    torch.testing.assert_close(chunk[:, :3], leftover[:, :3])
    assert torch.equal(chunk[:, 3:], torch.from_numpy(X[3:]).float()[None])


def test_a_trained_policy_continues_what_is_pinned() -> None:
    """A toy flow that copies the last clean row plus one: the first free row continues the prefix."""

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        clean = int((times[0] == 0).sum())
        last = x[:, clean - 1 : clean]
        step = torch.arange(1, ROWS + 1 - clean)[None, :, None]
        data = torch.cat([x[:, :clean], (last + step).expand(1, ROWS - clean, COLUMNS)], dim=1)
        return (x - data) / times.clamp_min(1e-6)[..., None]

    leftover = torch.arange(10.0, 14.0)[None, :, None].expand(1, 4, COLUMNS)
    chunk = euler_integrate(
        velocity,
        torch.from_numpy(X).float()[None],
        10,
        rtc_processor=PrefixSampler("trained"),
        rtc_enabled=True,
        inference_delay=4,
        prev_chunk_left_over=leftover,
    )
    expected = torch.arange(10.0, 18.0)[None, :, None].expand(1, ROWS, COLUMNS)
    torch.testing.assert_close(chunk, expected)


def test_pinning_nothing_is_stock() -> None:
    """A delay of 0 leaves a trained policy's velocity alone."""
    x = torch.from_numpy(X).float()[None]
    v = pinned_velocity(lambda at, times: a_field(at), x, 0.6, target=x, delay=0)
    assert torch.equal(v, a_field(x))
    assert repr(PrefixSampler("guided")) == "<PrefixSampler guided most=5>"
    assert not PrefixSampler("guided").is_debug_enabled()


def a_batch(of: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x, leftovers of different lengths (repeated at the end), delays and horizons."""
    generator = torch.Generator().manual_seed(3)
    x, leftovers = torch.randn(2, of, ROWS, COLUMNS, generator=generator)
    horizons = torch.arange(of) % ROWS + 1
    for row, end in enumerate(horizons.tolist()):
        leftovers[row, end:] = leftovers[row, end - 1]
    return x, leftovers, horizons // 2, horizons


@pytest.mark.parametrize("mode", ["guided", "trained"])
def test_a_batch_is_led_row_by_row(mode: Any) -> None:
    """Each chunk by its own leftover, delay and horizon: as if it were alone."""
    x, leftovers, delays, horizons = a_batch(9)
    x[5] = x[3]  # the same noise with another leftover
    field = a_field if mode == "guided" else lambda at, times: a_field(at) + times[..., None]

    def led(rows: slice, delay: Any, horizon: Any, leftover: torch.Tensor) -> torch.Tensor:
        return PrefixSampler(mode).denoise_step(
            x_t=x[rows],
            prev_chunk_left_over=leftover,
            inference_delay=delay,
            time=0.6,
            original_denoise_step_partial=field,
            execution_horizon=horizon,
        )

    together = led(slice(None), delays, horizons, leftovers)
    for row, (delay, end) in enumerate(zip(delays.tolist(), horizons.tolist(), strict=True)):
        alone = led(slice(row, row + 1), delay, end, leftovers[row : row + 1, :end])
        torch.testing.assert_close(together[row : row + 1], alone)
    assert not torch.equal(together[3], together[5])


def test_the_masks_of_a_batch_are_each_rows_own() -> None:
    """One call for all rows gives what a call for each gives, to the bit."""
    delays, horizons = torch.tensor([0, 2, 3, 8]), torch.tensor([8, 6, 3, 8])
    together = prefix_weights(ROWS, delay=delays, horizon=horizons)
    for weights, d, end in zip(together, delays.tolist(), horizons.tolist(), strict=True):
        assert torch.equal(weights, prefix_weights(ROWS, delay=d, horizon=end))


def test_lerobots_loop_hands_a_batchs_numbers_on() -> None:
    """What the sampler is told of each row goes through `euler_integrate` unchanged."""
    x, leftovers, delays, horizons = a_batch(4)
    chunks = euler_integrate(
        lambda at, times: a_field(at),
        x,
        10,
        rtc_processor=PrefixSampler("trained"),
        rtc_enabled=True,
        inference_delay=delays,
        prev_chunk_left_over=leftovers,
        execution_horizon=horizons,
    )
    for chunk, leftover, delay in zip(chunks, leftovers, delays.tolist(), strict=True):
        torch.testing.assert_close(chunk[:delay], leftover[:delay])
