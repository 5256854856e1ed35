# SPDX-License-Identifier: Apache-2.0
"""A policy's processors make of a batch what they make of each row, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from lerobot.processor import ProcessorStep  # noqa: E402
from tiny_lerobot import JOINTS, ROWS, a_request, an_observation  # noqa: E402

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy  # noqa: E402
from lerobot_policy_pi05_websocket.serving_batches import collated  # noqa: E402
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from lerobot_policy_pi05_websocket.serving_prefix import padded  # noqa: E402
from pi05_websocket.policy import PolicyRequest  # noqa: E402

Checkpoints = Callable[..., Path]

TOKENS = "observation.language.tokens"
MASK = "observation.language.attention_mask"
PROMPTS = ["pick up the cube", "cube", "pick pick pick up the cube 7 8 9", "the cube"]


def observations() -> list[dict[str, Any]]:
    """Four robots with a task each."""
    return [
        an_observation(seed) | {"prompt": prompt} for seed, prompt in enumerate(PROMPTS, start=1)
    ]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("act", {}),
        ("pi0", {}),
        ("pi0", {"use_relative_actions": True}),
        ("pi05", {}),
        ("pi05", {"use_relative_actions": True}),
        ("smolvla", {}),
        ("smolvla", {"pad_language_to": "max_length"}),
    ],
)
def test_together_as_alone(checkpoints: Checkpoints, kind: str, changes: dict[str, Any]) -> None:
    """Images, states, prompts with the state in them, leftovers: the same bits. What is padded is masked."""
    policy = load_checkpoint(str(checkpoints(kind, **changes)))
    processors, keys = policy._processors, policy._keys
    assert processors.by_row
    rows = [keys.batch(observation) for observation in observations()]
    requests = [a_request(rows=number) for number in (3, 8, 1, 5)]
    batch, leftovers = processors.prepared(rows, padded(requests))
    chunks = torch.randn(4, ROWS, JOINTS, generator=torch.Generator().manual_seed(1))
    finished = processors.finished(chunks)
    assert leftovers is not None
    for place, row in enumerate(rows):
        alone, leftover = processors.prepared([row], padded(requests[place : place + 1]))
        assert leftover is not None
        assert torch.equal(leftovers[place, : leftover.shape[1]], leftover[0])
        np.testing.assert_array_equal(
            finished[place], processors.finished(chunks[place : place + 1])[0]
        )
        assert alone.keys() == batch.keys()
        for name, value in alone.items():
            if name in (TOKENS, MASK):
                length = value.shape[1]
                assert torch.equal(batch[name][place, :length], value[0])
                assert not batch[MASK][place, length:].any()
            elif isinstance(value, torch.Tensor):
                assert torch.equal(batch[name][place], value[0])
            elif name == "task":
                assert batch[name][place : place + 1] == value


def test_images_become_what_lerobot_makes_of_them() -> None:
    """Every byte divided by 255 as LeRobot divides it on a CPU, channels first, several steps or one."""
    bytes_ = torch.arange(256, dtype=torch.uint8).reshape(1, 2, 8, 16).movedim(1, -1)
    rgb = torch.cat([bytes_, bytes_[..., :1]], dim=-1)  # (1, 8, 16, 3)
    expected = rgb.type(torch.float32).permute(0, 3, 1, 2) / 255
    made = collated([{"image": rgb}, {"image": rgb.flip(1)}], torch.device("cpu"))["image"]
    assert torch.equal(made, torch.cat([expected, expected.flip(2)]))
    assert made.is_contiguous()
    steps = collated([{"image": rgb[:, None].expand(1, 5, -1, -1, -1)}], torch.device("cpu"))
    assert torch.equal(steps["image"], expected[:, None].expand(1, 5, -1, -1, -1))


def test_what_is_no_image_is_only_put_together() -> None:
    """States one below the other, texts in a list; a single one is not even copied."""
    rows = [{"state": torch.full((1, 2), float(n)), "task": [str(n)]} for n in (1, 2)]
    both = collated(rows, torch.device("cpu"))
    assert both["state"].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert both["task"] == ["1", "2"]
    assert collated(rows[:1], torch.device("cpu"))["state"] is rows[0]["state"]


class Counting(ProcessorStep):
    """Somebody's own step, of which nothing is known; it notes how many rows it is shown."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, transition: Any) -> Any:
        """Note and hand on."""
        self.rows.append(len(transition["observation"]["observation.state"]))
        return transition

    def transform_features(self, features: Any) -> Any:
        """Change nothing."""
        return features


def test_a_step_of_somebodys_own_sees_one_robot_at_a_time(checkpoints: Checkpoints) -> None:
    """What it does with a batch nobody knows: it is asked as a robot alone would ask it."""
    loaded = load_checkpoint(str(checkpoints("smolvla")))
    step = Counting()
    before = loaded._processors.before
    before.steps = [*before.steps, step]
    policy = LeRobotPolicy(loaded._policy, before, loaded._processors.after)
    requests = [
        PolicyRequest(observation=observation, seed=place)
        for place, observation in enumerate(observations())
    ]
    answers = policy.infer_requests(requests)
    assert not any(isinstance(answer, Exception) for answer in answers)
    assert step.rows == [1, 1, 1, 1]
    assert policy.metadata["capabilities"]["batch"] is False
    assert repr(policy._processors) == "<Processors by_row=False>"
