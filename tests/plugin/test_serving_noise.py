# SPDX-License-Identifier: Apache-2.0
"""Each row's noise is its seed's, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from lerobot.policies.common.flow_matching import sample_noise  # noqa: E402
from tiny_lerobot import JOINTS, ROWS, config_of  # noqa: E402

from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from lerobot_policy_pi05_websocket.serving_noise import Noise, noise_shape  # noqa: E402

Checkpoints = Callable[..., Path]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("act", ()),
        ("pi0", (ROWS, 32)),
        ("pi05", (ROWS, 32)),
        ("smolvla", (ROWS, 32)),
        ("diffusion", (16, JOINTS)),
        ("vqbet", None),
        ("tdmpc", None),
    ],
)
def test_what_is_drawn_follows_from_the_config(
    kind: str, expected: tuple[int, ...] | None, tmp_path: Path
) -> None:
    """A shape where the noise can be handed in, `()` where nothing is drawn, None where neither is known."""
    assert noise_shape(config_of(kind, tmp_path)) == expected


def noise_of(checkpoints: Checkpoints, kind: str) -> Noise:
    """Return what a policy of this kind draws from."""
    return load_checkpoint(str(checkpoints(kind)))._model.noise


def drawn(noise: Noise, seeds: list[int | None]) -> torch.Tensor:
    """Return the noise for rows of these seeds."""
    with noise.drawn(seeds) as options:
        found: torch.Tensor = options["noise"]
    return found


def test_a_row_has_its_seeds_noise_wherever_it_is(checkpoints: Checkpoints) -> None:
    """Alone, in a batch, and in another place of another one: the same bits, and LeRobot's own."""
    noise = noise_of(checkpoints, "pi05")
    torch.manual_seed(7)
    lerobots = sample_noise((1, ROWS, 32), "cpu")
    assert torch.equal(drawn(noise, [7]), lerobots)
    assert torch.equal(drawn(noise, [7, 8])[0], lerobots[0])
    assert torch.equal(drawn(noise, [3, 2**63 - 1, 7])[2], lerobots[0])
    assert repr(noise) == f"<Noise ({ROWS}, 32)>"


def test_without_a_seed_it_is_the_global_generators(checkpoints: Checkpoints) -> None:
    """Rows draw one after the other, as requests would."""
    noise = noise_of(checkpoints, "smolvla")
    torch.manual_seed(7)
    one_by_one = torch.cat([sample_noise((1, ROWS, 32), "cpu") for _ in range(2)])
    torch.manual_seed(7)
    assert torch.equal(drawn(noise, [None, None]), one_by_one)


def test_where_nothing_is_drawn_nothing_is_handed_in(checkpoints: Checkpoints) -> None:
    """ACT knows no noise."""
    noise = noise_of(checkpoints, "act")
    assert noise.by_row
    with noise.drawn([1, 2, 3]) as options:
        assert options == {}


def test_what_draws_for_itself_is_seeded_for_its_pass_only(checkpoints: Checkpoints) -> None:
    """VQ-BeT draws in the middle of the model: torch's generator is its seed's there, and as before after."""
    noise = noise_of(checkpoints, "vqbet")
    assert not noise.by_row
    torch.manual_seed(7)
    seeds_own = torch.rand(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with noise.drawn([7]) as options:
        assert options == {}
        assert torch.equal(torch.rand(3), seeds_own)
    assert torch.equal(torch.get_rng_state(), before)
    with noise.drawn([None]):
        torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_diffusions_steps_draw_by_row_too(checkpoints: Checkpoints) -> None:
    """The noise of its steps for two rows is the rows' own; outside a pass the scheduler is diffusers'."""
    pytest.importorskip("diffusers", reason="needs LeRobot's extra `diffusion`")
    policy = load_checkpoint(str(checkpoints("diffusion")))
    scheduler: Any = policy._policy.diffusion.noise_scheduler
    noise, zeros = policy._model.noise, torch.zeros(2, 16, JOINTS)

    def stepped(seeds: list[int | None]) -> torch.Tensor:
        with noise.drawn(seeds) as options:
            sample = options["noise"]
            for t in scheduler.timesteps:
                sample = scheduler.step(zeros[: len(seeds)], t, sample).prev_sample
        return sample

    scheduler.set_timesteps(4)
    both = stepped([5, 6])
    assert torch.equal(both[:1], stepped([5]))
    assert torch.equal(both[1:], stepped([6]))
    torch.manual_seed(1)
    first = scheduler.timesteps[0]
    own = scheduler.step(zeros, first, zeros).prev_sample
    torch.manual_seed(1)
    assert torch.equal(scheduler.step(zeros, first, zeros).prev_sample, own)
    assert not torch.equal(scheduler.step(zeros, first, zeros).prev_sample, own)
