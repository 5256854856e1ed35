# SPDX-License-Identifier: Apache-2.0
"""The recipe for a learned policy: what it records, and that LeRobot's trainer takes it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.sim,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]
pytest.importorskip("transformers", reason="needs the extra `serve`")
pytest.importorskip("so101_nexus", reason="needs the extra `sim`")

import torch  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.policies.act.modeling_act import ACTPolicy  # noqa: E402

from pi05_websocket.server.loading import load_policy  # noqa: E402
from pi05_websocket.sim.arm import JOINTS, LOWER, UPPER  # noqa: E402
from pi05_websocket.sim.tasks import TASKS  # noqa: E402

RECIPE = Path(__file__).parents[2] / "examples" / "train_on_the_expert.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """Import the example, which lies outside any package."""
    spec = importlib.util.spec_from_file_location(RECIPE.stem, RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[RECIPE.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cube at rest, one on the belt."""
    folder = tmp_path_factory.mktemp("recorded") / "data"
    recipe.Record(out=folder, cube=1, belt=1).run()
    return folder


def test_the_experts_episodes_are_an_ordinary_data_set(recipe: ModuleType, recorded: Path) -> None:
    """Two cameras, joints in degrees at 30 Hz, the task in words, labels the servos can follow."""
    data = LeRobotDataset(recipe.REPO_ID, root=recorded)
    actions = np.array(data.hf_dataset.with_format(None)["action"])

    assert data.fps == 30
    assert set(data.meta.tasks.index) == {task.prompt for task in TASKS.values()}
    assert data.meta.features["action"]["names"] == list(JOINTS)
    assert data[0]["observation.images.realsense"].shape == (3, recipe.SIDE, recipe.SIDE)
    assert data[0]["observation.images.wrist2"].shape == (3, recipe.SIDE, recipe.SIDE)
    assert ((actions >= LOWER - 0.01) & (actions <= UPPER + 0.01)).all()
    assert data.num_frames > 100


def test_labels_have_no_steps_though_the_arm_is_led_astray(
    recipe: ModuleType, recorded: Path
) -> None:
    """The arm's joints move by at most the expert's 3 degrees a row: what is executed is not the label."""
    data = LeRobotDataset(recipe.REPO_ID, root=recorded).hf_dataset.with_format(None)
    arm = np.array(data["action"])[:, :5]
    same = np.diff(np.array(data["episode_index"])) == 0

    assert np.abs(np.diff(arm, axis=0))[same].max() < 3.01


def test_in_memory_is_what_lerobot_would_read(recipe: ModuleType, recorded: Path) -> None:
    """Frame for frame, the rows beyond an episode's end marked as such."""
    rows = {"action": [row / 30 for row in range(50)]}
    theirs = LeRobotDataset(recipe.REPO_ID, root=recorded, delta_timestamps=rows)
    ours = recipe.InMemory(theirs, 50)

    assert len(ours) == len(theirs)
    for i in (0, len(theirs) // 2, len(theirs) - 1):
        for key, value in ours[i].items():
            expected = theirs[i][key]
            if key in theirs.meta.camera_keys:
                expected = (expected * 255).round().to(torch.uint8)
            if key == "task":
                assert value == expected
            else:
                torch.testing.assert_close(value, expected)


def test_lerobot_trains_and_the_checkpoint_is_served(
    recipe: ModuleType, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on a CPU; the flow policy offers to continue chunks, of 50 rows."""
    monkeypatch.setattr(sys, "argv", ["train_on_the_expert.py", "train"])
    out = tmp_path / "run"

    recipe.Train(kind="smolvla", data=recorded, out=out, steps=2, batch=2, save_every=2).run()
    served = load_policy(f"lerobot:{out}/checkpoints/last/pretrained_model")

    assert served.metadata["action_horizon"] == 50  # type: ignore[attr-defined]
    assert served.metadata["_rt"]["prefix"] == "guided"  # type: ignore[attr-defined]
    assert served.metadata["image_sizes"]["observation/images/wrist2"] == [96, 96]  # type: ignore[attr-defined]
    weights = (out / "checkpoints/last/pretrained_model/model.safetensors").stat().st_size
    assert weights < 8e6


def test_a_backbone_from_scratch_neither_grows_nor_fades(
    recipe: ModuleType, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACT's ResNet, whose frozen norms were told what they see: its features are of order one."""
    monkeypatch.setattr(sys, "argv", ["train_on_the_expert.py", "train"])
    out = tmp_path / "run"

    recipe.Train(kind="act", data=recorded, out=out, steps=1, batch=2, save_every=1).run()
    policy = ACTPolicy.from_pretrained(out / "checkpoints/last/pretrained_model")
    data = recipe.InMemory(LeRobotDataset(recipe.REPO_ID, root=recorded), 1)
    with torch.no_grad():
        features = policy.model.backbone(data.some_images(8))["feature_map"]

    assert 0.1 < float(features.std()) < 10
