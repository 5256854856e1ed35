# SPDX-License-Identifier: Apache-2.0
"""What belongs into an OpenPI checkout, the SO-101's transforms and training configs, under OpenPI's rules."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import fake_openpi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi05_websocket.images import resize_with_pad
from pi05_websocket.presets import SO101_JOINTS, preset

so101 = fake_openpi.load("so101_policy_alone", fake_openpi.FOLDER / "so101_policy.py")
ModelType = fake_openpi.ModelType

STATE = np.array([1, -90, 90, 40, 0, 30], np.float32)


def pixels(rows: int = 48, columns: int = 64, seed: int = 0) -> Any:
    """Return noise."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `so101_config`, executed with the stand-in for OpenPI."""
    return fake_openpi.checkout(monkeypatch)[1]


def data_config(config: Any, name: str = "pi05_so101", **changes: Any) -> Any:
    """Return what OpenPI's scripts make of a config."""
    (found,) = (c for c in config.get_so101_configs() if c.name == name)
    return dataclasses.replace(found.data, **changes).create(Path("assets"), found.model)


def through(transforms: Any, data: Any) -> Any:
    """Apply transforms in their order."""
    for transform in transforms:
        data = transform(data)
    return data


def item(**changes: Any) -> dict[str, Any]:
    """Return an item as OpenPI's loader takes it from LeRobot's data set: images float CHW, rows of actions."""
    scene, wrist = pixels(seed=1), pixels(seed=2)
    return {
        "observation.images.realsense": scene.transpose(2, 0, 1).astype(np.float32) / 255,
        "observation.images.wrist2": wrist.transpose(2, 0, 1).astype(np.float32) / 255,
        "observation.images.realsense_depth": np.zeros((1, 48, 64), np.float32),
        "observation.state": STATE.copy(),
        "action": STATE + np.arange(1, 4, dtype=np.float32)[:, None],
        "action_is_pad": np.zeros(3, bool),
        "task_index": 0,
        "task": "pick",
        "prompt": "pick",
    } | changes


# --- images, state, prompt


def test_joints_are_those_of_the_presets() -> None:
    """State and actions have the same order on both sides."""
    assert so101.JOINTS == SO101_JOINTS


@pytest.mark.parametrize("name", ["so101", "so101_pr968"])
def test_observations_of_our_presets_are_taken(name: str) -> None:
    """What the robot sends with the preset becomes what the model is given: the right camera in each place."""
    key_map = preset(name)
    frames = {robot: pixels(480, 640, seed) for seed, robot in enumerate(key_map.cameras)}
    sent = key_map.observation(frames, STATE, "pick up the cube")
    given_to_model = so101.SO101Inputs(ModelType.PI05)(sent)
    scene, wrist = ("realsense", "wrist2") if name == "so101" else ("front", "wrist")
    assert set(given_to_model) == {"state", "image", "image_mask", "prompt"}
    assert given_to_model["prompt"] == "pick up the cube"
    np.testing.assert_array_equal(given_to_model["state"], STATE)
    images = given_to_model["image"]
    # The server resizes: what the robot has resized already comes out the same.
    for place, camera in {"base_0_rgb": scene, "left_wrist_0_rgb": wrist}.items():
        np.testing.assert_array_equal(
            resize_with_pad(images[place], 224, 224), resize_with_pad(frames[camera], 224, 224)
        )
    assert not images["right_wrist_0_rgb"].any()


def test_pull_request_968_without_its_wrist_camera() -> None:
    """The preset's wrist camera is optional: a policy without one takes the observation, another refuses it."""
    key_map = preset("so101_pr968")
    sent = key_map.observation({"front": pixels(480, 640)}, STATE, "pick up the cube")
    made = so101.SO101Inputs("pi05", wrist=False)(sent)
    assert not made["image_mask"]["left_wrist_0_rgb"]
    with pytest.raises(KeyError, match="the wrist's image"):
        so101.SO101Inputs("pi05")(sent)


@pytest.mark.parametrize(
    ("model_type", "wrist", "masks"),
    [
        (ModelType.PI05, True, [True, True, False]),
        (ModelType.PI0, True, [True, True, False]),
        (ModelType.PI05, False, [True, False, False]),
        ("pi05", False, [True, False, False]),
        (ModelType.PI0_FAST, True, [True, True, True]),
        (ModelType.PI0_FAST, False, [True, True, True]),
    ],
)
def test_masks_say_which_images_are_real(model_type: Any, wrist: bool, masks: list[bool]) -> None:
    """Absent cameras are black and masked; FAST knows no masks."""
    made = so101.SO101Inputs(model_type, wrist=wrist)(so101.make_so101_example())
    places = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    assert [bool(made["image_mask"][place]) for place in places] == masks
    assert made["image"]["left_wrist_0_rgb"].any() == wrist


def test_training_and_robot_give_the_same_pixels(config: Any) -> None:
    """A data set's float channel-first image and the robot's uint8 one are the same to the model."""
    trained = data_config(config)
    from_set = through(
        (*trained.repack_transforms.inputs, trained.data_transforms.inputs[0]), item()
    )
    from_robot = trained.data_transforms.inputs[0](
        {
            "observation/images/realsense": pixels(seed=1),
            "observation/images/wrist2": pixels(seed=2),
            "observation/state": STATE,
        }
    )
    assert from_set["image"].keys() == from_robot["image"].keys()
    for place, image in from_set["image"].items():
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, from_robot["image"][place])


