# SPDX-License-Identifier: Apache-2.0
"""A camera's frames in a file that other processes map: the newest frame, and when it was taken.

In: frames from the thread that rendered them. Out: the same bytes in any process of this machine, without
waiting. The file holds the last few frames in turn, so that one can be copied while the next is written.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from pathlib import Path

import numpy as np

from pi05_websocket.data import UInt8Array
from pi05_websocket.errors import ConfigError, Pi05WebsocketError

__all__ = ["FeedReader", "FrameFeed", "NoFrames"]

_HEADER = struct.Struct("<8s4I")
"""Magic, height, width, channels, slots."""
_MAGIC = b"pi05cam1"
_NEWEST = struct.Struct("<Q")
"""Number of the newest frame, from 1; its slot is the number modulo the slots."""
_STAMP = struct.Struct("<Qd")
"""Number of the frame in a slot, 0 while it is written, and its monotonic seconds."""
_SLOTS = 4
_LARGEST = 1 << 26
"""Bytes of a frame that a reader believes in."""
_TRIES = 100
"""A frame is not whole if three more were written while it was copied: that does not happen often in a row."""


class NoFrames(Pi05WebsocketError):
    """There is no such file of frames, or it is none, or nothing is in it yet."""


def _slot(number: int, size: int) -> int:
    start = _HEADER.size + _NEWEST.size
    return start + (number % _SLOTS) * (_STAMP.size + size)


class FrameFeed:
    """Writes frames to `path`. One thread writes.

    Args:
        path: The file; one that is there is replaced.
        shape: `(height, width, 3)` of every frame.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.shape = shape
        self._size = math.prod(shape)
        self._number = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".new")
        with draft.open("w+b") as file:
            file.truncate(_slot(_SLOTS - 1, self._size) + _STAMP.size + self._size)
            file.write(_HEADER.pack(_MAGIC, *shape, _SLOTS))
            file.flush()
            self._map = mmap.mmap(file.fileno(), 0)
        os.replace(draft, path)

    def __repr__(self) -> str:
        return f"<FrameFeed {self.path} {self.shape} frames={self._number}>"

    def write(self, frame: UInt8Array, taken_s: float | None = None) -> None:
        """Publish a frame taken at `taken_s` on the machine's monotonic clock; now by default.

        Raises:
            ConfigError: The frame has another shape.
        """
        if frame.shape != self.shape:
            raise ConfigError(f"a frame is {frame.shape}: expected {self.shape}")
        number = self._number + 1
        at = _slot(number, self._size)
        taken = time.monotonic() if taken_s is None else taken_s
        _STAMP.pack_into(self._map, at, 0, taken)
        pixels = at + _STAMP.size
        self._map[pixels : pixels + self._size] = np.ascontiguousarray(frame).tobytes()
        _STAMP.pack_into(self._map, at, number, taken)
        _NEWEST.pack_into(self._map, _HEADER.size, number)
        self._number = number

    def close(self) -> None:
        """Remove the file; who reads it sees its last frame grow old. Safe to call twice."""
        self.path.unlink(missing_ok=True)
        self._map.close()


class FeedReader:
    """Reads frames from a `FrameFeed`'s file. Any thread.

    Raises:
        NoFrames: There is no such file, or it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:  # an empty file cannot be mapped
            raise NoFrames(
                f"no camera frames in {path}: is the emulated arm running? ({exc})"
            ) from exc
        try:
            self.shape = self._read_shape()
            """`(height, width, 3)`."""
        except BaseException:
            self._map.close()
            raise
        self._size = math.prod(self.shape)

    def _read_shape(self) -> tuple[int, int, int]:
        if len(self._map) < _HEADER.size or self._map[:8] != _MAGIC:
            raise NoFrames(f"{self.path} holds no camera frames")
        _, height, width, channels, slots = _HEADER.unpack_from(self._map)
        size = height * width * channels
        whole = _slot(_SLOTS - 1, size) + _STAMP.size + size
        if slots != _SLOTS or not 0 < size <= _LARGEST or len(self._map) != whole:
            raise NoFrames(f"{self.path} holds no camera frames of this version")
        return height, width, channels

    def __repr__(self) -> str:
        return f"<FeedReader {self.path} {self.shape} newest={self.newest}>"

    @property
    def newest(self) -> int:
        """Number of the newest frame; 0 before the first."""
        return int(_NEWEST.unpack_from(self._map, _HEADER.size)[0])

    def read(self) -> tuple[UInt8Array, int, float]:
        """Return a copy of the newest frame, its number, and when it was taken (monotonic seconds).

        Raises:
            NoFrames: Before the first, or if none can be copied whole.
        """
        for _ in range(_TRIES):
            number = self.newest
            if number == 0:
                raise NoFrames(f"no frame yet in {self.path}")
            at = _slot(number, self._size)
            before = _STAMP.unpack_from(self._map, at)
            pixels = at + _STAMP.size
            content = np.frombuffer(self._map, np.uint8, self._size, pixels).copy()
            if before == _STAMP.unpack_from(self._map, at) and before[0] == number:
                return content.reshape(self.shape), number, float(before[1])
        raise NoFrames(f"no whole frame in {self.path}: is it damaged?")

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._map.close()
