# SPDX-License-Identifier: Apache-2.0
"""The robot's side of a dialect: observations as its servers want them, answers as OpenPI would give them.

In: an observation in policy names, a decoded answer. Out: the message to send; a map with `actions`, or the
error that the server meant. Pure. Nobody calls this for `OPENPI`, whose bytes stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from pi05_websocket.errors import InvalidReply, ObservationError, PolicyError
from pi05_websocket.wire.arrays import Array, shortened
from pi05_websocket.wire.dialects import Dialect, is_word
from pi05_websocket.wire.foreign_words import in_a_line

__all__ = [
    "image_resolution",
    "read_answer",
    "read_reset_answer",
    "request_message",
    "reset_message",
    "said_error",
]

_OUTSIDE_CAMERA: Final = re.compile(r"(observation/exterior_image_)(\d+)(_left|_right)")
_ELSEWHERE: Final = (("actions",), ("action",), ("data", "actions"))
"""Where actions are found if they are not where the table says: older and newer servers of a family differ."""
_MOST_PIXELS: Final = 1024 * 1024
"""Of an image. Models read 224x224 to 720x1280; to make more of a camera's would hold up the control loop."""
_LONGEST_TRACEBACK: Final = 65_536


def request_message(
    dialect: Dialect,
    observation: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any],
    session_id: str,
    request_id: str,
) -> dict[str, Any]:
    """Return the message that asks for actions.

    Args:
        dialect: The server's.
        observation: In policy names; stays as it is.
        metadata: What the server said first.
        session_id: The episode's.
        request_id: This request's.

    Raises:
        ObservationError: The server wants more outside cameras than the observation has.
    """
    message = dict(dialect.request_fields)
    if dialect.request_ids:
        message["request_id"] = request_id
    if dialect.session == "always" or (
        dialect.session == "asked" and metadata.get("needs_session_id") is True
    ):
        message["session_id"] = session_id
    if dialect.wrapping == "examples":
        return {"examples": [_example(observation)]} | message
    if dialect.wrapping == "frames":
        images = {key: value for key, value in _leaves(observation) if _is_image(value)}
        return {"obs": [images], "prompt": _prompt(observation)} | message
    if dialect.sized_by_server:
        observation = _numbered_from_zero(observation, metadata.get("n_external_cameras"))
    return {**message, **observation}


def reset_message(dialect: Dialect, observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message that begins an episode.

    Args:
        dialect: The server's.
        observation: The first one of the episode: it says what to do.
    """
    message = dict(dialect.reset_fields)
    if dialect.reset_needs_prompt:
        message["prompt"] = _prompt(observation)
    return message


def read_reset_answer(dialect: Dialect, answer: Any) -> None:
    """Check what came back for a reset: a text, or a decoded message.

    Raises:
        PolicyError: It is an error.
    """
    if isinstance(answer, str):
        if answer != dialect.reset_answer and not answer.startswith("reset"):
            raise PolicyError(f"the server refused the reset: {shortened(answer)}", detail=answer)
        return
    error = said_error(answer)
    if error is not None:
        raise error


def read_answer(dialect: Dialect, answer: Any) -> dict[str, Any]:
    """Return an answer as OpenPI's servers give it: a map, the chunk under `actions`.

    Raises:
        PolicyError: It says that the request failed.
        InvalidReply: There are no actions in it.
    """
    error = said_error(answer)
    if error is not None:
        raise error
    found = _actions_in(dialect, answer)
    if found is None:
        raise InvalidReply(
            f"dialect {dialect.name}: expected actions under "
            f"{'.'.join(dialect.answer_path) or 'the message itself'}, got {shortened(answer)}. "
            "Is it another server? See --policy.dialect."
        )
    others = answer if isinstance(answer, Mapping) else {}
    return {**others, "actions": _as_rows(dialect, found)}


def said_error(answer: Any) -> PolicyError | None:
    """Return the error that a map stands for; None for any other message."""
    if not isinstance(answer, Mapping):
        return None
    # A stranger's value may be an array, which compares with a text to an array.
    if (
        is_word(answer.get("type"), "error")
        or is_word(answer.get("status"), "error")
        or answer.get("ok") is False
    ):
        text = answer.get("message", answer.get("error"))
    elif set(answer) == {"error"}:
        text = answer["error"]
    else:
        return None
    if isinstance(text, Mapping):
        text = text.get("message")
    words = text if isinstance(text, str) else shortened(text)
    lines = [line for line in words[-_LONGEST_TRACEBACK:].splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "(no text)"
    return PolicyError(f"server error: {in_a_line(last)}", detail=words)


def image_resolution(dialect: Dialect, metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the rows and columns a server wants its images in; None where it does not say."""
    said = metadata.get("image_resolution") if dialect.sized_by_server else None
    if not isinstance(said, list) or len(said) != 2:
        return None
    rows, columns = said
    if type(rows) is not int or type(columns) is not int:
        return None
    return (rows, columns) if min(rows, columns) > 0 and rows * columns <= _MOST_PIXELS else None


def _actions_in(dialect: Dialect, answer: Any) -> Array | None:
    for path in (dialect.answer_path, (), *_ELSEWHERE):
        value = answer
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, np.ndarray):
            return value
    if dialect.answer_path == () and isinstance(answer, Mapping):
        return _side_by_side(answer)
    return None


