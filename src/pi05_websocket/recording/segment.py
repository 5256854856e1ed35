# SPDX-License-Identifier: Apache-2.0
"""One MCAP file of a recording while it is written. Needs the extra `record`.

In: messages by topic. Out: a file that viewers open, and that can be read up to its last flush whatever kills
the process: chunks are closed after a few kilobytes and every chunk stands for itself.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from typing import IO, Any

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.recording import foxglove, topics

__all__ = ["FORMAT", "Segment", "mcap_module"]

FORMAT = "1"
"""Version of the topics."""

_CHUNK_BYTES = 4096
"""Half a second of ticks at 30 Hz: what a crash costs. An observation fills a chunk of its own."""


def mcap_module(name: str) -> Any:
    """Return a module of the package `mcap`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(f"mcap.{name}")
    except ImportError as exc:
        raise ConfigError(f"recordings need mcap: {how_to_install('record')}") from exc


class Segment:
    """A file that is open for writing.

    Args:
        file: Empty, open for writing; closed with the segment.
        settings: Written at its beginning, so that every segment explains itself.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, file: IO[bytes], settings: Mapping[str, str]) -> None:
        writer = mcap_module("writer")
        self._file = file
        self._writer = writer.Writer(self._file, chunk_size=_CHUNK_BYTES)
        self._writer.start(profile="", library="pi05_websocket")
        self._writer.add_metadata("pi05_websocket", {"format": FORMAT, **settings})
        self._channels: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """What it takes on the disk by now."""
        return self._file.tell()

    def write(self, topic: str, time_ns: int, message: bytes, sequence: int = 0) -> None:
        """Append a message.

        Args:
            topic: Where to.
            time_ns: Unix time in nanoseconds.
            message: In the topic's form.
            sequence: Number of the request, where there is one.
        """
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = self._register(topic)
        self._writer.add_message(
            channel, log_time=time_ns, publish_time=time_ns, data=message, sequence=sequence
        )

    def flush(self) -> None:
        """Hand what is in full chunks to the system, which keeps it when the process dies."""
        self._file.flush()

    def close(self) -> None:
        """Write the index and close."""
        try:
            self._writer.finish()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close without an index: nothing more can be written."""
        with contextlib.suppress(OSError):  # what is in its buffer does not fit either
            self._file.close()

    def _register(self, topic: str) -> int:
        encoding, schema_id = "msgpack", 0
        if topic.startswith(topics.CAMERA) or topic == topics.LOG:
            encoding = "protobuf"
            name = foxglove.LOG_SCHEMA if topic == topics.LOG else foxglove.IMAGE_SCHEMA
            schema_id = self._writer.register_schema(name, "protobuf", foxglove.descriptors(name))
        elif topic in topics.SCHEMAS:
            encoding = "json"
            schema_id = self._writer.register_schema(
                f"pi05.{topic.strip('/')}", "jsonschema", topics.schema(topic)
            )
        return int(self._writer.register_channel(topic, encoding, schema_id))
