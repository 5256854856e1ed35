# SPDX-License-Identifier: Apache-2.0
"""Messages for viewers, read back by Protobuf itself from the descriptors that stand beside them."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.recording import foxglove

NOW_NS = 1_764_150_000_123_456_789


def read(schema: str, message: bytes) -> Any:
    """Parse a message with nothing but its descriptors, as a viewer does."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    files = descriptor_pb2.FileDescriptorSet.FromString(foxglove.descriptors(schema))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema))
    return kind.FromString(message)


def test_an_image_is_read_as_it_was_written():
    """Time, bytes, format and camera, a JPEG longer than a varint of one byte."""
    jpeg = bytes(range(256)) * 300

    seen = read(
        foxglove.IMAGE_SCHEMA, foxglove.compressed_image(NOW_NS, jpeg, "observation/images/top")
    )

    assert (seen.data, seen.format, seen.frame_id) == (jpeg, "jpeg", "observation/images/top")
    assert (seen.timestamp.seconds, seen.timestamp.nanos) == divmod(NOW_NS, 1_000_000_000)


@pytest.mark.parametrize(("level", "number"), foxglove.LEVELS.items())
def test_a_sentence_is_read_as_it_was_written(level: str, number: int):
    """Also one that no encoding has letters for."""
    seen = read(foxglove.LOG_SCHEMA, foxglove.log_line(NOW_NS, level, "gru\u00df \ud800", "arm"))

    assert (seen.level, seen.message, seen.name) == (number, "gru\u00df ?", "arm")


def test_the_bytes_are_those_of_protobuf():
    """Without the library: field 2 is a number, field 3 a text, both little."""
    said = foxglove.log_line(0, "INFO", "hi", "x")

    assert said.endswith(b"\x10\x02\x1a\x02hi\x22\x01x")
    assert foxglove.descriptors(foxglove.LOG_SCHEMA) != foxglove.descriptors(foxglove.IMAGE_SCHEMA)
