# SPDX-License-Identifier: Apache-2.0
"""Key maps, camera maps and presets: what a policy is sent, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi05_websocket.conformance.vectors import read_vectors
from pi05_websocket.errors import ConfigError, ObservationError
from pi05_websocket.images import resize_with_pad
from pi05_websocket.keymap import CameraMap, KeyMap, StatePart
from pi05_websocket.presets import PRESETS, SO101_JOINTS, describe, markdown_table, preset

SO101 = PRESETS["so101"]
VECTORS = read_vectors()


def image(height: int = 480, width: int = 640) -> Any:
    """Return gradients: no two rows or columns are alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def cameras_of(key_map: KeyMap) -> dict[str, Any]:
    """One image for each camera of a key map, of a size it takes."""
    return {name: image(m.height or 48, m.width or 64) for name, m in key_map.cameras.items()}


def state_of(key_map: KeyMap) -> Any:
    """Return a joint vector of a key map's width."""
    return np.linspace(-90, 90, key_map.state_dim or 6)


def flat(observation: dict[str, Any], prefix: str = "") -> dict[str, tuple[tuple[int, ...], str]]:
    """Key -> shape and dtype, nested keys joined by a dot."""
    forms: dict[str, tuple[tuple[int, ...], str]] = {}
    for key, value in observation.items():
        if isinstance(value, dict):
            forms |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, np.ndarray):
            forms[prefix + key] = (value.shape, value.dtype.name)
        else:
            forms[prefix + key] = ((), type(value).__name__)
    return forms


# What each kind of server reads, written out by hand from its source.
HWC, CHW, PROMPT = ((224, 224, 3), "uint8"), ((3, 224, 224), "uint8"), {"prompt": ((), "str")}
SIX = {"observation/state": ((6,), "float32")}
OBSERVATIONS: dict[str, dict[str, Any]] = {
    "so101": {
        "observation/images/wrist2": HWC,
        "observation/images/realsense": ((480, 640, 3), "uint8"),
    }
    | SIX,
    "libero": {
        "observation/image": HWC,
        "observation/wrist_image": HWC,
        "observation/state": ((8,), "float32"),
    },
    "droid": {
        "observation/exterior_image_1_left": HWC,
        "observation/wrist_image_left": HWC,
        "observation/joint_position": ((7,), "float32"),
        "observation/gripper_position": ((1,), "float32"),
    },
    "aloha": {
        "images.cam_high": CHW,
        "images.cam_low": CHW,
        "images.cam_left_wrist": CHW,
        "images.cam_right_wrist": CHW,
        "state": ((14,), "float32"),
    },
    "so101_pr968": {"observation/images/front": HWC, "observation/images/wrist": HWC} | SIX,
    "so101_pr853": {"observation/wrist_image": HWC} | SIX,
    "so100_phospho": {
        "observation/images.main.left": HWC,
        "observation/images.secondary_0": HWC,
        "observation/images.secondary_1": HWC,
    }
    | SIX,
    "so100_fork": {"observation/images.front": HWC, "observation/images.wrist": HWC} | SIX,
    "so101_leisaac": {"images/front": HWC, "images/wrist": HWC, "state": ((6,), "float64")},
    "so101_aloha": {
        "images.cam_high": CHW,
        "images.cam_left_wrist": CHW,
        "state": ((6,), "float32"),
    },
    "so101_as_libero": {"observation/image": HWC, "observation/wrist_image": HWC} | SIX,
    "ur5": {
        "base_rgb": HWC,
        "wrist_rgb": HWC,
        "joints": ((6,), "float32"),
        "gripper": ((1,), "float32"),
    },
    "custom": SIX,
}
ACTION_DIMS = {"libero": 7, "droid": 8, "aloha": 14, "ur5": 7, "custom": None}
ACTION_KINDS = {"libero": "delta", "droid": "velocity"}


