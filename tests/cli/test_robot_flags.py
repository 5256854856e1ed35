# SPDX-License-Identifier: Apache-2.0
"""Which flags a server names to robots, from what it says of its policy."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.cli.robot_flags import key_flags

SO101 = {"observation/images/wrist2": [224, 224], "observation/images/realsense": [480, 640]}
STATE = "observation/state"


def said(
    images: dict[str, Any], *others: str, width: int | None = 6, **more: Any
) -> dict[str, Any]:
    """What a LeRobot checkpoint's server says of its inputs."""
    shapes = {key: [*size, 3] for key, size in images.items() if isinstance(size, list)}
    if width is not None:
        shapes[STATE] = [width]
    return {
        "observation_keys": [*images, *others],
        "observation_shapes": shapes,
        "image_sizes": images,
        **more,
    }


@pytest.mark.parametrize(
    ("metadata", "flags"),
    [
        (
            said({"observation/images/front": [480, 640]}, STATE),
            " --policy.keymap=custom --policy.cameras='{front: \"observation/images/front pad 480x640\"}'",
        ),
        (
            said({"observation/images/top": [96, 96], "observation/image": [40, 48]}, STATE),
            " --policy.keymap=custom --policy.cameras="
            '\'{top: "observation/images/top pad 96x96", image: "observation/image pad 40x48"}\'',
        ),
        (
            said({"observation/images/front": [480, 640]}, "my/joints", width=None),
            " --policy.keymap=custom --policy.state_key=my/joints --policy.cameras="
            "'{front: \"observation/images/front pad 480x640\"}'",
        ),
        (said({}, STATE, "prompt"), " --policy.keymap=custom"),
        (
            said(SO101 | {"observation/images/wrist2": [480, 640]}, STATE),
            " --policy.keymap=custom --policy.cameras="
            '\'{wrist2: "observation/images/wrist2 pad 480x640", '
            'realsense: "observation/images/realsense pad 480x640"}\'',
        ),
        (
            said(SO101, STATE, width=7),
            " --policy.keymap=custom --policy.cameras="
            '\'{wrist2: "observation/images/wrist2 pad 224x224", '
            'realsense: "observation/images/realsense pad 480x640"}\'',
        ),
    ],
)
def test_keys_that_the_default_key_map_does_not_send_are_named(
    metadata: dict[str, Any], flags: str
) -> None:
    """Cameras by the last part of their keys, at the size of the training, and the state's key."""
    assert key_flags(metadata) == flags


@pytest.mark.parametrize("width", [6, None])
def test_where_the_default_key_map_fits_nothing_is_to_be_typed(width: int | None) -> None:
    """Its keys, its sizes, its six joints, in whatever order; a width that is not said fits."""
    assert key_flags(said(SO101, STATE, width=width)) == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"observation_keys": "observation/state", "image_sizes": 3},
        said({"observation/images/front": [480, 640]}),
        said({"observation/images/front": [480, 640]}, STATE, "observation/environment_state"),
        said({"a/front": [480, 640], "b/front": [480, 640]}, STATE),
        said({"observation/images/it's": [480, 640]}, STATE),
        said({"observation/images/": [480, 640]}, STATE),
        said({"observation/images/front": "large"}, STATE),
        said({"observation/images/front": [480, 640, 3]}, STATE),
        said({"observation/images/front": [480.0, 640.0]}, STATE),
    ],
)
def test_where_a_person_has_to_decide_nothing_is_named(metadata: dict[str, Any]) -> None:
    """Nothing said, no state, two vectors, two cameras of one name, keys that no shell takes, no sizes."""
    assert key_flags(metadata) == ""


@pytest.mark.parametrize("shapes", [None, {}, {STATE: [6, 1]}, {STATE: 6}])
def test_a_width_that_is_none_is_not_looked_at(shapes: Any) -> None:
    """What a server says may be anything."""
    assert key_flags(said(SO101, STATE, observation_shapes=shapes)) == ""
