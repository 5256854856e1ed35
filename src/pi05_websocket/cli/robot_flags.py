# SPDX-License-Identifier: Apache-2.0
"""What to type on the robot so that it sends what a policy wants. Pure.

In: what a server says of its policy. Out: flags of the LeRobot plugin; none where the default key map fits, or
where the server does not say enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pi05_websocket.camera_map import shown_key
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset

__all__ = ["DEFAULT_KEYMAP", "key_flags"]

DEFAULT_KEYMAP = "so101"
"""The plugin's and `run`'s."""

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
"""Keys that stand in a shell's and in YAML's quotes as they are."""

_STATE, _PROMPT = "observation/state", "prompt"


def key_flags(metadata: Mapping[str, Any]) -> str:
    """Return flags, each with a space before it, that make a robot send the keys and sizes a policy reads.

    A camera is called on the robot what its key is called after the last slash, as in the data set.

    Args:
        metadata: With `observation_keys`, `observation_shapes` and `image_sizes`, as a LeRobot checkpoint's.
    """
    sizes, keys = _sizes(metadata.get("image_sizes")), _texts(metadata.get("observation_keys"))
    vectors = [key for key in keys if key not in sizes and key != _PROMPT]
    cameras = {key.rpartition("/")[2]: key for key in keys if key in sizes}
    if not keys or len(vectors) != 1 or len(cameras) < len(sizes):
        return ""  # no state, several vectors, or two cameras of one name: a person has to decide
    if not all(_PLAIN.fullmatch(key) for key in keys) or "" in cameras:
        return ""
    if _fits(preset(DEFAULT_KEYMAP), vectors[0], _width(metadata, vectors[0]), sizes):
        return ""
    state = "" if vectors[0] == _STATE else f" --policy.state_key={vectors[0]}"
    if not cameras:
        return f" --policy.keymap=custom{state}"
    said = ", ".join(
        f'{name}: "{key} pad {sizes[key][0]}x{sizes[key][1]}"' for name, key in cameras.items()
    )
    return f" --policy.keymap=custom{state} --policy.cameras='{{{said}}}'"


def _fits(
    key_map: KeyMap, state: str, width: int | None, sizes: Mapping[str, tuple[int, int]]
) -> bool:
    """Whether a key map sends these images in these sizes, no others, and this state."""
    sent = {
        shown_key(camera.policy_key): (camera.height, camera.width)
        for camera in key_map.cameras.values()
    }
    states = [shown_key(part.policy_key) for part in key_map.state]
    return sent == sizes and states == [state] and width in (None, key_map.state_dim)


def _width(metadata: Mapping[str, Any], key: str) -> int | None:
    shapes = metadata.get("observation_shapes")
    shape = shapes.get(key) if isinstance(shapes, Mapping) else None
    return shape[0] if isinstance(shape, Sequence) and len(shape) == 1 else None


def _sizes(said: Any) -> dict[str, tuple[int, int]]:
    """Return the sizes that are sizes, by key."""
    if not isinstance(said, Mapping):
        return {}
    return {
        str(key): (size[0], size[1])
        for key, size in said.items()
        if isinstance(size, Sequence) and len(size) == 2 and all(type(n) is int for n in size)
    }


def _texts(said: Any) -> list[str]:
    return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []
