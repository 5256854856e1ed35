# SPDX-License-Identifier: Apache-2.0
"""A folder of recordings with a bound: names of runs and their segments, and which of them to delete.

In: a folder and a number of bytes. Out: paths. Only files with our own names are ever deleted, oldest first.

    DIR/20261126-093000/0001.mcap      a run, named by when it began; its segments in order
    DIR/20261126-093000/0002.mcap
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pi05_websocket.errors import ConfigError

__all__ = ["LEAST_BYTES", "Ring", "StoredSegment", "segment_bytes", "segments_of", "surplus"]

LEAST_BYTES = 1_000_000
"""An observation with raw images is as large; less would hold nothing."""

_MOST_SEGMENT_BYTES = 32_000_000
_SEGMENTS = 8
"""At least as many share the bound, so that little is lost when the oldest goes."""

_RUN = re.compile(r"\d{8}-\d{6}(-\d+)?")
_SEGMENT = re.compile(r"\d{4,}\.mcap")


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """One file of a recording."""

    path: Path
    nbytes: int


def segment_bytes(max_bytes: int) -> int:
    """Return how large a segment may become."""
    return min(_MOST_SEGMENT_BYTES, max_bytes // _SEGMENTS)


def surplus(stored: Iterable[StoredSegment], room: int, max_bytes: int) -> list[Path]:
    """Return which files to delete so that `room` more bytes fit, of files in order, oldest first."""
    kept = list(stored)
    total = sum(segment.nbytes for segment in kept) + room
    gone: list[Path] = []
    for segment in kept:
        if total <= max_bytes:
            break
        total -= segment.nbytes
        gone.append(segment.path)
    return gone


def segments_of(folder: Path) -> list[StoredSegment]:
    """Return the segments of all runs in a folder, oldest first."""
    found: list[StoredSegment] = []
    for run in sorted(path for path in folder.iterdir() if _RUN.fullmatch(path.name)):
        files = (path for path in run.iterdir() if _SEGMENT.fullmatch(path.name))
        for path in sorted(files, key=lambda path: (len(path.name), path.name)):
            with contextlib.suppress(FileNotFoundError):  # another process keeps the bound too
                found.append(StoredSegment(path, path.stat().st_size))
    return found


class Ring:
    """One run's place among the recordings of a folder.

    Args:
        folder: Where recordings are kept; made if it is not there.
        max_bytes: How much they may take together.

    Raises:
        ConfigError: The folder cannot be made, or the bound is too small for anything.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        if max_bytes < LEAST_BYTES:
            raise ConfigError(
                f"record_max_bytes={max_bytes}: expected {LEAST_BYTES} or more, one raw observation"
            )
        self.folder = Path(folder).expanduser()
        self.segment_bytes = segment_bytes(max_bytes)
        self._max_bytes = max_bytes
        self._number = 0
        try:
            self.run = _new_run(self.folder)
        except OSError as exc:
            raise ConfigError(f"record={str(folder)!r}: {exc.strerror or exc}") from exc

    def __repr__(self) -> str:
        return f"<Ring {self.run.name} segment {self._number}>"

    def next_segment(self, room: int) -> Path:
        """Make room for a segment of `room` bytes; return the path of the next one.

        Raises:
            OSError: The disk does not let us.
        """
        for path in surplus(segments_of(self.folder), room, self._max_bytes):
            path.unlink(missing_ok=True)
            if path.parent != self.run:
                with contextlib.suppress(OSError):  # others are left in it
                    path.parent.rmdir()
        self._number += 1
        return self.run / f"{self._number:04d}.mcap"


def _new_run(folder: Path) -> Path:
    """Make the folder of a run; a second one in the same second gets a number."""
    name = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        run = folder / (name if number == 1 else f"{name}-{number}")
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            continue
        return run
    raise OSError(f"a thousand runs named {name}")
