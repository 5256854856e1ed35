# SPDX-License-Identifier: Apache-2.0
"""The server's side of a dialect: requests unwrapped, answers and errors in the form its clients expect.

In: decoded requests, results, errors as text. Out: observations, and what is to be encoded. Pure.
`OPENPI` goes through unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pi05_websocket.errors import DecodeError, EncodeError
from pi05_websocket.wire.arrays import Array, shortened
from pi05_websocket.wire.dialects import Dialect

__all__ = ["NO_ANSWER", "Aside", "Unwrapped", "answer", "error_answer", "metadata_of", "unwrap"]

NO_ANSWER: Final = object()
"""The answer of a message that is not answered."""

_FRAME_TICKS: Final = 4
"""Ticks of a frame where the chunk can be cut so; LingBot-VA's clients look at the scene that often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapped:
    """An observation, and what its message said beside it."""

    observation: dict[str, Any]
    tag: Any = None
    """Comes back in the answer."""

    session: str | None = None
    """The episode it belongs to; None: not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A message that asks for no actions."""

    answer: Any = NO_ANSWER
    """Text, or what is to be encoded."""

    begins_episode: bool = False
    gives_history: bool = False
    """Whether it says what became of the last chunk."""


def metadata_of(dialect: Dialect, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a policy says of itself as the dialect's clients read it."""
    said = dict(dialect.metadata)
    if dialect.metadata_is_closed:
        said |= {key: value for key, value in metadata.items() if key in said}
    else:
        said |= metadata
    if dialect.wrapping == "examples" and "action_horizon" in metadata:
        said.setdefault("action_chunk_size", metadata["action_horizon"])
    return said


def unwrap(dialect: Dialect, message: dict[str, Any]) -> Unwrapped | Aside:
    """Say what a decoded message asks for.

    Raises:
        DecodeError: It is no message of this dialect.
    """
    if dialect.reset != "none" and _is_reset(dialect, message):
        told = NO_ANSWER if dialect.reset == "silent" else dialect.reset_answer
        return Aside(answer=told, begins_episode=True)
    if dialect.wrapping == "examples":
        return _example(message)
    if dialect.wrapping == "frames":
        return _frame(message)
    if dialect.session == "never":
        return Unwrapped(observation=message)
    beside = ("endpoint", "session_id")
    observation = {key: value for key, value in message.items() if key not in beside}
    session = message.get("session_id")
    return Unwrapped(observation=observation, session=None if session is None else str(session))


def answer(
    dialect: Dialect,
    result: Mapping[str, Any],
    *,
    timing: Mapping[str, float],
    tag: Any = None,
    has_history: bool = False,
) -> Any:
    """Return what is to be encoded for a result.

    Args:
        dialect: The client's.
        result: The policy's.
        timing: OpenPI's `server_timing`.
        tag: The request's.
        has_history: Whether the client has said what became of its last chunk.

    Raises:
        EncodeError: The result has no `actions`, and the dialect has no place for anything else.
    """
    timed = {"server_timing": dict(timing)} if dialect.timed else {}
    if dialect.answer_path == ("actions",):
        return {**result, **timed}
    others = {key: value for key, value in result.items() if key != "actions"}
    actions = _chunk(dialect, result)
    if dialect.wrapping == "examples":
        return {**_status(tag, ok=True), "data": {**others, "actions": actions[None]}}
    if dialect.answer_path == ():
        return np.asarray(actions, np.float32)
    if dialect.answer_shape == "channels":
        return {"action": _as_channels(actions, led=not has_history), **timed}
    return {"action": actions[0], **timed}


def error_answer(dialect: Dialect, text: str, tag: Any = None) -> dict[str, Any] | None:
    """Return the map that says a request failed; None where a text does."""
    if dialect.errors == "typed":
        return {"type": "error", "message": text}
    if dialect.errors == "status":
        return {**_status(tag, ok=False), "error": {"message": text}}
    return {"error": text} if dialect.errors == "traceback" else None


def _is_reset(dialect: Dialect, message: Mapping[str, Any]) -> bool:
    return all(
        _flag(message, key) if value is True else _word(message, key) == value
        for key, value in dialect.reset_fields.items()
    )


def _flag(message: Mapping[str, Any], key: str) -> bool:
    value = message.get(key)
    # Of such an array nobody can say whether it is true.
    if isinstance(value, np.ndarray) and value.size != 1:
        raise DecodeError(f"expected yes or no under {key!r}, got {shortened(value)}")
    return bool(value)


def _word(message: Mapping[str, Any], key: str, default: str | None = None) -> Any:
    value = message.get(key, default)
    if isinstance(value, np.ndarray):  # which compares with a word to an array
        raise DecodeError(f"expected a word under {key!r}, got {shortened(value)}")
    return value


def _status(tag: Any, *, ok: bool) -> dict[str, Any]:
    return {
        "status": "ok" if ok else "error",
        "ok": ok,
        "type": "inference_result",
        "request_id": "default" if tag is None else tag,
    }


def _example(message: Mapping[str, Any]) -> Unwrapped | Aside:
    kind, tag = _word(message, "type", "infer"), message.get("request_id", "default")
    if kind == "ping":
        return Aside(answer={"status": "ok", "ok": True, "type": "ping", "request_id": tag})
    if kind not in ("infer", "predict_action"):
        raise DecodeError(f"Unsupported message type {shortened(kind)}; expected infer or ping")
    payload = message.get("payload", message)
    examples = payload.get("examples") if isinstance(payload, Mapping) else None
    if not isinstance(examples, list) or len(examples) != 1 or not isinstance(examples[0], Mapping):
        raise DecodeError(f"expected a list of one map under 'examples', got {shortened(examples)}")
    observation = dict(examples[0])
    if "lang" in observation:
        observation["prompt"] = observation.pop("lang")
    state = observation.get("state")
    if isinstance(state, np.ndarray) and state.ndim == 2 and len(state) == 1:
        observation["state"] = state[0]
    taken = ("examples", "type", "request_id", "payload")
    others = {key: value for key, value in payload.items() if key not in taken}
    return Unwrapped(observation=others | observation, tag=tag)


def _frame(message: Mapping[str, Any]) -> Unwrapped | Aside:
    if _flag(message, "compute_kv_cache"):
        return Aside(answer={}, gives_history=True)
    seen = message.get("obs")
    first = seen[0] if isinstance(seen, list) and seen else seen
    if not isinstance(first, Mapping):
        raise DecodeError(f"expected a map of images under 'obs', got {shortened(seen)}")
    others = {key: value for key, value in message.items() if key != "obs"}
    return Unwrapped(observation={**others, **first})


def _chunk(dialect: Dialect, result: Mapping[str, Any]) -> Array:
    if "actions" not in result:
        raise EncodeError(
            f"dialect {dialect.name} answers with the actions, and the policy returned the keys "
            f"{', '.join(sorted(map(str, result))) or 'none'}. It must return 'actions'."
        )
    actions: Array = np.atleast_2d(np.asarray(result["actions"]))
    return actions


def _as_channels(actions: Array, *, led: bool) -> Array:
    """Return a chunk as `(dim, frames, ticks)`, with a frame of zeros in front where nothing came before."""
    ticks = _FRAME_TICKS if len(actions) % _FRAME_TICKS == 0 else 1
    frames = actions.T.reshape(actions.shape[1], -1, ticks)
    if led:
        frames = np.concatenate([np.zeros_like(frames[:, :1]), frames], axis=1)
    return np.ascontiguousarray(frames)
