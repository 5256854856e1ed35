# SPDX-License-Identifier: Apache-2.0
"""Ready-made key maps for the policies people serve with OpenPI, and a way to show them.

In: a preset's name. Out: its `KeyMap`, or text about it for `--help` and the documentation.
Pure. Where a server resizes images itself (to 224x224 with `resize_with_pad`), the preset does it
here: the pixels are the same and a sixth of the bytes of a 480x640 image travel.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from pi05_websocket.camera_map import CameraMap, PolicyKey, shown_key
from pi05_websocket.errors import ConfigError
from pi05_websocket.keymap import KeyMap, StatePart

__all__ = ["PRESETS", "SO101_JOINTS", "describe", "markdown_table", "preset"]

SO101_JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""The SO-100's and SO-101's motors 1 to 6, the order of every state and action of these arms."""

_SO101_UNITS = (
    "as in the data set the policy was trained on; LeRobot since 0.4.4: degrees from the middle of "
    "the calibrated range, gripper 0 (closed) to 100"
)

_UNITS_IN_WORDS = {
    "radians": "radians, as phosphobot records them unless told otherwise",
    "lerobot_normalized": "-100 to 100 over each joint's range, gripper 0 (closed) to 100",
}

_ALOHA_ARM = (
    "waist",
    "shoulder",
    "elbow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "gripper",
)


def _padded(policy_key: PolicyKey, *, required: bool = True) -> CameraMap:
    """Return a camera at the size pi0 and pi0.5 models see, as OpenPI's own clients send it."""
    return CameraMap(policy_key=policy_key, fit="pad", height=224, width=224, required=required)


def _aloha(name: str, *, required: bool = True) -> CameraMap:
    return CameraMap(
        policy_key=("images", name),
        fit="pad",
        height=224,
        width=224,
        layout="chw",
        required=required,
    )


def _so101(
    name: str,
    cameras: Mapping[str, CameraMap],
    *,
    description: str,
    source: str,
    state: StatePart | None = None,
    action_horizon: int | None = None,
    unit_system: str = "",
) -> KeyMap:
    """Return a key map of a six-joint arm; only names and cameras differ between them."""
    return KeyMap(
        name=name,
        cameras=cameras,
        state=(state or StatePart(policy_key="observation/state", size=6),),
        action_dim=6,
        action_horizon=action_horizon,
        joint_names=SO101_JOINTS,
        unit_system=unit_system,
        units=_UNITS_IN_WORDS.get(unit_system, _SO101_UNITS),
        description=description,
        source=source,
    )


