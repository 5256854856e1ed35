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
        chosen = ", ".join(
            f"--keymap {name} (--policy.keymap={name})" for name in fitting or presets
        )
        return found("answer", "keys-of-another-policy", said, fix=f"Choose {chosen}.")
    fix = f"Send a camera under it: --cameras MY_CAMERA '{key} pad 224x224'; the state with state_key."
    return found("answer", "keys-nobody-knows", said, fix=fix)


def _keys(key_map: KeyMap) -> set[str]:
    keys = [camera.policy_key for camera in key_map.cameras.values()]
    keys += [part.policy_key for part in key_map.state]
    return {shown_key(key) for key in keys} | {part for key in keys for part in key_path(key)}