def _side_by_side(answer: Mapping[str, Any]) -> Array | None:
    """Return arrays of several parts of a robot as one chunk, in the order in which they came."""
    parts = [value for value in answer.values() if isinstance(value, np.ndarray) and value.ndim]
    columns = []
    for part in parts:
        part = part[0] if part.ndim == 3 and len(part) == 1 else part
        columns.append(part[:, None] if part.ndim == 1 else part)
    if not columns or len({part.shape[:-1] for part in columns}) != 1:
        return None
    joined: Array = np.concatenate(columns, axis=-1)
    return joined


def _as_rows(dialect: Dialect, actions: Any) -> Any:
    if dialect.answer_shape == "channels" and actions.ndim == 3:
        # The first frame repeats the condition as long as nobody has sent what became of the last chunk.
        ahead = actions[:, 1:] if actions.shape[1] > 1 else actions
        width, steps = len(ahead), ahead.shape[1] * ahead.shape[2]
        return np.ascontiguousarray(ahead.reshape(width, steps).T)
    if actions.ndim == 3 and len(actions) == 1:
        return actions[0]
    return actions[None] if actions.ndim == 1 else actions


def _example(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an observation as starVLA's policies take it: images in the key map's order, state as one row."""
    images: list[Any] = []
    state: list[Array] = []
    for _, value in _leaves(observation):
        if _is_image(value):
            images.append(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            state.append(value.reshape(1, -1))
    example: dict[str, Any] = {"image": images, "lang": _prompt(observation)}
    if state:
        example["state"] = np.concatenate(state, axis=1)
    return example


def _leaves(observation: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3


def _prompt(observation: Mapping[str, Any]) -> str:
    texts = [value for _, value in _leaves(observation) if isinstance(value, str)]
    return texts[0] if texts else ""


def _numbered_from_zero(observation: Mapping[str, Any], wanted: Any) -> Mapping[str, Any]:
    """Return the observation with its outside cameras counted from 0, as many as the server wants."""
    if type(wanted) is not int:
        return observation
    numbers = sorted(
        {int(found[2]) for key in observation if (found := _OUTSIDE_CAMERA.fullmatch(key))}
    )
    if len(numbers) < wanted:
        raise ObservationError(
            "observation/exterior_image_0_left",
            f"{wanted} outside cameras, as the server says",
            f"{len(numbers)}",
            "Choose a key map with them (--policy.keymap=droid has one).",
        )
    renumbered: dict[str, Any] = {}
    for key, value in observation.items():
        found = _OUTSIDE_CAMERA.fullmatch(key)
        if found is None:
            renumbered[key] = value
        elif numbers.index(int(found[2])) < wanted:
            renumbered[f"{found[1]}{numbers.index(int(found[2]))}{found[3]}"] = value
    return renumbered
