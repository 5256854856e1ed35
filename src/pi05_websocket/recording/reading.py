# SPDX-License-Identifier: Apache-2.0
"""MCAP files back into messages: whole ones, and those whose process was killed. Needs the extra `record`.

In: a file that anybody may have written. Out: its messages in order, up to where it ends or is damaged. No
record and no chunk is read that would take more than a bounded amount of memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.segment import mcap_module

__all__ = ["Entry", "McapFile"]

_MOST_BYTES = 256 * 1024 * 1024
"""Of a record or an unpacked chunk; four times the largest message."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message."""

    topic: str
    time_ns: int
    sequence: int
    data: bytes


@dataclass(slots=True)
class McapFile:
    """A file to read.

    `entries` may be called once for each pass; what it has found out is in the fields afterwards.
    """

    path: Path
    settings: dict[str, str] = field(default_factory=dict)
    """Of the run; known once the first entry is."""
    whole: bool = False
    """Whether the file was read to a proper end."""

    def entries(self, topics: Container[str] | None = None) -> Iterator[Entry]:
        """Yield the messages in the order in which they were written.

        Args:
            topics: Those wanted; None: all.

        Raises:
            ConfigError: It is no MCAP file, cannot be read, or is packed in a way that we do not unpack.
        """
        self.whole = False
        try:
            with self.path.open("rb") as file:
                begins = file.read(len(_MAGIC))
                if not _MAGIC.startswith(begins):
                    raise ConfigError(
                        f"{self.path}: expected a recording in MCAP, got something else"
                    )
                file.seek(0)
                yield from self._entries(_Bounded(file, self.path.stat().st_size), topics)
        except OSError as exc:
            raise ConfigError(f"{self.path}: cannot be read: {exc.strerror or exc}") from exc

    def _entries(self, file: Any, topics: Container[str] | None) -> Iterator[Entry]:
        exceptions = mcap_module("exceptions")
        damaged = (exceptions.McapError, struct.error, ValueError, OverflowError, zlib.error)
        names: dict[int, str] = {}
        try:
            for record in _records(file):
                kind = type(record).__name__
                if kind == "Channel":
                    names[record.id] = record.topic
                elif kind == "Metadata" and record.name == "pi05_websocket":
                    self.settings = dict(record.metadata)
                elif kind == "Message":
                    topic = names.get(record.channel_id, "")
                    if topics is None or topic in topics:
                        yield Entry(topic, record.log_time, record.sequence, record.data)
            self.whole = True
        except ConfigError:
            raise
        except damaged:
            return  # killed in mid-write, or damaged: what came before is good


_MAGIC = b"\x89MCAP0\r\n"


class _Bounded:
    """A file of which nobody can read more at once than it has: a damaged length costs no memory."""

    def __init__(self, file: Any, nbytes: int) -> None:
        self._file = file
        self._left = nbytes

    def read(self, length: int) -> bytes:
        """Return as many bytes, or what is left."""
        found: bytes = self._file.read(min(length, self._left))
        self._left -= len(found)
        return found


def _records(file: Any) -> Iterator[Any]:
    """Yield records, those in chunks too."""
    reader = mcap_module("stream_reader")
    stream = reader.StreamReader(file, emit_chunks=True, record_size_limit=_MOST_BYTES)
    for record in stream.records:
        if type(record).__name__ == "Chunk":
            plain = replace(record, compression="", data=_unpacked(record))
            yield from reader.breakup_chunk(plain)
        else:
            yield record


def _unpacked(chunk: Any) -> bytes:
    """Return a chunk's records.

    Raises:
        ConfigError: It is packed in a way that we do not unpack.
        ValueError: It is damaged, or would be too large.
    """
    if chunk.compression == "":
        data: bytes = chunk.data
    elif chunk.compression == "zstd":
        import zstandard

        try:
            size = zstandard.frame_content_size(chunk.data)
            if not 0 <= size <= _MOST_BYTES:
                raise ValueError(f"a chunk of {size} bytes")
            data = zstandard.decompress(chunk.data, max_output_size=_MOST_BYTES)
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
    else:
        raise ConfigError(
            f"a chunk is packed with {chunk.compression!r}; 'mcap compress' packs it with zstd"
        )
    if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
        raise ValueError("a chunk's checksum is wrong")
    return data