def test_every_preset_is_in_the_table() -> None:
    """A preset without an expectation here is not tested."""
    assert set(OBSERVATIONS) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_makes_its_observation(name: str) -> None:
    """Keys, nesting, shapes and dtypes are those the servers of that preset read."""
    key_map = preset(name)
    observation = key_map.observation(cameras_of(key_map), state_of(key_map), "pick")
    assert flat(observation) == OBSERVATIONS[name] | PROMPT
    assert key_map.action_dim == ACTION_DIMS.get(name, 6)
    assert key_map.action_kind == ACTION_KINDS.get(name, "absolute")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_names_as_many_joints_as_it_has(name: str) -> None:
    """Joint names, where a preset has them, are as many as the state is long."""
    key_map = preset(name)
    assert len(key_map.joint_names) in (0, key_map.state_dim)


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("so101", "obs_mission_so101"),
        ("so101_leisaac", "obs_leisaac_so101"),
        ("libero", "obs_libero"),
        ("droid", "obs_droid"),
    ],
)
def test_preset_has_the_keys_of_recorded_observations(name: str, vector: str) -> None:
    """Keys and their order of rank are those of observations that OpenPI's own packer wrote."""
    (recorded,) = (v["decoded_by_openpi"] for v in VECTORS if v["name"] == vector)
    key_map = preset(name)
    observation = key_map.observation(cameras_of(key_map), state_of(key_map), "pick")
    assert set(observation) == set(recorded)
    ranks = {k: len(v["$ndarray"]["shape"]) for k, v in recorded.items() if isinstance(v, dict)}
    assert {k: v.ndim for k, v in observation.items() if k in ranks} == ranks


def test_unknown_preset_is_refused() -> None:
    """The error offers the closest name and lists all."""
    with pytest.raises(ConfigError, match=r"Did you mean 'so101'.*libero"):
        preset("so-101")
    with pytest.raises(ConfigError, match=r"called 'zzz'. There are so101"):
        preset("zzz")


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (224, 224), (240, 320)])
def test_so101_pads_any_webcam(height: int, width: int) -> None:
    """The wrist webcam's image arrives at 224x224, whatever its own size."""
    webcam = image(height, width)
    observation = SO101.observation({"wrist2": webcam, "realsense": image()}, np.zeros(6), "pick")
    np.testing.assert_array_equal(
        observation["observation/images/wrist2"], resize_with_pad(webcam, 224, 224)
    )


def test_so101_sends_the_realsense_image_itself() -> None:
    """A raw camera's pixels are passed on without a copy."""
    realsense = image()
    observation = SO101.observation({"wrist2": image(), "realsense": realsense}, np.zeros(6))
    assert observation["observation/images/realsense"] is realsense


def test_raw_camera_of_another_size_is_refused() -> None:
    """A raw camera with a stated size must have it; the error says how to resize instead."""
    with pytest.raises(ObservationError) as caught:
        SO101.observation({"wrist2": image(), "realsense": image(720, 1280)}, np.zeros(6))
    assert caught.value.key == "observation/images/realsense"
    assert caught.value.got == "720x1280"
    assert "'pad 480x640'" in str(caught.value)


def test_float_images_of_lerobot_are_the_same_observation() -> None:
    """LeRobot's float channel-first images end up as the same bytes as the camera's own."""
    frames = {"wrist2": image(240, 320), "realsense": image()}
    floats = {n: (i.astype(np.float32) / 255).transpose(2, 0, 1) for n, i in frames.items()}
    expected = SO101.observation(frames, np.zeros(6), "pick")
    for key, value in SO101.observation(floats, np.zeros(6), "pick").items():
        np.testing.assert_array_equal(value, expected[key])


@pytest.mark.parametrize(
    ("fit", "expected"), [("pad", 0), ("crop", 255), ("stretch", 255), ("raw", 255)]
)
def test_every_fit_is_applied(fit: Any, expected: int) -> None:
    """Only padding leaves a black corner when a wide white image becomes a square."""
    size = None if fit == "raw" else 20
    camera = CameraMap(policy_key="image", fit=fit, height=size, width=size)
    prepared = camera.prepare(np.full((20, 40, 3), 255, np.uint8))
    assert prepared.shape == ((20, 40, 3) if fit == "raw" else (20, 20, 3))
    assert prepared[0, 0, 0] == expected


