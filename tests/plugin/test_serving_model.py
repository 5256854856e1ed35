# SPDX-License-Identifier: Apache-2.0
"""The forward pass in other number types, and how many rows come out of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from tiny_lerobot import ROWS, a_request, an_observation, config_of  # noqa: E402

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy, ServingConfig  # noqa: E402
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from lerobot_policy_pi05_websocket.serving_model import action_horizon  # noqa: E402
from pi05_websocket.errors import ConfigError  # noqa: E402
from pi05_websocket.policy import PolicyRequest  # noqa: E402

Checkpoints = Callable[..., Path]

DIFFUSION = pytest.param(
    "diffusion",
    marks=pytest.mark.skipif(
        find_spec("diffusers") is None, reason="needs LeRobot's extra `diffusion`"
    ),
)


def types(policy: LeRobotPolicy) -> set[torch.dtype]:
    """Return the types of the policy's weights."""
    return {parameter.dtype for parameter in policy._policy.parameters()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["act", "smolvla", DIFFUSION, "vqbet"])
def test_a_policy_without_a_type_of_its_own_is_cast_whole(
    checkpoints: Checkpoints, kind: str, dtype: str
) -> None:
    """It answers nearly what it answers in float32; the processors stay, so what comes out is float32."""
    folder = checkpoints(kind)
    request = PolicyRequest(observation=an_observation(), seed=3)
    (exact,) = load_checkpoint(str(folder)).infer_requests([request])
    policy = load_checkpoint(f"{folder}?dtype={dtype}")
    (rounded,) = policy.infer_requests([request])
    assert types(policy) == {getattr(torch, dtype)}
    assert not isinstance(exact, Exception)
    assert not isinstance(rounded, Exception)
    assert rounded["actions"].dtype == np.float32
    difference = np.abs(rounded["actions"] - exact["actions"])
    assert 0.0 < np.median(difference) < 2.0  # degrees, of 200
    for step in [*policy._processors.before.steps, *policy._processors.after.steps]:
        assert {value.dtype for value in step.state_dict().values()} <= {torch.float32}


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_a_policy_with_a_type_of_its_own_is_told(checkpoints: Checkpoints, kind: str) -> None:
    """π₀ and π₀.₅ choose themselves what stays in float32, as they do in LeRobot; a prefix is followed too."""
    policy = load_checkpoint(f"{checkpoints(kind)}?dtype=bfloat16")
    assert policy._policy.config.dtype == "bfloat16"
    assert types(policy) == {torch.bfloat16, torch.float32}
    answers = policy.infer_requests(
        [
            PolicyRequest(observation=an_observation(), realtime=realtime)
            for realtime in (None, a_request())
        ]
    )
    for answer in answers:
        assert not isinstance(answer, Exception)
        assert np.isfinite(answer["actions"]).all()


def test_a_flow_cast_whole_follows_a_prefix(checkpoints: Checkpoints) -> None:
    """The product is taken through the rounded model; the pinned rows come near the leftover."""
    policy = load_checkpoint(f"{checkpoints('smolvla')}?dtype=bfloat16")
    request = a_request()
    torch.manual_seed(1)
    free = policy.infer(an_observation())["actions"]
    torch.manual_seed(1)
    led = policy.infer_realtime(an_observation(), request, 0.0)["actions"]
    missed, missed_free = (np.abs(chunk[:3] - request.leftover[:3]).mean() for chunk in (led, free))
    assert missed < 0.5 * missed_free


def test_float32_changes_nothing_where_it_is_so_already(checkpoints: Checkpoints) -> None:
    """Bit for bit the same chunk."""
    folder = checkpoints("act")
    plain, cast = (
        load_checkpoint(f"{folder}{option}").infer(an_observation())["actions"]
        for option in ("", "?dtype=float32")
    )
    np.testing.assert_array_equal(plain, cast, strict=True)


def test_a_type_a_policy_does_not_know_is_refused(checkpoints: Checkpoints) -> None:
    """Before anything is loaded, or, for a policy made elsewhere, before anything is cast."""
    folder = checkpoints("pi05")
    with pytest.raises(ConfigError, match="pi05 knows float32 and bfloat16"):
        load_checkpoint(f"{folder}?dtype=float16")
    made = load_checkpoint(str(folder))
    processors = made._processors
    with pytest.raises(ConfigError, match="pi05 was made with dtype=float32"):
        LeRobotPolicy(
            made._policy, processors.before, processors.after, ServingConfig(dtype="bfloat16")
        )


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("act", {"n_action_steps": 5}, ROWS),
        ("pi05", {"n_action_steps": 5}, ROWS),
        ("diffusion", {}, 8),
        ("vqbet", {}, 5),
        ("tdmpc", {}, 2),
        ("tdmpc", {"n_action_repeats": 1, "n_action_steps": 3, "horizon": 5}, 3),
    ],
)
def test_the_rows_of_a_chunk(
    kind: str, changes: dict[str, int], expected: int, tmp_path: Path
) -> None:
    """What comes out, not what is computed inside or executed by LeRobot's own loop."""
    assert action_horizon(config_of(kind, tmp_path, **changes)) == expected


def test_rows_that_no_config_says_are_not_known(checkpoints: Checkpoints) -> None:
    """Then the metadata says nothing of them."""
    policy = load_checkpoint(str(checkpoints("act")))
    config = type("Config", (), {"type": "somebodys"})
    assert action_horizon(config) is None
    assert repr(policy._model) == "<Model act <Noise ()>>"
