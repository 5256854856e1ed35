# SPDX-License-Identifier: Apache-2.0
"""What is wrong with metadata, answers, errors and requests, beyond their encoding. Pure.

In: what came, as bytes or text. Out: sentences, none for a good one. Dialects differ by their tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.encoding import Fault
from pi05_websocket.data import Float32Array
from pi05_websocket.errors import DecodeError, InvalidReply, PolicyError
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialect_robot import read_answer, said_error
from pi05_websocket.wire.dialects import DIALECTS, OPENPI, Dialect
from pi05_websocket.wire.encoded_images import IMAGES_KEY, decode_images, reads_jpeg
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.protocol import raised
from pi05_websocket.wire.realtime import (
    REALTIME_KEY,
    REALTIME_VERSION,
    read_realtime_reply,
    split_realtime,
)
from pi05_websocket.wire.refusals import read_refusal

__all__ = [
    "actions_fault",
    "actions_in",
    "announces_realtime",
    "cause_named",
    "decoded",
    "error_fault",
    "has_encoded_image",
    "images_fault",
    "is_error",
    "last_line",
    "realtime_answer_fault",
    "realtime_fault",
    "refusal_fault",
    "request_faults",
    "timing_fault",
]

_CAUSE: Final = re.compile(r"[A-Za-z_][\w.]*(: .+)?", re.DOTALL)
_LONGEST_END: Final = 4096
_MOST_TICKS: Final = 10_000
_RESETS: Final = tuple(
    dict(each.reset_fields) for each in DIALECTS.values() if each.reset != "none"
)


def decoded(message: bytes) -> Any:
    """Return a message's value; a `DecodeError` where there is none."""
    try:
        return codec.decode(message)
    except DecodeError as exc:
        return exc


def actions_fault(dialect: Dialect, message: bytes) -> str:
    """Return what is wrong with an answer's actions; empty: nothing."""
    value = decoded(message)
    if isinstance(value, DecodeError):
        return f"an answer that cannot be read: {value}"
    if dialect is OPENPI and (not isinstance(value, Mapping) or "actions" not in value):
        return f"expected a map with 'actions', got {_named(value)}"
    try:
        _read(dialect, value)
    except (InvalidReply, PolicyError) as exc:
        return str(exc)
    return ""


def actions_in(dialect: Dialect, message: bytes) -> Float32Array | None:
    """Return an answer's actions, `(action_horizon, action_dim)`; None: it has none that can be read."""
    if actions_fault(dialect, message):
        return None
    return _read(dialect, decoded(message))


def _read(dialect: Dialect, value: Any) -> Float32Array:
    return read_actions(value if dialect is OPENPI else read_answer(dialect, value))


def timing_fault(message: bytes, *, first: bool) -> str:
    """Return what is wrong with an answer's `server_timing`; empty: nothing."""
    value = decoded(message)
    timing = value.get("server_timing") if isinstance(value, Mapping) else None
    if not isinstance(timing, Mapping):
        return "no map server_timing"
    for key in ("infer_ms",) if first else ("infer_ms", "prev_total_ms"):
        if not _is_milliseconds(timing.get(key)):
            return f"server_timing.{key} is {timing.get(key)!r}"
    return ""


def is_error(dialect: Dialect, said: bytes | str) -> bool:
    """Say whether what came in place of an answer is an error, in the dialect's form or OpenPI's."""
    if isinstance(said, str):
        return True
    return dialect is not OPENPI and said_error(decoded(said)) is not None


def error_fault(dialect: Dialect, said: bytes | str | None, code: int | None) -> str:
    """Return what is wrong with an error; empty: nothing.

    Args:
        dialect: In which it should be.
        said: What came in place of the answer; None: nothing.
        code: Of the close that came after it; None: the connection stayed open.
    """
    if said is None:
        return f"no word, then {_closed(code)}"
    stays = dialect.errors in ("typed", "status")
    as_text = dialect.errors == "text"
    if isinstance(said, str) is not as_text or not is_error(dialect, said):
        kind = "text" if isinstance(said, str) else _named(decoded(said))
        return f"expected {'text' if as_text else 'an error map'}, got {kind}"
    if not said:
        return "an empty text"
    if stays:
        return "" if code is None else f"the connection ended with {code}"
    return "" if code == 1011 else f"{_closed(code)} after the error"