def test_state_is_cut_into_its_parts() -> None:
    """Joints go to their keys in order, as copies of the robot's array."""
    state = np.arange(8.0)
    key_map = preset("droid")
    observation = key_map.observation(cameras_of(key_map), state)
    state += 100  # the driver writes its next reading into the same array
    assert observation["observation/joint_position"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert observation["observation/gripper_position"].tolist() == [7]


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (np.zeros(7), "float64 of shape (7,)"),
        (np.zeros(5, np.float32), "float32 of shape (5,)"),
        (np.zeros((1, 6)), "float64 of shape (1, 6)"),
        (np.array(["a"] * 6), "<U1 of shape (6,)"),
        (np.array([True] * 6), "bool of shape (6,)"),
    ],
)
def test_wrong_state_is_refused(state: Any, got: str) -> None:
    """Width, rank and type are checked; the error lists the joints in order."""
    with pytest.raises(ObservationError) as caught:
        SO101.observation(cameras_of(SO101), state)
    assert caught.value.key == "observation/state"
    assert caught.value.got == got
    assert "6 joint positions: shoulder_pan, " in caught.value.expected
    assert "'so101'" in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_state_that_is_not_finite_is_refused(bad: float) -> None:
    """The joint that is not a number is named."""
    state = np.zeros(6)
    state[2] = bad
    with pytest.raises(ObservationError, match="finite joint positions, got elbow_flex = "):
        SO101.observation(cameras_of(SO101), state)


def test_unnamed_joint_is_numbered() -> None:
    """Without joint names the joint's number is given; without a width any length is right."""
    custom = preset("custom")
    assert custom.observation({}, np.zeros(9))["observation/state"].shape == (9,)
    with pytest.raises(ObservationError, match="joint 1 = nan"):
        custom.observation({}, np.array([0.0, np.nan]))
    with pytest.raises(ObservationError, match="any number of joint positions, got"):
        custom.observation({}, np.zeros((2, 2)))


@pytest.mark.parametrize("prompt", [None, ""])
def test_no_prompt_is_left_out(prompt: str | None) -> None:
    """Without an instruction there is no key, so that the server's default prompt applies."""
    assert "prompt" not in SO101.observation(cameras_of(SO101), np.zeros(6), prompt)


def test_prompt_must_be_text() -> None:
    """LeRobot's list of tasks, for instance, is refused by name."""
    with pytest.raises(
        ObservationError, match=r"observation\['prompt'\]: expected a str, got list"
    ):
        SO101.observation(cameras_of(SO101), np.zeros(6), ["pick"])  # type: ignore[arg-type]


def test_missing_camera_says_which_there_are() -> None:
    """The error names the robot's cameras and the flag that maps one, which then works."""
    frames = {"front": image(), "wrist2": image()}
    with pytest.raises(ObservationError) as caught:
        SO101.observation(frames, np.zeros(6))
    assert caught.value.got == "cameras front, wrist2"
    assert "--policy.cameras='{front: observation/images/realsense}'" in str(caught.value)
    renamed = SO101.with_cameras({"front": "observation/images/realsense"})
    assert "observation/images/realsense" in renamed.observation(frames, np.zeros(6))


def test_missing_camera_of_a_robot_without_cameras() -> None:
    """With no camera at all the example has a placeholder."""
    with pytest.raises(ObservationError, match=r"got cameras none.*\{YOUR_CAMERA: "):
        SO101.observation({}, np.zeros(6))


def test_optional_camera_may_be_missing() -> None:
    """An optional camera's key is left out when the robot does not have it."""
    observation = preset("aloha").observation({"cam_high": image()}, np.zeros(14))
    assert list(observation["images"]) == ["cam_high"]


def test_extra_cameras_are_named_and_not_sent() -> None:
    """Cameras of the robot that no key wants are reported, not sent."""
    frames = cameras_of(SO101) | {"side": image(), "back": image()}
    assert SO101.unused(frames) == ("back", "side")
    assert set(SO101.observation(frames, np.zeros(6))) == set(OBSERVATIONS["so101"])


def test_missing_lists_required_cameras() -> None:
    """Before anything moves, the robot's camera names can be compared with what is needed."""
    assert SO101.missing(["realsense"]) == ("wrist2",)
    assert preset("aloha").missing(["cam_high"]) == ()


