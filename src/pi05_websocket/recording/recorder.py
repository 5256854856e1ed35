# SPDX-License-Identifier: Apache-2.0
"""The recorder: what happened, from the control thread to the disk, without either waiting for the other.

In: what the trace tells its listeners. Out: segments of an MCAP recording (`ring`, `segment`, `topics`).
The control thread copies an observation and puts it into a queue with a bound in bytes; a thread of the
recorder's own does the rest: JPEG, JSON, compression, the disk. When the queue is full the newest message is
lost, counted and said once. A disk that is full ends the recording, not the motion.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pi05_websocket.recording.messages import Message, messages_of
from pi05_websocket.recording.ring import Ring
from pi05_websocket.recording.segment import Segment, mcap_module
from pi05_websocket.wire import codec

__all__ = ["DEFAULT_MAX_BYTES", "Recorder", "settings_of"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 2_000_000_000
"""Half an hour of raw images, a working day of JPEGs."""

_QUEUE_BYTES = 64_000_000
"""As much may wait for the disk: a minute of raw observations."""
_LITTLE = 2_000
"""Counted for a message without images."""
_SEGMENT_S = 60.0
"""A segment is closed after as long: then it has an index, and viewers need not look for one."""
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Told:
    """What waits for the writer."""

    kind: str
    facts: dict[str, Any]
    at_ns: int
    """Monotonic."""
    nbytes: int


def settings_of(config: Any, **others: str) -> dict[str, str]:
    """Return a settings class's values in words, those that say nothing left out; and others.

    No setting is a secret: LeRobot prints and saves them too.
    """
    named = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: str(value) for name, value in named.items() if value not in (None, "", {}, [])
    } | others


class Recorder:
    """A listener of the trace that records.

    Args:
        folder: Where recordings are kept.
        settings: What a reader wants to know of the run, in words.
        max_bytes: How much all recordings in the folder may take; the oldest segments go first.
        queue_bytes: How much may wait for the disk.

    Raises:
        ConfigError: mcap is not installed, the folder cannot be made, or the bound is too small.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, str],
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        queue_bytes: int = _QUEUE_BYTES,
    ) -> None:
        mcap_module("writer")
        self._ring = Ring(folder, max_bytes)
        self._settings = {str(name): str(value) for name, value in settings.items()}
        self._origin_ns = time.time_ns() - time.monotonic_ns()
        self._queue: queue.SimpleQueue[_Told | None] = queue.SimpleQueue()
        self._queue_bytes = queue_bytes
        self._lock = threading.Lock()
        self._waiting = 0
        """Bytes in the queue; guarded by the lock."""
        self._lost = 0
        """Messages lost since the last one that was taken; guarded by the lock."""
        self.lost = 0
        """Messages lost in all."""
        self._ended = threading.Event()
        """Nothing comes into the queue any more; set under the lock."""
        self._segment: Segment | None = None
        self._opened_s = 0.0
        self._server: Any = None
        """What the server said last; repeated in each segment."""
        self._thread = threading.Thread(target=self._run, name="pi05-recorder", daemon=True)
        self._thread.start()
        logger.info("recording to %s", self._ring.run)

    def __repr__(self) -> str:
        return f"<Recorder {self._ring!r} lost={self.lost}>"

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self._ring.run

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one line of the trace; on the control thread, waits for nothing."""
        if self._ended.is_set():
            return
        nbytes = _LITTLE
        if kind == "request":
            # Copied here: the robot may write into its images again as soon as this returns.
            message = codec.encode(facts["observation"])
            facts = {**facts, "observation": message}
            nbytes += len(message)
        elif kind == "reply":  # a server decides how long it is
            nbytes += int(facts.get("nbytes", 0))
        told = _Told(kind, facts, time.monotonic_ns(), nbytes)
        with self._lock:
            if self._ended.is_set():
                return
            fits = self._waiting + nbytes <= self._queue_bytes
            if fits:
                self._waiting += nbytes
                self._queue.put(told)
            else:
                self._lost += 1
                self.lost += 1
        if not fits and self.lost == 1:
            logger.warning(
                "recording: the disk is too slow, messages are lost from here on; the arm goes on. Said once"
            )

    def close(self) -> None:
        """Write what waits and close the file. Safe to call twice."""
        if self._ended.is_set() and not self._thread.is_alive():
            return
        with self._lock:
            self._ended.set()
            self._queue.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            logger.warning("recording: the disk is too slow: %s has no end", self._ring.run)

    # --- on the recorder's own thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (told := self._queue.get()) is not None:
                self._write(told)
                if self._queue.empty() and self._segment is not None:
                    self._segment.flush()
            if self._segment is not None:
                self._segment.close()
        except Exception as exc:  # a full disk, or anything else: the arm goes on
            logger.warning("the recording ends here: %s. The arm goes on", exc)
            if self._segment is not None:
                with contextlib.suppress(Exception):
                    self._segment.abandon()
            self._let_go()

    def _let_go(self) -> None:
        """Keep nothing of what waits, or comes."""
        with self._lock:
            self._ended.set()
            self._waiting = 0
        self._segment = None
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _write(self, told: _Told) -> None:
        with self._lock:
            self._waiting -= told.nbytes
            lost, self._lost = self._lost, 0
        if lost:
            self._put(messages_of("gap", {"lost": lost}, told.at_ns, self._origin_ns))
        if told.kind == "request":
            self._note_server(told)
        self._put(messages_of(told.kind, told.facts, told.at_ns, self._origin_ns))

    def _note_server(self, told: _Told) -> None:
        metadata = told.facts.get("metadata")
        if metadata is not None and metadata != self._server:
            self._server = metadata
            self._put(self._about_the_server(told.at_ns))

    def _about_the_server(self, at_ns: int) -> list[Message]:
        return messages_of("server", {"metadata": self._server}, at_ns, self._origin_ns)

    def _put(self, messages: list[Message]) -> None:
        for message in messages:
            segment = self._segment_for(len(message.data), message.time_ns)
            segment.write(message.topic, message.time_ns, message.data, message.sequence)

    def _segment_for(self, nbytes: int, time_ns: int) -> Segment:
        """Return the open segment, or the next one where the message would make it too large or it is old."""
        now = time.monotonic()
        segment = self._segment
        if segment is not None:
            full = segment.nbytes + nbytes > self._ring.segment_bytes
            if not full and now - self._opened_s < _SEGMENT_S:
                return segment
            self._segment = None
            segment.close()
        room = max(self._ring.segment_bytes, nbytes)
        self._segment = Segment(self._ring.next_segment(room), self._settings)
        self._opened_s = now
        if segment is not None and self._server is not None:
            for message in self._about_the_server(time_ns - self._origin_ns):
                self._segment.write(message.topic, message.time_ns, message.data)
        return self._segment