def cause_named(text: str) -> bool:
    """Say whether an error's text names its cause as `Type: text`."""
    return _CAUSE.fullmatch(raised(text)) is not None


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty; of a long one only the end is looked at."""
    lines = text.rstrip()[-_LONGEST_END:].splitlines() or ["(no text)"]
    return lines[-1].strip()


def announces_realtime(metadata: Any) -> bool:
    """Say whether a server reads `_rt` as this version has it."""
    said = metadata.get(REALTIME_KEY) if isinstance(metadata, Mapping) else None
    return isinstance(said, Mapping) and said.get("version") == REALTIME_VERSION


def realtime_fault(metadata: Any) -> str:
    """Return what is wrong with an announcement of `_rt`; empty: nothing."""
    said = metadata[REALTIME_KEY]
    if not isinstance(said, Mapping):
        return f"_rt is {_named(said)}"
    delay = said.get("max_delay")
    if not _is_integer(said.get("version"), _MOST_TICKS):
        return f"_rt.version is {said.get('version')!r}"
    if said.get("prefix") not in ("guided", "trained", "none"):
        return f"_rt.prefix is {said.get('prefix')!r}"
    if delay is not None and not _is_integer(delay, _MOST_TICKS):
        return f"_rt.max_delay is {delay!r}"
    if not isinstance(said.get("refusals", False), bool):
        return f"_rt.refusals is {said.get('refusals')!r}"
    return ""


def realtime_answer_fault(message: bytes, *, seq: int, rows: int) -> str:
    """Return what is wrong with an answer to a request with `_rt`; empty: nothing.

    Args:
        message: The answer.
        seq: The request's.
        rows: Of the leftover that was sent.
    """
    reply = read_realtime_reply(decoded(message))
    if reply is None:
        return "no _rt in the answer, or one without its fields"
    if reply.seq != seq:
        return f"_rt.seq is {reply.seq}, of request {seq}"
    if reply.delay > rows:
        return f"_rt.delay is {reply.delay}, with {rows} rows sent"
    if reply.prefix not in ("guided", "trained", "none"):
        return f"_rt.prefix is {reply.prefix!r}"
    return ""


def refusal_fault(text: str) -> str:
    """Return what is wrong with a text that begins as a refusal; empty: nothing."""
    return "" if read_refusal(text) is not None else f"{text[:80]!r} is no refusal of a known form"


def images_fault(metadata: Any) -> str:
    """Return what is wrong with an announcement of `_images`; empty: nothing."""
    said = metadata[IMAGES_KEY]
    if not isinstance(said, Mapping) or type(said.get("version")) is not int:
        return f"_images is {_named(said)} without a number 'version'"
    encodings = said.get("encodings")
    if not isinstance(encodings, list) or not all(isinstance(each, str) for each in encodings):
        return f"_images.encodings is {encodings!r}"
    return ""


def request_faults(message: bytes, metadata: Any) -> list[Fault]:
    """Return what is wrong with a client's request, beyond its encoding.

    Args:
        message: As it came.
        metadata: What the client was told on this connection.
    """
    value = decoded(message)
    if isinstance(value, DecodeError):
        return []  # W-1 and its neighbours say so
    if not isinstance(value, dict):
        return [Fault("C-5", f"a request that is {_named(value)}, not a map")]
    faults = []
    if any(value and value.items() >= reset.items() for reset in _plain_resets(value)):
        faults.append(Fault("C-19", f"a message for a new episode: {sorted(value)}"))
    if REALTIME_KEY in value:
        faults += _realtime_request_faults(value, metadata)
    if has_encoded_image(value):
        faults += _image_faults(value, metadata)
    return faults


def _plain_resets(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the reset messages that can be compared: an array is equal to nothing in one word."""
    return [
        reset for reset in _RESETS if all(isinstance(value.get(key), bool | str) for key in reset)
    ]


def _realtime_request_faults(value: dict[str, Any], metadata: Any) -> list[Fault]:
    if not announces_realtime(metadata):
        return [Fault("RT-2", "_rt was sent and not announced")]
    try:
        split_realtime(value)
    except DecodeError as exc:
        return [Fault("RT-3", str(exc))]
    return []


def _image_faults(value: dict[str, Any], metadata: Any) -> list[Fault]:
    if not reads_jpeg(metadata):
        return [Fault("IM-2", "an encoded image was sent and not announced")]
    try:
        decode_images(value)
    except DecodeError as exc:
        return [Fault("IM-3", str(exc))]
    return []


def has_encoded_image(value: Any) -> bool:
    """Say whether there is an encoded image anywhere in a value."""
    if isinstance(value, Mapping):
        return "__image__" in value or any(has_encoded_image(each) for each in value.values())
    return isinstance(value, list) and any(has_encoded_image(each) for each in value)


def _is_milliseconds(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _is_integer(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _closed(code: int | None) -> str:
    return "the connection stays open" if code is None else f"close code {code}"


def _named(value: Any) -> str:
    if isinstance(value, DecodeError):
        return f"bytes that cannot be read ({value})"
    if isinstance(value, Mapping):
        return f"a map of {', '.join(sorted(map(str, value))) or 'nothing'}"
    return f"a value of type {type(value).__name__}"