@pytest.mark.parametrize("target", ["realsense", "observation/images/realsense"])
def test_camera_is_renamed(target: str) -> None:
    """A robot camera takes over a preset camera's key and fit; the others keep their names."""
    renamed = SO101.with_cameras({"front": target})
    assert set(renamed.cameras) == {"front", "wrist2"}
    assert renamed.cameras["front"] == SO101.cameras["realsense"]


def test_nested_camera_is_renamed() -> None:
    """A nested policy key can be named as it is shown."""
    renamed = preset("aloha").with_cameras({"top": "images.cam_high"})
    assert renamed.cameras["top"].policy_key == ("images", "cam_high")
    assert "cam_high" not in renamed.cameras


def test_cameras_can_change_places() -> None:
    """Two names can be swapped."""
    renamed = SO101.with_cameras({"wrist2": "realsense", "realsense": "wrist2"})
    assert renamed.cameras["wrist2"] == SO101.cameras["realsense"]
    assert renamed.cameras["realsense"] == SO101.cameras["wrist2"]


def test_camera_keeps_its_key_with_another_fit() -> None:
    """A fit after the name replaces the preset's, nothing else."""
    renamed = SO101.with_cameras({"realsense": "realsense crop 240x320"})
    camera = renamed.cameras["realsense"]
    assert camera.policy_key == "observation/images/realsense"
    assert (camera.fit, camera.height, camera.width) == ("crop", 240, 320)


def test_new_keys_can_be_added() -> None:
    """A key that the preset does not have is sent as its line or its CameraMap says."""
    extra = CameraMap(policy_key=("images", "side"), layout="chw")
    custom = preset("custom").with_cameras({"top": "my/top raw 48x64", "side": extra})
    observation = custom.observation({"top": image(48, 64), "side": image(8, 9)}, np.zeros(6))
    assert observation["my/top"].shape == (48, 64, 3)
    assert observation["images"]["side"].shape == (3, 8, 9)


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"front": "realsens"}, "no camera 'realsens'; it has wrist2 .*realsense .*pad 224x224'"),
        ({"front": ""}, "no camera ''.*'KEY pad"),
        ({"wrist2": "realsense"}, "leaves 'observation/images/wrist2' without a camera"),
        ({"a": "wrist2", "b": "wrist2"}, "camera 'a' and camera 'b' would both be sent"),
        ({"a": "prompt raw"}, "the prompt would both be sent as 'prompt'"),
        ({"a": "top fill 2x2"}, "fit must be one of raw, pad, crop, stretch; got 'fill'"),
        ({"a": "top pad 224"}, "KEY FIT"),
        ({"a": "top pad axb"}, "KEY FIT"),
        ({"a": "top pad 2x2 now"}, "KEY FIT"),
    ],
)
def test_impossible_cameras_are_refused(renamed: dict[str, str], message: str) -> None:
    """Typing errors and conflicts are found before anything connects."""
    with pytest.raises(ConfigError, match=message):
        SO101.with_cameras(renamed)


def test_optional_camera_gives_way() -> None:
    """An optional camera whose robot name is taken for another key is dropped."""
    renamed = preset("aloha").with_cameras({"cam_low": "cam_high"})
    assert set(renamed.cameras) == {"cam_low", "cam_left_wrist", "cam_right_wrist"}


def test_custom_preset_says_it_has_no_cameras() -> None:
    """With no preset cameras the error says so."""
    with pytest.raises(ConfigError, match="it has none"):
        preset("custom").with_cameras({"front": "image"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy_key": ""}, "must not be empty"),
        ({"policy_key": ("images", "")}, "must not be empty"),
        ({"fit": "fill"}, "fit must be one of"),
        ({"layout": "hcw"}, "layout one of"),
        ({"height": 224}, "height and width together"),
        ({"fit": "pad"}, "needs height and width"),
        ({"height": 0, "width": 5}, "impossible size 0x5"),
    ],
)
def test_impossible_camera_map_is_refused(fields: dict[str, Any], message: str) -> None:
    """Contradicting settings of one camera are quoted."""
    with pytest.raises(ConfigError, match=message):
        CameraMap(**{"policy_key": "image"} | fields)


