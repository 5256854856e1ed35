# SPDX-License-Identifier: Apache-2.0
"""A recording as a whole: its settings, lines, and each request with its answer.

In: a folder of recordings, one run's folder, or an `.mcap` file. Out: dicts and decoded observations. Reads
lazily, as often as it is asked: recordings are larger than memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError, DecodeError, InvalidReply
from pi05_websocket.recording import topics
from pi05_websocket.recording.reading import McapFile
from pi05_websocket.recording.ring import segments_of
from pi05_websocket.wire import codec
from pi05_websocket.wire.messages import read_actions

__all__ = ["Answered", "Recording", "open_recording"]

_LINES = frozenset((*topics.SCHEMAS,))
_MOST_OPEN = 64
"""Requests without an answer that are remembered: a player has one under way."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered with actions."""

    seq: int
    message: bytes
    """The observation as it was sent."""
    actions: Float32Array
    """`(action_horizon, action_dim)`, as the server answered."""
    seconds: float
    """From the request to its answer."""

    def observation(self) -> dict[str, Any]:
        """Return the observation, with images as they were sent.

        Raises:
            DecodeError: The recording is damaged.
        """
        found: dict[str, Any] = codec.decode(self.message)
        return found


class Recording:
    """One run.

    Args:
        paths: Its segments, in order.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._files = [McapFile(path) for path in paths]
        self.settings: dict[str, str] = {}
        """Of the run, in words; known once something was read."""

    def __repr__(self) -> str:
        return f"<Recording {self.paths[0].parent.name} {len(self.paths)} segments>"

    @property
    def cut_off(self) -> bool:
        """Whether the last segment has no proper end, as after a crash; known once it was read."""
        return not self._files[-1].whole

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what happened, as the trace tells it: each with `kind` and `time_s`."""
        for entry in self._entries(_LINES):
            try:
                line = msgspec.json.decode(entry.data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if isinstance(line, dict) and isinstance(line.get("kind"), str):
                yield line

    def answered(self) -> Iterator[Answered]:
        """Yield each request with its answer; those without one that an arm may execute are left out."""
        asked: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        for entry in self._entries((topics.REQUEST, topics.REPLY)):
            if entry.topic == topics.REQUEST:
                asked[entry.sequence] = (entry.time_ns, entry.data)
                if len(asked) > _MOST_OPEN:
                    asked.popitem(last=False)
            elif entry.sequence in asked:
                time_ns, message = asked.pop(entry.sequence)
                try:
                    actions = read_actions(codec.decode(entry.data))
                except (DecodeError, InvalidReply):
                    continue
                seconds = max(0.0, (entry.time_ns - time_ns) / 1e9)
                yield Answered(entry.sequence, message, actions, seconds)

    def _entries(self, wanted: Any) -> Iterator[Any]:
        for file in self._files:
            for entry in file.entries(wanted):
                self.settings = self.settings or file.settings
                yield entry


def open_recording(path: str | Path) -> Recording:
    """Return the recording at `path`: a file, a run's folder, or a folder of runs, of which the newest counts.

    Raises:
        ConfigError: There is none.
    """
    found = Path(path).expanduser()
    if found.is_file():
        return Recording([found])
    if not found.is_dir():
        raise ConfigError(f"{found}: there is no such recording")
    here = sorted(found.glob("*.mcap"), key=lambda file: (len(file.name), file.name))
    if not here:
        stored = segments_of(found)
        if not stored:
            raise ConfigError(
                f"{found}: expected a recording, or a folder of them, got no .mcap files; --policy.record=DIR "
                "and pi05-websocket run --record DIR make them"
            )
        newest = stored[-1].path.parent
        here = [segment.path for segment in stored if segment.path.parent == newest]
    return Recording(here)