def test_every_byte_survives_the_float() -> None:
    """k/255 as float32 is cut to k again, for all 256 values."""
    grey = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 4, 3))
    data = so101.make_so101_example() | {
        "observation/images/realsense": grey.astype(np.float32) / np.float32(255)
    }
    np.testing.assert_array_equal(so101.SO101Inputs("pi05")(data)["image"]["base_0_rgb"], grey)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"observation/images/realsense": None}, KeyError, "the scene's image"),
        ({"observation/images/wrist2": None}, KeyError, "the wrist's image.*observation/state"),
        ({"observation/state": None}, KeyError, "the state"),
        ({"observation/state": np.zeros(7)}, ValueError, r"expected shape \(6,\).*\(7,\)"),
        ({"observation/state": np.zeros((1, 6))}, ValueError, r"state: .*\(1, 6\)"),
        ({"actions": np.zeros((50, 7))}, ValueError, r"actions: expected shape \(rows, 6\)"),
        ({"observation/images/wrist2": np.zeros((8, 8, 4), np.uint8)}, ValueError, "image"),
        ({"observation/images/wrist2": np.zeros((8, 8), np.uint8)}, ValueError, "image"),
        ({"observation/images/wrist2": np.zeros((1, 8, 8, 3), np.uint8)}, ValueError, "image"),
    ],
)
def test_what_cannot_be_right_is_refused(changes: Any, error: Any, says: str) -> None:
    """The last line of the server's traceback tells the robot what is wrong."""
    data = {k: v for k, v in (so101.make_so101_example() | changes).items() if v is not None}
    with pytest.raises(error, match=says):
        so101.SO101Inputs("pi05")(data)


@pytest.mark.parametrize(
    ("given_prompt", "expected"),
    [("pick", "pick"), (b"pick", "pick"), (np.asarray("pick"), np.asarray("pick")), (None, None)],
)
def test_prompt_is_handed_on(given_prompt: Any, expected: Any) -> None:
    """Text, bytes, OpenPI's default prompt; without one the key is left out, and OpenPI says so."""
    data = so101.make_so101_example() | {"prompt": given_prompt}
    if given_prompt is None:
        del data["prompt"]
    assert so101.SO101Inputs("pi05")(data).get("prompt") == expected


# --- actions


def test_targets_become_relative_and_absolute_again(config: Any) -> None:
    """Five joints relative to the state, the gripper as it is; the robot gets the data set's own numbers."""
    trained = data_config(config)
    inputs = (
        *trained.repack_transforms.inputs,
        *trained.data_transforms.inputs,
        *trained.model_transforms.inputs,
    )
    given_to_model = through(inputs, item())
    assert given_to_model["actions"].shape == (3, 32)
    np.testing.assert_array_equal(given_to_model["state"], [*STATE, *[0] * 26])
    np.testing.assert_array_equal(
        given_to_model["actions"][:, :6],
        [[1, 1, 1, 1, 1, 31], [2, 2, 2, 2, 2, 32], [3, 3, 3, 3, 3, 33]],
    )
    assert not given_to_model["actions"][:, 6:].any()

    answered = {"state": given_to_model["state"], "actions": given_to_model["actions"]}
    for_robot = through(trained.data_transforms.outputs, answered)
    assert set(for_robot) == {"actions"}
    assert for_robot["actions"].dtype == np.float32
    np.testing.assert_array_equal(for_robot["actions"], item()["action"])


@given(
    state=hnp.arrays(np.float32, 6, elements=st.integers(-180, 180).map(float)),
    actions=hnp.arrays(np.float32, (4, 6), elements=st.integers(-180, 180).map(float)),
)
def test_there_and_back_is_exact(state: Any, actions: Any) -> None:
    """Whole degrees come back as they were, whatever they are."""
    mask = fake_openpi.make_bool_mask(*so101.DELTA_DIMS)
    example = so101.make_so101_example() | {"observation/state": state, "actions": actions}
    inside = fake_openpi.DeltaActions(mask)(so101.SO101Inputs("pi05")(example))
    np.testing.assert_array_equal(inside["actions"][:, 5], actions[:, 5])
    np.testing.assert_array_equal(inside["actions"][:, :5], actions[:, :5] - state[:5])
    back = so101.SO101Outputs()(fake_openpi.AbsoluteActions(mask)(inside))
    np.testing.assert_array_equal(back["actions"], actions)


def test_the_data_set_is_not_written_into() -> None:
    """OpenPI subtracts in place: it must not be our caller's array."""
    data = so101.make_so101_example() | {"actions": np.ones((2, 6), np.float32)}
    before = copy.deepcopy(data)
    mask = fake_openpi.make_bool_mask(*so101.DELTA_DIMS)
    fake_openpi.DeltaActions(mask)(so101.SO101Inputs("pi05")(data))
    np.testing.assert_array_equal(data["actions"], before["actions"])
    np.testing.assert_array_equal(data["observation/state"], before["observation/state"])


