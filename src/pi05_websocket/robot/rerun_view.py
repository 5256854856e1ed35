# SPDX-License-Identifier: Apache-2.0
"""Chunks, seams, delay and holds in Rerun, beside LeRobot's own display.

In: the trace's lines. Out: entities under `pi05/` of the process's recording: LeRobot's, where
`lerobot-rollout --display_data=true` has opened one, else one of our own with a viewer. Needs the extra `view`.

    pi05/command       what was commanded at each tick, one line for each joint
    pi05/chunk/0..3    the rows of the last four chunks, each at the ticks its rows are for: on the timeline
                       `tick` the lines of two chunks and the command between them are the seam
    pi05/delay         inference delay of each reply, ticks; pi05/round_trip_ms, pi05/infer_ms
    pi05/held          1 at a tick without a row
    pi05/log           new episodes, takeovers, outages and the cause of a hold, in words
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install

__all__ = ["RerunView"]

_CHUNKS = 4
"""Chunks that are to be seen at once; older ones are overwritten in turn."""


class RerunView:
    """A listener of the trace that draws.

    Args:
        save: Write the recording to this file instead of showing it; None: show it.

    Raises:
        ConfigError: rerun-sdk is not installed.
    """

    def __init__(self, save: Path | None = None) -> None:
        try:
            self._rerun: Any = importlib.import_module("rerun")
        except ImportError as exc:
            raise ConfigError(f"rerun=true needs rerun-sdk: {how_to_install('view')}") from exc
        self._save = save
        self._tick = 0
        self._running = -1
        self._held = False
        self._takes: dict[str, Callable[[dict[str, Any]], object]] = {
            "tick": self._on_tick,
            "chunk": self._on_chunk,
            "exchange": self._on_exchange,
            "episode": lambda facts: self._say(f"episode {facts['episode']}"),
            "outage": lambda facts: self._say(f"no valid actions: {facts['cause']}", "WARN"),
            "recovered": lambda facts: self._say(f"actions again after {facts['seconds']} s"),
        }

    def __repr__(self) -> str:
        return f"<RerunView tick={self._tick}>"

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Draw one line of the trace."""
        take = self._takes.get(kind)
        if take is not None:
            self._ensure_recording()
            take(facts)

    def close(self) -> None:
        """Send what is still waiting; the recording stays open, for it may be LeRobot's."""
        recording = self._rerun.get_global_data_recording()
        if recording is not None:
            recording.flush()

    def _ensure_recording(self) -> None:
        """Open a recording, unless LeRobot has: it does so after it has built the policy."""
        if self._rerun.get_global_data_recording() is not None:
            return
        self._rerun.init("pi05_websocket", spawn=self._save is None)
        if self._save is not None:
            self._rerun.save(str(self._save))

    def _on_tick(self, facts: dict[str, Any]) -> None:
        self._tick = facts["tick"]
        self._now()
        held = facts["source"] != "chunk"
        self._rerun.log("pi05/command", self._rerun.Scalars(facts["values"]))
        self._rerun.log("pi05/held", self._rerun.Scalars([float(held)]))
        if held and not self._held:
            self._say(f"{facts['source']}: {facts.get('cause', 'no row for this tick')}", "WARN")
        elif not held and facts["seq"] != self._running:
            self._say(f"chunk {facts['seq']} takes over at its row {facts['row']}")
        self._held = held
        self._running = facts["seq"]

    def _on_chunk(self, facts: dict[str, Any]) -> None:
        rows = np.asarray(facts["actions"], np.float64)
        ticks = facts["first_tick"] + np.arange(len(rows))
        self._rerun.send_columns(
            f"pi05/chunk/{facts['seq'] % _CHUNKS}",
            indexes=[self._rerun.TimeColumn("tick", sequence=ticks)],
            columns=self._rerun.Scalars.columns(scalars=rows),
        )

    def _on_exchange(self, facts: dict[str, Any]) -> None:
        self._now()
        for entity, key in (
            ("delay", "delay_ticks"),
            ("round_trip_ms", "round_trip_ms"),
            ("infer_ms", "server_ms"),
        ):
            if facts.get(key) is not None:
                self._rerun.log(f"pi05/{entity}", self._rerun.Scalars([float(facts[key])]))

    def _say(self, text: str, level: str = "INFO") -> None:
        self._rerun.log("pi05/log", self._rerun.TextLog(text, level=level))

    def _now(self) -> None:
        self._rerun.set_time("tick", sequence=self._tick)