_ALL = (
    _so101(
        "so101",
        {
            "wrist2": _padded("observation/images/wrist2"),
            # As it is: the server resizes it. Another camera size would be another picture.
            "realsense": CameraMap(
                policy_key="observation/images/realsense", fit="raw", height=480, width=640
            ),
        },
        description="SO-101 with a wrist webcam and a RealSense camera, this project's own keys.",
        source="the pi05_websocket message format, README",
    ),
    KeyMap(
        name="libero",
        cameras={
            "image": _padded("observation/image"),
            "wrist_image": _padded("observation/wrist_image"),
        },
        state=(StatePart(policy_key="observation/state", size=8),),
        action_dim=7,
        action_kind="delta",
        action_horizon=10,
        units=(
            "state: end effector position (3, m), axis-angle (3, rad), two finger positions; "
            "actions: end effector deltas (6) and gripper, -1 open to 1 closed; images turned by "
            "180 degrees"
        ),
        description="The LIBERO simulation benchmark, pi0_libero and pi05_libero.",
        source="openpi src/openpi/policies/libero_policy.py, examples/libero/main.py",
    ),
    KeyMap(
        name="droid",
        cameras={
            "exterior_image_1_left": _padded("observation/exterior_image_1_left"),
            "wrist_image_left": _padded("observation/wrist_image_left"),
        },
        state=(
            StatePart(policy_key="observation/joint_position", size=7),
            StatePart(policy_key="observation/gripper_position", size=1),
        ),
        action_dim=8,
        action_kind="velocity",
        action_horizon=15,
        joint_names=(*(f"joint_{number}" for number in range(1, 8)), "gripper"),
        units="state: radians, gripper 0 (open) to 1; actions: joint velocities (7) and gripper",
        description="A Franka arm as in the DROID data set, pi05_droid and its relatives.",
        source="openpi src/openpi/policies/droid_policy.py",
    ),
    KeyMap(
        name="aloha",
        cameras={
            "cam_high": _aloha("cam_high"),
            "cam_low": _aloha("cam_low", required=False),
            "cam_left_wrist": _aloha("cam_left_wrist", required=False),
            "cam_right_wrist": _aloha("cam_right_wrist", required=False),
        },
        state=(StatePart(policy_key="state", size=14),),
        action_dim=14,
        action_horizon=50,
        joint_names=tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _ALOHA_ARM),
        units="radians, grippers 0 (closed) to 1; actions are absolute joint targets",
        description="Two ALOHA arms, real or simulated; nested channel-first images.",
        source="openpi src/openpi/policies/aloha_policy.py",
    ),
    _so101(
        "so101_pr968",
        {
            "front": _padded("observation/images/front"),
            "wrist": _padded("observation/images/wrist", required=False),
        },
        action_horizon=50,
        description="SO-101 servers made with openpi pull request 968; wrist camera optional.",
        source="openpi pull request 968, commit 1fe797e",
    ),
    _so101(
        "so101_pr853",
        {"wrist_image": _padded("observation/wrist_image")},
        description="SO-101 servers made with openpi pull request 853: one wrist camera.",
        source="openpi pull request 853, commit 25937a4",
    ),
    _so101(
        "so100_phospho",
        {
            "main": _padded("observation/images.main.left"),
            "secondary_0": _padded("observation/images.secondary_0"),
            "secondary_1": _padded("observation/images.secondary_1", required=False),
        },
        unit_system="radians",
        description="SO-100 policies of the phospho fork of openpi and phosphobot's Pi0 model.",
        source="phosphobot pull request 288",
    ),
    _so101(
        "so100_fork",
        {
            "front": _padded("observation/images.front"),
            "wrist": _padded("observation/images.wrist"),
        },
        description="SO-100 openpi forks with dots in their camera keys.",
        source="so100_policy.py of several openpi forks",
    ),
    _so101(
        "so101_leisaac",
        {"front": _padded("images/front"), "wrist": _padded("images/wrist")},
        state=StatePart(policy_key="state", size=6, dtype="float64"),
        action_horizon=10,
        unit_system="lerobot_normalized",
        description="SO-101 in LeIsaac, the Isaac Sim environment.",
        source="LightwheelAI/leisaac source/leisaac/leisaac/policy/service_policy_clients.py",
    ),
    _so101(
        "so101_aloha",
        {
            "cam_high": _aloha("cam_high"),
            "cam_left_wrist": _aloha("cam_left_wrist", required=False),
        },
        state=StatePart(policy_key="state", size=6),
        description="SO-101 servers that kept ALOHA's form: nested channel-first images.",
        source="an openpi fork's 'OpenPi Robot Evaluation' example",
    ),
    _so101(
        "so101_as_libero",
        {
            "image": _padded("observation/image"),
            "wrist_image": _padded("observation/wrist_image"),
        },
        description="The usual shortcut: LIBERO's keys with a six-joint state.",
        source="openpi docs/remote_inference.md, issue 294",
    ),
    KeyMap(
        name="ur5",
        cameras={"base_rgb": _padded("base_rgb"), "wrist_rgb": _padded("wrist_rgb")},
        state=(
            StatePart(policy_key="joints", size=6),
            StatePart(policy_key="gripper", size=1),
        ),
        action_dim=7,
        joint_names=(
            "base",
            "shoulder",
            "elbow",
            "wrist_1",
            "wrist_2",
            "wrist_3",
            "gripper",
        ),
        units="as in the data set the policy was trained on; usually radians, gripper 0 to 1",
        description="A UR5 arm after openpi's outline for it.",
        source="openpi examples/ur5/README.md",
    ),
    KeyMap(
        name="custom",
        cameras={},
        state=(StatePart(policy_key="observation/state", size=None),),
        units="as in the data set the policy was trained on",
        description="Nothing but `observation/state` and `prompt`: name every camera yourself.",
        source="this project",
    ),
)

PRESETS: Mapping[str, KeyMap] = MappingProxyType({key_map.name: key_map for key_map in _ALL})
"""Name -> key map, in the order of the documentation."""


def preset(name: str) -> KeyMap:
    """Return the preset of that name.

    Raises:
        ConfigError: If there is none; names the closest and all others.
    """
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"no key map is called {name!r}.{hint} There are {', '.join(PRESETS)}")


def describe(key_map: KeyMap) -> str:
    """Return a key map as a few aligned lines of text."""
    rows = [("key", "from", "sent as")]
    rows += [
        (shown_key(camera.policy_key), f"camera {robot_camera}", _image_form(camera))
        for robot_camera, camera in key_map.cameras.items()
    ]
    rows += [(shown_key(part.policy_key), "joints", _vector_form(part)) for part in key_map.state]
    rows.append((shown_key(key_map.prompt_key), "task", "str"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{key_map.name}: {key_map.description}"]
    lines += [f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]
    lines.append(f"  actions  {_actions_form(key_map)}")
    if key_map.joint_names:
        lines.append(f"  joints   {', '.join(key_map.joint_names)}")
    lines += [f"  units    {key_map.units}", f"  source   {key_map.source}"]
    return "\n".join(lines)


def markdown_table() -> str:
    """Return all presets as a Markdown table, one row each."""
    lines = [
        "| preset | for | cameras → keys | state | actions | source |",
        "|---|---|---|---|---|---|",
    ]
    for key_map in PRESETS.values():
        cameras = "<br>".join(
            f"`{name}` → `{shown_key(camera.policy_key)}` {_image_form(camera)}"
            for name, camera in key_map.cameras.items()
        )
        state = "<br>".join(
            f"`{shown_key(part.policy_key)}` {_vector_form(part)}" for part in key_map.state
        )
        cells = (
            f"`{key_map.name}`",
            key_map.description,
            cameras or "yours",
            state,
            _actions_form(key_map),
            key_map.source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _image_form(camera: CameraMap) -> str:
    optional = "" if camera.required else ", optional"
    return f"{camera.fit} {camera.size} {camera.layout} uint8{optional}"


def _vector_form(part: StatePart) -> str:
    return f"({'any' if part.size is None else part.size},) {part.dtype}"


def _actions_form(key_map: KeyMap) -> str:
    horizon = "any" if key_map.action_horizon is None else key_map.action_horizon
    width = "any" if key_map.action_dim is None else key_map.action_dim
    return f"({horizon}, {width}) {key_map.action_kind}"
