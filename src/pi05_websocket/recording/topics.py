# SPDX-License-Identifier: Apache-2.0
"""Which topic what happened goes to, and in which form. Pure.

In: kind and facts, as the trace tells them. Out: a topic, and JSON; for a few of them a sentence too.

    /request     msgpack   the observation, byte for byte as it was sent
    /reply       msgpack   the server's answer
    /camera/KEY  protobuf  the images of a request, for viewers: foxglove.CompressedImage
    /log         protobuf  what happened, in words: foxglove.Log
    /tick /exchange /chunk /event /server      JSON, described in `SCHEMAS`
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

__all__ = [
    "CAMERA",
    "CHUNK",
    "EVENT",
    "EXCHANGE",
    "LOG",
    "REPLY",
    "REQUEST",
    "SCHEMAS",
    "SERVER",
    "TICK",
    "as_json",
    "schema",
    "topic_of",
    "words",
]

REQUEST: Final = "/request"
REPLY: Final = "/reply"
CAMERA: Final = "/camera/"
LOG: Final = "/log"
TICK: Final = "/tick"
EXCHANGE: Final = "/exchange"
CHUNK: Final = "/chunk"
EVENT: Final = "/event"
SERVER: Final = "/server"

_NUMBER: Final = {"type": "number"}
_INTEGER: Final = {"type": "integer"}
_TEXT: Final = {"type": "string"}
_NUMBERS: Final = {"type": "array", "items": _NUMBER}
_COMMON: Final = {"kind": _TEXT, "time_s": _NUMBER}

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    TICK: {
        "tick": _INTEGER,
        "episode": _INTEGER,
        "source": _TEXT,
        "seq": _INTEGER,
        "row": _INTEGER,
        "values": _NUMBERS,
        "held": _INTEGER,
        "cause": _TEXT,
        "limited": _TEXT,
    },
    EXCHANGE: {
        "seq": _INTEGER,
        "tick": _INTEGER,
        "round_trip_ms": _NUMBER,
        "server_ms": _NUMBER,
        "delay_ticks": _INTEGER,
        "bytes_out": _INTEGER,
        "bytes_in": _INTEGER,
        "quality": _INTEGER,
        "outcome": _TEXT,
        "server": _TEXT,
        "error": _TEXT,
        "cause": _TEXT,
    },
    CHUNK: {
        "seq": _INTEGER,
        "first_tick": _INTEGER,
        "actions": {"type": "array", "items": _NUMBERS},
    },
    EVENT: {},
    SERVER: {"metadata": {"type": "object"}},
}
"""Topic to the JSON Schema of its messages' properties; each has `kind` and `time_s` too."""

_TOPICS: Final = {"tick": TICK, "exchange": EXCHANGE, "failed": EXCHANGE, "chunk": CHUNK}


def topic_of(kind: str) -> str:
    """Return the topic of what is written as JSON."""
    return _TOPICS.get(kind, EVENT)


def schema(topic: str) -> bytes:
    """Return a topic's JSON Schema."""
    return msgspec.json.encode(
        {"title": topic.strip("/"), "type": "object", "properties": _COMMON | SCHEMAS[topic]}
    )


def as_json(kind: str, time_s: float, facts: dict[str, Any]) -> bytes:
    """Return one line as JSON: what it cannot say becomes null or text."""
    said = {"kind": kind, "time_s": round(time_s, 6), **facts}
    if kind == "tick":
        said["held"] = int(facts.get("cause") is not None)  # so that a viewer can plot it
    return msgspec.json.encode(said, enc_hook=_plain)


def words(kind: str, facts: dict[str, Any]) -> tuple[str, str] | None:
    """Return level and sentence of what a person wants to read; None of everything else."""
    said = _SENTENCES.get(kind)
    if said is None:
        return None
    level, sentence = said
    return level, sentence.format_map(_Known(facts))


_SENTENCES: Final = {
    "task": ("INFO", "task: {task}"),
    "episode": ("INFO", "episode {episode}"),
    "outage": ("WARNING", "no valid actions: {cause}"),
    "held": ("WARNING", "no row for tick {tick}: {text}"),
    "recovered": ("INFO", "actions again after {seconds} s, {held} held ticks"),
    "state": ("WARNING", "{state}: {cause}"),
    "resumed": ("INFO", "a person lets the arm move again"),
    "confirmed": ("INFO", "a person lets the arm move for the first time"),
    "approach": (
        "INFO",
        "the plan begins {jump} away from where the arm is: {ticks} ticks to go there",
    ),
    "failed": ("WARNING", "request {seq} failed: {cause}"),
    "dropped": ("WARNING", "the answer to request {seq} is not used: {cause}"),
    "gap": ("WARNING", "{lost} messages are missing here: the disk was too slow"),
}


class _Known(dict[str, Any]):
    """Facts, and a question mark for what is not among them."""

    def __missing__(self, key: str) -> str:
        return "?"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind in "biufU" else str(value)
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
