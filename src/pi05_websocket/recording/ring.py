# SPDX-License-Identifier: Apache-2.0
"""A folder of recordings with a bound: names of runs and their segments, and which of them to delete.

In: a folder and a number of bytes. Out: files to write into. Several recordings may go on in one folder. Only
files with our own names are ever deleted, those first that were written to the longest ago, and none that is
being written.

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
from typing import IO

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.claims import claim, is_claimed

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
    modified_ns: int = 0
    """When it was written to last, Unix time."""
    being_written: bool = False


def segment_bytes(max_bytes: int) -> int:
    """Return how large a segment may become."""
    return min(_MOST_SEGMENT_BYTES, max_bytes // _SEGMENTS)


def surplus(stored: Iterable[StoredSegment], room: int, max_bytes: int) -> list[Path] | None:
    """Return which files to delete so that `room` more bytes fit.

    Those go first that were written to the longest ago. What is being written stays, and counts as large as a
    segment may become.

    Args:
        stored: All files, in any order.
        room: Bytes wanted.
        max_bytes: The bound.

    Returns:
        Paths; None: the bytes would not fit even without all that may go.
    """
    growing = segment_bytes(max_bytes)
    finished: list[StoredSegment] = []
    total = room
    for segment in stored:
        total += max(segment.nbytes, growing) if segment.being_written else segment.nbytes
        if not segment.being_written:
            finished.append(segment)
    gone: list[Path] = []
    for segment in sorted(finished, key=lambda segment: segment.modified_ns):
        if total <= max_bytes:
            break
        total -= segment.nbytes
        gone.append(segment.path)
    return gone if total <= max_bytes else None


def segments_of(folder: Path) -> list[StoredSegment]:
    """Return the segments of all runs in a folder, run by run, each in order."""
    found: list[StoredSegment] = []
    for run in sorted(path for path in folder.iterdir() if _RUN.fullmatch(path.name)):
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError
        ):  # others keep the bound too
            files = [path for path in run.iterdir() if _SEGMENT.fullmatch(path.name)]
            files.sort(key=lambda path: (len(path.name), path.name))
            for path in files:
                with contextlib.suppress(FileNotFoundError):
                    found.append(_stored(path, newest=path is files[-1]))
    return found


def _stored(path: Path, *, newest: bool) -> StoredSegment:
    said = path.stat()
    return StoredSegment(path, said.st_size, said.st_mtime_ns, newest and is_claimed(path))


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

    def next_segment(self, room: int) -> IO[bytes]:
        """Make the next segment, and room for `room` bytes in it; return it open for writing.

        Others leave it alone until it is closed.

        Raises:
            OSError: The disk does not let us; or the bound does not, because of what others are writing.
        """
        file = self._make()
        ours = Path(file.name)
        stored = [segment for segment in segments_of(self.folder) if segment.path != ours]
        gone = surplus(stored, room, self._max_bytes)
        if gone is None:
            file.close()
            ours.unlink(missing_ok=True)
            busy = sum(segment.being_written for segment in stored)
            raise OSError(
                f"record_max_bytes={self._max_bytes}: expected room for {room} bytes more, got none: "
                f"{busy} other recordings are being written in {self.folder}. Raise it, or record elsewhere"
            )
        for path in gone:
            path.unlink(missing_ok=True)
            if path.parent != self.run:
                with contextlib.suppress(OSError):  # others are left in it
                    path.parent.rmdir()
        return file

    def _make(self) -> IO[bytes]:
        """Make the next file of this run, whose folder another run may have removed when it was empty."""
        for _ in range(1000):
            self._number += 1
            path = self.run / f"{self._number:04d}.mcap"
            try:
                self.run.mkdir(parents=True, exist_ok=True)
                file = path.open("xb")
            except (FileExistsError, FileNotFoundError):
                continue
            claim(file)
            if path.exists():
                return file
            file.close()  # deleted before it was claimed
        raise OSError(f"{self.run}: a thousand names are taken")


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
