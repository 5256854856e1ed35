# SPDX-License-Identifier: Apache-2.0
"""From what the trace tells to the messages of a recording. Pure.

In: kind, facts, a moment. Out: messages by topic. A request becomes its own bytes as they were sent, and each
of its images once more as a JPEG in a form that viewers know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from pi05_websocket.errors import EncodeError
from pi05_websocket.recording import foxglove, topics
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images, image_layout

__all__ = ["Message", "as_sent", "messages_of"]

_VIEW_QUALITY = 80
"""Of the pictures for viewers: the bytes that were sent are there beside them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a recording."""

    topic: str
    time_ns: int
    """Unix time in nanoseconds."""
    data: bytes
    sequence: int = 0


def as_sent(message: bytes, quality: int | None) -> bytes:
    """Return an observation's bytes as they went out.

    Args:
        message: The observation, encoded with its images as arrays.
        quality: Of its images as JPEG; None: they went out as they are.
    """
    if quality is None:
        return message
    return codec.encode(encode_images(codec.decode(message), quality)[0])


def messages_of(kind: str, facts: dict[str, Any], at_ns: int, origin_ns: int) -> list[Message]:
    """Return what to write.

    Args:
        kind: What happened.
        facts: About it; a request's `observation` is encoded already.
        at_ns: When, on the monotonic clock.
        origin_ns: What Unix time is more than that.
    """
    time_ns, seq = at_ns + origin_ns, int(facts.get("seq", 0))
    sequence = max(0, seq) & 0xFFFFFFFF
    if kind == "request":
        sent = as_sent(facts["observation"], facts.get("quality"))
        found = [Message(topics.REQUEST, time_ns, sent, sequence)]
        return found + list(_pictures(codec.decode(facts["observation"]), "", time_ns, sequence))
    if kind == "reply":
        try:
            return [Message(topics.REPLY, time_ns, codec.encode(facts["value"]), sequence)]
        except EncodeError:  # keys that are numbers: it was no answer of a policy's
            return []
    topic = topics.SERVER if kind == "server" else topics.topic_of(kind)
    found = [Message(topic, time_ns, topics.as_json(kind, at_ns / 1e9, facts), sequence)]
    said = topics.words(kind, facts)
    if said is not None:
        line = foxglove.log_line(time_ns, *said, "pi05_websocket")
        found.append(Message(topics.LOG, time_ns, line, sequence))
    return found


def _pictures(
    observation: dict[str, Any], path: str, time_ns: int, sequence: int
) -> Iterator[Message]:
    """Yield each image of an observation, those in nested maps too, for viewers."""
    for key, value in observation.items():
        name = f"{path}/{key}" if path else str(key)
        layout = image_layout(value)
        if isinstance(value, dict):
            yield from _pictures(value, name, time_ns, sequence)
        elif layout is not None:
            pixels = value if layout == "hwc" else value.transpose(1, 2, 0)
            jpeg = simplejpeg.encode_jpeg(
                np.ascontiguousarray(pixels), quality=_VIEW_QUALITY, colorspace="RGB"
            )
            data = foxglove.compressed_image(time_ns, jpeg, name)
            yield Message(topics.CAMERA + name, time_ns, data, sequence)
