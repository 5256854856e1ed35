# SPDX-License-Identifier: Apache-2.0
"""What a served checkpoint says about itself, as a robot reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

from tiny_lerobot import JOINTS, ROWS  # noqa: E402

from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from pi05_websocket.client import RemotePolicy  # noqa: E402
from pi05_websocket.server import WebsocketPolicyServer  # noqa: E402

Checkpoints = Callable[..., Path]

NAMES = [f"joint_{number}.pos" for number in range(JOINTS)]


def trained(folder: Path, to: Path, names: list[str]) -> Path:
    """Copy a checkpoint to where a training left it, beside its data set."""
    checkpoint = to / "pretrained_model"
    checkpoint.mkdir()
    for file in folder.iterdir():
        (checkpoint / file.name).write_bytes(file.read_bytes())
    (to / "meta").mkdir()
    features = {key: {"names": names} for key in ("observation.state", "action")}
    (to / "meta" / "info.json").write_text(json.dumps({"fps": 25, "features": features}))
    training = {"dataset": {"root": str(to)}}
    (checkpoint / "train_config.json").write_text(json.dumps(training))
    return checkpoint


def announced(spec: str) -> dict[str, Any]:
    """Return what a robot is told when it connects."""
    served = load_checkpoint(spec)
    with WebsocketPolicyServer(served, port=0) as server, RemotePolicy(server.url) as remote:
        said = dict(remote.metadata)
    del said["_images"]  # the server's own
    return said


def test_a_robot_is_told_all_that_is_known(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Sizes, names, rate, what it can: over the wire, in plain maps and lists."""
    said = announced(str(trained(checkpoints("smolvla"), tmp_path, NAMES)))
    fingerprint = said.pop("fingerprint")
    assert sorted(fingerprint) == ["normalizer", "weights"]
    assert said == {
        "policy": "smolvla",
        "action_dim": JOINTS,
        "action_horizon": ROWS,
        "action_names": NAMES,
        "observation_keys": ["observation/images/front", "observation/state"],
        "observation_shapes": {
            "observation/images/front": [32, 32, 3],
            "observation/state": [JOINTS],
        },
        "state_names": NAMES,
        "cameras": ["observation/images/front"],
        "image_sizes": {"observation/images/front": [32, 32]},
        "n_obs_steps": 1,
        "control_hz": 25.0,
        "capabilities": {"batch": True, "max_batch": None, "prefix": "guided", "seeds": True},
        "_rt": {"version": 1, "prefix": "guided", "max_delay": None, "refusals": True},
    }


def test_what_no_file_says_is_not_claimed(checkpoints: Checkpoints) -> None:
    """Without its data set a checkpoint knows sizes, and neither names nor rate."""
    said = announced(str(checkpoints("act")))
    assert not {"action_names", "state_names", "control_hz"} & set(said)
    assert said["capabilities"]["prefix"] == said["_rt"]["prefix"] == "none"


def test_names_of_another_width_are_nobodys(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The data set at that place may be another one by now."""
    said = announced(str(trained(checkpoints("act"), tmp_path, NAMES[:-1])))
    assert not {"action_names", "state_names"} & set(said)


def test_names_in_the_checkpoint_itself_come_first(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """π₀ and π₀.₅ keep their actions' names; the state's they do not."""
    folder = checkpoints("pi05", action_feature_names=[*"uvwxyz"])
    assert announced(str(folder))["action_names"] == [*"uvwxyz"]
    said = announced(str(trained(folder, tmp_path, NAMES)))
    assert (said["action_names"], said["state_names"]) == ([*"uvwxyz"], NAMES)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("act", "max_batch=8", {"batch": True, "max_batch": 8, "seeds": True}),
        ("pi05", "rtc=false", {"batch": True, "max_batch": None, "seeds": True}),
        ("vqbet", "", {"batch": False, "max_batch": 1, "seeds": True}),
        ("tdmpc", "max_batch=8", {"batch": False, "max_batch": 1, "seeds": True}),
    ],
)
def test_capabilities(
    checkpoints: Checkpoints, kind: str, options: str, expected: dict[str, Any]
) -> None:
    """VQ-BeT and TD-MPC draw in the middle of the model, all rows from one generator: they go one by one."""
    said = load_checkpoint(f"{checkpoints(kind)}?{options}").metadata
    assert said["capabilities"] == {**expected, "prefix": "none"}


def test_steps_that_are_looked_at_are_told(checkpoints: Checkpoints) -> None:
    """VQ-BeT looks at five, all of them the request's one."""
    assert load_checkpoint(str(checkpoints("vqbet"))).metadata["n_obs_steps"] == 5