def test_data_sets_of_relative_actions_are_left_alone(config: Any) -> None:
    """With `use_delta_joint_actions=False` the actions go through as they are."""
    trained = data_config(config, use_delta_joint_actions=False)
    inputs = (*trained.repack_transforms.inputs, *trained.data_transforms.inputs)
    np.testing.assert_array_equal(through(inputs, item())["actions"], item()["action"])


@pytest.mark.parametrize("shape", [(50, 32), (2, 50, 32), (32,)])
def test_padding_is_cut_from_any_rank(shape: tuple[int, ...]) -> None:
    """Six of 32 numbers are joints."""
    actions = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    cut = so101.SO101Outputs()({"actions": actions, "state": np.zeros(32)})
    np.testing.assert_array_equal(cut["actions"], actions[..., :6])


# --- configs


def test_configs_are_three(config: Any) -> None:
    """pi0.5, the same with LoRA, pi0; each from the weights of its kind, chunks as long as said."""
    made = {c.name: c for c in config.get_so101_configs()}
    assert {
        n: (c.model.pi05, c.weight_loader.params_path.split("/")[-2]) for n, c in made.items()
    } == {
        "pi05_so101": (True, "pi05_base"),
        "pi05_so101_low_mem": (True, "pi05_base"),
        "pi0_so101": (False, "pi0_base"),
    }
    assert {c.model.action_horizon for c in made.values()} == {preset("so101_pr968").action_horizon}
    assert {c.data.repo_id for c in made.values()} == {config.REPO_ID}


def test_lora_freezes_what_it_trains_beside(config: Any) -> None:
    """The filter is that of the same model, and nothing is averaged; the others freeze nothing."""
    made = {c.name: c for c in config.get_so101_configs()}
    low = made["pi05_so101_low_mem"]
    assert low.freeze_filter == low.model.get_freeze_filter()
    assert (low.model.paligemma_variant, low.model.action_expert_variant) == (
        "gemma_2b_lora",
        "gemma_300m_lora",
    )
    assert low.ema_decay is None
    assert {made[n].freeze_filter for n in ("pi05_so101", "pi0_so101")} == {"nothing"}


def test_metadata_says_what_the_wire_does_not(config: Any) -> None:
    """Order, units and rows, as plain values that travel."""
    said = config.get_so101_configs()[0].policy_metadata
    assert said["joint_names"] == list(SO101_JOINTS)
    assert said["action_horizon"] == config.ACTION_HORIZON
    assert "degrees" in said["units"]


def test_norm_stats_are_looked_for_where_openpi_writes_them(config: Any) -> None:
    """compute_norm_stats.py files them under the data set's name: the asset id must be the same."""
    trained = data_config(config)
    assert trained.asset_id == trained.repo_id == config.REPO_ID
    assert trained.use_quantile_norm
    assert not data_config(config, "pi0_so101").use_quantile_norm


def test_rows_come_from_lerobots_column(config: Any) -> None:
    """LeRobot's column is `action`; the loader makes rows of it."""
    assert data_config(config).action_sequence_keys == ("action",)


def test_cameras_are_parameters(config: Any) -> None:
    """A data set with other camera names, or without a wrist camera, needs no other code."""
    front = item()
    front["observation.images.front"] = front.pop("observation.images.realsense")
    front["observation.images.hand"] = front.pop("observation.images.wrist2")
    trained = data_config(config, base_camera="front", wrist_camera="hand")
    made = through((*trained.repack_transforms.inputs, *trained.data_transforms.inputs), front)
    np.testing.assert_array_equal(made["image"]["base_0_rgb"], pixels(seed=1))
    np.testing.assert_array_equal(made["image"]["left_wrist_0_rgb"], pixels(seed=2))

    alone = data_config(config, base_camera="front", wrist_camera=None)
    made = through((*alone.repack_transforms.inputs, *alone.data_transforms.inputs), front)
    assert not made["image_mask"]["left_wrist_0_rgb"]


@pytest.mark.parametrize("from_task", [True, False])
def test_prompt_comes_from_the_task(config: Any, from_task: bool) -> None:
    """With `prompt_from_task` OpenPI's loader puts it there; without, there is none to repack."""
    base = fake_openpi.DataConfig(prompt_from_task=from_task)
    trained = data_config(config, base_config=base)
    made = through(trained.repack_transforms.inputs, item())
    assert ("prompt" in made) == from_task


def test_readme_quotes_what_is_there() -> None:
    """The settings and config names in the instructions are those of the files."""
    readme = (fake_openpi.FOLDER / "README.md").read_text(encoding="utf-8")
    source = (fake_openpi.FOLDER / "so101_config.py").read_text(encoding="utf-8")
    for name in re.findall(r"`([A-Z]+_[A-Z_]+|UNITS)`", readme):
        assert re.search(rf"^{name}\b", source, re.MULTILINE) or name in ("OPENPI_DATA_HOME",)
    for name in re.findall(r"\bpi05?_so101\w*", readme):
        assert f'"{name}"' in source
