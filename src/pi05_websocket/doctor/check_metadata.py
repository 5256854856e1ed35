# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself beside the settings, and the task. Pure.

In: metadata (untrusted), settings. Out: findings; what contradicts them is marked as a contract error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pi05_websocket.camera_map import key_path, shown_key
from pi05_websocket.data import ServerMetadata
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.findings import Finding, found, passed
from pi05_websocket.wire.dialects import AUTO, recognised, resembles
from pi05_websocket.wire.foreign_words import listed

__all__ = ["check_metadata", "check_prompt"]

_FOREIGN = ("needs_session_id", "n_external_cameras", "action_space", "action_keys")
"""What servers of other families put into their metadata, and OpenPI does not."""
_MAX_TOKENS = 200
"""Of pi0.5's prompt with the state in it (`max_token_len`)."""
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_JOINT = 4


def check_metadata(metadata: ServerMetadata, setup: Setup) -> list[Finding]:
    """Return what the server's metadata says about the settings."""
    key_map, findings = setup.key_map, _dialect(metadata, setup)
    width = _number(metadata.get("action_dim"))
    if width is not None and key_map.action_dim is not None and width != key_map.action_dim:
        said = f"the server's actions have {width:g} values, key map {key_map.name!r} {key_map.action_dim}"
        findings.append(found("metadata", "metadata-width", said, contract=True))
    findings += _joints(metadata, setup) + _keys(metadata, setup) + _sizes(metadata, setup)
    hz = _number(metadata.get("control_hz"))
    if hz is not None and abs(hz - setup.control_hz) > 0.01 * setup.control_hz:
        said = f"the policy was trained at {hz:g} Hz, the loop will run at {setup.control_hz:g}"
        findings.append(found("metadata", "metadata-rate", said, contract=True))
    if findings:
        return findings
    return [passed("metadata", f"agrees: {listed(sorted(map(str, metadata))) or 'says nothing'}")]


def _dialect(metadata: ServerMetadata, setup: Setup) -> list[Finding]:
    known = recognised(metadata)
    if known is None:
        foreign = [key for key in _FOREIGN if _says(metadata.get(key))]
        if not foreign or setup.dialect != AUTO:
            return []
        said = (
            f"the metadata has {', '.join(foreign)}: another family's server, and not certain which"
        )
    elif setup.dialect == AUTO or resembles(setup.dialect, known):
        return []
    else:
        said = f"the server speaks {known.name} by its metadata, and dialect is {setup.dialect}"
    return [found("metadata", "dialect-other", said)]


def _joints(metadata: ServerMetadata, setup: Setup) -> list[Finding]:
    ours = [name.removesuffix(".pos") for name in setup.key_map.joint_names]
    for key in ("action_names", "state_names"):
        theirs = [name.removesuffix(".pos") for name in _texts(metadata.get(key))]
        if theirs and len(theirs) == len(ours) and theirs != ours:
            said = f"{key} of the server: {listed(theirs)}; here: {', '.join(ours)}"
            fix = f"Set joint_names to the server's order: {listed(theirs)}."
            return [found("metadata", "metadata-joints", said, fix=fix, contract=True)]
    return []


def _keys(metadata: ServerMetadata, setup: Setup) -> list[Finding]:
    wanted = _texts(metadata.get("observation_keys"))
    key_map = setup.key_map
    sent = [camera.policy_key for camera in key_map.cameras.values()]
    sent += [part.policy_key for part in key_map.state] + [key_map.prompt_key]
    names = {shown_key(key) for key in sent} | {"/".join(key_path(key)) for key in sent}
    missing = [key for key in wanted if key not in names and key not in ("prompt", "task")]
    if not missing:
        return []
    said = f"the server reads {listed(missing)}, which is not sent"
    return [found("metadata", "metadata-keys", said, contract=True)]


def _sizes(metadata: ServerMetadata, setup: Setup) -> list[Finding]:
    sizes = metadata.get("image_sizes")
    if not isinstance(sizes, dict):
        return []
    findings = []
    for name, camera in setup.key_map.cameras.items():
        size: Any = sizes.get(shown_key(camera.policy_key))
        if camera.height is None or not _is_size(size):
            continue
        if tuple(size) != (camera.height, camera.width):
            key = shown_key(camera.policy_key)
            said = f"{key}: the server reads {size[0]}x{size[1]}, {camera.size} would be sent"
            fix = f"--cameras {name} '{key} pad {size[0]}x{size[1]}'"
            findings.append(found("metadata", "metadata-image-size", said, fix=fix))
    return findings


def check_prompt(setup: Setup) -> Finding:
    """Return what is to be said of the task."""
    task = setup.task.strip()
    if not task:
        return found("prompt", "prompt-missing", "no task is given")
    joints = setup.key_map.state_dim or 0
    tokens = math.ceil(len(task) / _CHARACTERS_PER_TOKEN) + _TOKENS_PER_JOINT * joints
    if tokens > _MAX_TOKENS:
        said = f"about {tokens} tokens with the state, pi0.5 reads {_MAX_TOKENS}"
        return found("prompt", "prompt-too-long", said)
    return passed("prompt", f"{task!r}, about {tokens} of {_MAX_TOKENS} tokens")


def _says(value: Any) -> bool:
    """Say whether a value stands for something; what is an array here is none of what other families say."""
    return isinstance(value, bool | int | str | list | dict) and bool(value)


def _is_size(value: Any) -> bool:
    sized = isinstance(value, list | tuple) and len(value) == 2
    return sized and all(type(side) is int for side in value)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
        return value
    return ()
