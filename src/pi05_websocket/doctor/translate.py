# SPDX-License-Identifier: Apache-2.0
"""A server's error, in words of the robot's settings. Pure.

In: the text of a policy that failed, and the key map it was asked with. Out: a finding with the fix.
"""

from __future__ import annotations

import re

from pi05_websocket.camera_map import key_path, shown_key
from pi05_websocket.doctor.findings import Finding, found
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import PRESETS

__all__ = ["translated"]

_KEY_ERROR = re.compile(r"KeyError: ['\"]([^'\"]+)['\"]")
_UNFIT = re.compile(r"observation\['([^']+)'\]: expected (.*?), got (.*)", re.DOTALL)
"""A server of ours that says which entry it minds (`ObservationError`)."""
_SIZE = re.compile(r"\(?(\d+)(?: x |x|, )(\d+)")
_MOST_CHOICES = 3
_PATTERNS = (
    ("prompt-required", r"prompt is required|\['prompt'\]"),
    ("camera-names-of-aloha", r"expected images to contain"),
    (
        "state-width-for-stats",
        r"could not be broadcast together|size of tensor|incompatible shapes",
    ),
    ("server-out-of-memory", r"out of memory|RESOURCE_EXHAUSTED"),
    (
        "server-codec",
        r"b?'(__)?nd(array__)?'|'dict' object has no attribute|unhashable|bytes-like object",
    ),
    ("image-layout", r"einops|rearrange|channels?|image.*shape|resize"),
)
"""Mistake, and what its error says; the first that fits counts."""


def translated(text: str, key_map: KeyMap, joints: int | None = None) -> Finding:
    """Return what a server's error means for the settings.

    Args:
        text: The line that names the error.
        key_map: What the observation was made with.
        joints: How many the robot has; decides between presets that share a key.
    """
    said = f"the server's policy fails: {text}"
    missing = _KEY_ERROR.search(text)
    if missing is not None:
        return _missing_key(missing[1], said, key_map, joints)
    unfit = _UNFIT.search(text)
    if unfit is not None:
        key, expected, got = unfit.groups()
        if got.startswith("nothing") or expected.startswith("the policy's input"):
            return _missing_key(key, said, key_map, joints)
        return _other_form(key, expected, said, key_map)
    for mistake, pattern in _PATTERNS:
        if re.search(pattern, text, re.IGNORECASE):
            return found("answer", mistake, said)
    return found("answer", "server-error", said)


def _missing_key(key: str, said: str, key_map: KeyMap, joints: int | None) -> Finding:
    if key == "prompt":
        return found("answer", "prompt-required", said)
    if key == "endpoint":
        return found("answer", "endpoint-missing", said)
    presets = [
        name for name, preset in PRESETS.items() if name != key_map.name and key in _keys(preset)
    ]
    fitting = [name for name in presets if joints is None or PRESETS[name].state_dim == joints]
    if presets:
        fix = _choice((fitting or presets)[:_MOST_CHOICES])
        return found("answer", "keys-of-another-policy", said, fix=fix)
    fix = (
        f"Send a camera under it: --cameras MY_CAMERA '{key} pad HEIGHTxWIDTH', in the policy's size; "
        "the state: --policy.state_key, KeyMap.state."
    )
    return found("answer", "keys-nobody-knows", said, fix=fix)


def _choice(names: list[str]) -> str:
    if len(names) == 1:
        return f"Choose --keymap {names[0]} (--policy.keymap={names[0]})."
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    return f"Choose a key map that has the key, {listed}: --keymap NAME (--policy.keymap=NAME)."


def _other_form(key: str, expected: str, said: str, key_map: KeyMap) -> Finding:
    """Return what an entry that came, and is not as the server expects it, means for the settings."""
    size = _SIZE.search(expected)
    if size is not None:
        cameras = key_map.cameras.items()
        named = [name for name, camera in cameras if shown_key(camera.policy_key) == key]
        line = f"{key} pad {size[1]}x{size[2]}"
        name = next(iter(named), "MY_CAMERA")
        fix = (
            f"Send it in that size: --cameras {name} '{line}' "
            f"(--policy.cameras='{{{name}: \"{line}\"}}')."
        )
        return found("answer", "image-layout", said, fix=fix)
    if expected.endswith("numbers"):
        return found("answer", "state-width-for-stats", said)
    fix = f"Send {key} as that line says; the key map makes it: --keymap, --cameras."
    return found("answer", "server-error", said, fix=fix)


def _keys(key_map: KeyMap) -> set[str]:
    keys = [camera.policy_key for camera in key_map.cameras.values()]
    keys += [part.policy_key for part in key_map.state]
    return {shown_key(key) for key in keys} | {part for key in keys for part in key_path(key)}