STATE = StatePart(policy_key="state", size=6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state": ()}, "no state key"),
        ({"state": (STATE, StatePart(policy_key="more", size=None))}, "needs their sizes"),
        ({"state": (StatePart(policy_key="state", size=0),)}, "at least one joint"),
        ({"state": (STATE, STATE)}, "'state'"),
        ({"prompt_key": "state"}, "the state and the prompt"),
        ({"prompt_key": ("state", "text")}, "the state and the prompt .* 'state.text'"),
    ],
)
def test_impossible_key_map_is_refused(fields: dict[str, Any], message: str) -> None:
    """Keys that would overwrite each other and states without a size are refused."""
    with pytest.raises(ConfigError, match=message):
        KeyMap(**{"name": "mine", "cameras": {}, "state": (STATE,)} | fields)


def test_key_map_can_be_copied_and_pickled() -> None:
    """Policies that hold a key map are copied between processes."""
    assert copy.deepcopy(SO101) == SO101
    assert pickle.loads(pickle.dumps(SO101)) == SO101


def test_original_mapping_may_change() -> None:
    """A key map keeps its own copy of the cameras it was made with."""
    cameras = {"front": CameraMap(policy_key="image")}
    key_map = KeyMap(name="mine", cameras=cameras, state=[STATE])  # type: ignore[arg-type]
    cameras.clear()
    assert set(key_map.cameras) == {"front"}
    assert key_map.state == (STATE,)


names = st.text("abcdefgh", min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(
    cameras=st.dictionaries(names, st.tuples(st.integers(1, 40), st.integers(4, 40)), max_size=4),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
)
def test_state_parts_and_cameras_never_get_lost(
    cameras: dict[str, tuple[int, int]], widths: list[int], data: st.DataObject
) -> None:
    """Whatever the map, each camera has its key, and the parts put together are the state."""
    key_map = KeyMap(
        name="any",
        cameras={n: CameraMap(policy_key=("cams", n)) for n in cameras},
        state=tuple(StatePart(policy_key=f"s{i}", size=w) for i, w in enumerate(widths)),
    )
    state = np.array(data.draw(st.lists(st.floats(-180, 180, width=32), min_size=sum(widths),
                                        max_size=sum(widths))), np.float32)  # fmt: skip
    frames = {name: np.zeros((*size, 3), np.uint8) for name, size in cameras.items() if size[0] > 3}
    if len(frames) < len(cameras):
        frames |= {n: np.zeros((4, 4, 3), np.uint8) for n in cameras if n not in frames}
    observation = key_map.observation(frames, state, "go")
    assert set(observation.get("cams", {})) == set(cameras)
    parts = [observation[f"s{i}"] for i in range(len(widths))]
    np.testing.assert_array_equal(np.concatenate(parts), state)


@pytest.mark.parametrize("name", PRESETS)
def test_description_shows_every_key(name: str) -> None:
    """The text for --help has each key, the sizes, the units and where it is from."""
    text = describe(preset(name))
    for key in OBSERVATIONS[name] | PROMPT:
        assert key in text
    assert preset(name).units in text
    assert preset(name).source in text


def test_description_lists_joints_in_order() -> None:
    """The order of the joint vector is shown."""
    assert ", ".join(SO101_JOINTS) in describe(SO101)


def test_table_has_a_row_for_each_preset() -> None:
    """The Markdown table is rectangular and complete."""
    rows = markdown_table().splitlines()
    assert len(rows) == 2 + len(PRESETS)
    assert {row.count("|") for row in rows} == {7}
    assert rows[2].startswith("| `so101` |")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_what_was_put_in_is_found_again(name: str) -> None:
    """Pictures by their keys and the prompt, nested or not; nothing in an observation that has none."""
    key_map = preset(name)
    pictures = dict.fromkeys(key_map.cameras, np.full((480, 640, 3), 7, np.uint8))
    made = key_map.observation(pictures, np.zeros(key_map.state_dim or 3), "pick")
    assert len(key_map.pictures(made)) == len(key_map.cameras)
    assert all(picture.dtype == np.uint8 for picture in key_map.pictures(made).values())
    assert key_map.prompt(made) == "pick"
    assert (key_map.pictures({}), key_map.prompt({})) == ({}, "")
