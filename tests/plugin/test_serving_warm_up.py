# SPDX-License-Identifier: Apache-2.0
"""What is run before the first robot comes, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.processor import make_default_pre_post_processors  # noqa: E402
from tiny_lerobot import (  # noqa: E402
    JOINTS,
    STATE,
    STATS,
    ToyFlow,
    ToyFlowConfig,
    a_request,
    an_observation,
)

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy, ServingConfig  # noqa: E402
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from pi05_websocket.policy import warm_up_policy  # noqa: E402
from pi05_websocket.wire.realtime import read_realtime_reply  # noqa: E402

Checkpoints = Callable[..., Path]


def toy(flow: type[ToyFlow] = ToyFlow, **config: Any) -> LeRobotPolicy:
    """Serve the toy flow, which can follow a prefix."""
    settings = ToyFlowConfig(
        device="cpu",
        rtc_training_max_delay=6,
        input_features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    )
    processors = make_default_pre_post_processors(settings, dataset_stats=STATS)
    return LeRobotPolicy(flow(settings), *processors, ServingConfig(**config))


def passes(policy: LeRobotPolicy) -> list[tuple[int, bool]]:
    """Return rows and prefix of each pass so far; the toy notes what it is shown."""
    return policy._policy.passes


class Noting(ToyFlow):
    """Notes how many rows a pass has and whether they follow something."""

    def __init__(self, config: ToyFlowConfig) -> None:
        super().__init__(config)
        self.passes: list[tuple[int, bool]] = []

    def predict_action_chunk(self, batch: Any, *args: Any, **options: Any) -> Any:
        """Note and answer."""
        self.passes.append((len(batch["task"]), "prev_chunk_left_over" in options))
        return super().predict_action_chunk(batch, *args, **options)


def test_each_size_with_and_without_a_prefix() -> None:
    """Small ones first; what the settings do not allow is cut and not run twice."""
    policy = toy(Noting)
    assert warm_up_policy(policy, [4, 1])
    assert passes(policy) == [(1, False), (1, True), (4, False), (4, True)]
    policy = toy(Noting, max_batch=2)
    policy.warm_up([1, 2, 4, 8])
    assert passes(policy) == [(1, False), (1, True), (2, False), (2, True)]


@pytest.mark.parametrize("kind", ["act", "pi05", "smolvla", "vqbet", "tdmpc"])
def test_every_policy_knows_what_it_is_shown(checkpoints: Checkpoints, kind: str) -> None:
    """Its own config says which images and joints; torch's global generator is as before."""
    policy = load_checkpoint(str(checkpoints(kind)))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    policy.warm_up([1, 2])
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_measured_stays() -> None:
    """The first passes are the slow ones: the first robot's own estimate of its delay stands."""
    policy = toy()
    policy.timed = lambda work: (work(), 5000.0)
    policy.warm_up([1])
    policy.timed = lambda work: (work(), 40.0)
    reply = read_realtime_reply(policy.infer_realtime(an_observation(), a_request(delay=1), 0.0))
    assert reply is not None
    assert reply.delay == 1


def test_what_takes_long_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A line for each pass that took longer than two seconds; none for others."""
    policy = toy()
    policy.timed = lambda work: (work(), 1900.0)
    with caplog.at_level("INFO"):
        policy.warm_up([3])
        assert not caplog.records
        policy.timed = lambda work: (work(), 5000.0)
        policy.warm_up([3])
    assert [record.getMessage() for record in caplog.records] == [
        "warming up, 1 of 2: 3 rows took 5.0 s",
        "warming up, 2 of 2: 3 rows with a prefix took 5.0 s",
    ]


class Broken(ToyFlow):
    """A policy that cannot answer."""

    def predict_action_chunk(self, *args: Any, **options: Any) -> Any:
        """Raise what the model raises."""
        raise RuntimeError("no kernel for this")


def test_what_cannot_answer_is_known_before_a_robot_comes() -> None:
    """The server does not start with it."""
    with pytest.raises(RuntimeError, match="no kernel for this"):
        toy(Broken).warm_up([1])


def test_the_example_is_what_a_robot_sends(checkpoints: Checkpoints) -> None:
    """Images in uint8, the state in float32, a task."""
    policy = load_checkpoint(str(checkpoints("act")))
    shown = policy._keys.example()
    real = an_observation()
    assert shown.keys() == real.keys()
    for key in ("observation/images/front", "observation/state"):
        assert (shown[key].shape, shown[key].dtype) == (real[key].shape, real[key].dtype)
    assert np.abs(shown["observation/state"]).max() == 0.0
