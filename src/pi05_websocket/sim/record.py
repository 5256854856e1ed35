# SPDX-License-Identifier: Apache-2.0
"""What a simulated arm leaves behind and shows: its frames as videos, its events in a trace, a live picture.

In: frames and events from the simulator, commands and joints from whoever drives it. Out: a folder with
`realsense.mp4`, `wrist2.mp4` and `robot.jsonl`, a JPEG, log lines. Any thread.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pi05_websocket.sim.cameras import Images
from pi05_websocket.sim.episodes import EpisodeEvent
from pi05_websocket.sim.live import LiveImage
from pi05_websocket.sim.tasks import spawn

__all__ = ["TRACE_NAME", "ArmRecord", "TraceWriter"]

logger = logging.getLogger(__name__)

TRACE_NAME = "robot.jsonl"
"""The trace's name in the folder."""


class TraceWriter(Protocol):
    """Where events are written; `pi05_websocket.robot.trace.Trace` is one."""

    def write(self, kind: str, **facts: Any) -> None:
        """Write one event."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class ArmRecord:
    """One run of a simulated arm.

    Args:
        trace: Where events go; closed with the record.
        seed: Of the simulator: decides where the cubes lie.
        folder: Where the videos go; None for none.
        live_image: Path of a JPEG that follows the cameras; None for none.
    """

    def __init__(
        self,
        trace: TraceWriter,
        *,
        seed: int,
        folder: Path | None = None,
        live_image: str | Path | None = None,
    ) -> None:
        self._trace = trace
        self._seed = seed
        self._live = None if live_image is None else LiveImage(live_image)
        self._recorder: Any = None
        if folder is not None:
            from pi05_websocket.sim.recording import FrameRecorder

            self._recorder = FrameRecorder(folder)
            self._trace.write("recording", video_origin_s=self._recorder.origin_s)

    def add_frames(self, images: Images) -> None:
        """Take a pair of frames."""
        if self._recorder is not None:
            self._recorder.add(images)
        if self._live is not None:
            self._live.show(images)

    def tell(self, event: EpisodeEvent) -> None:
        """Take an event of an episode."""
        if event.kind == "next":
            self.tell_cube(event.episode)
            return
        self._trace.write(
            event.kind,
            episode=event.episode,
            success=event.success,
            duration_s=round(event.duration_s, 3),
        )
        if event.kind == "ended":
            outcome = "succeeded" if event.success else "failed"
            logger.info("episode %d %s after %.2f s", event.episode, outcome, event.duration_s)

    def tell_cube(self, episode: int) -> None:
        """Say where the cube of an episode lies."""
        cube = spawn(self._seed, episode)
        self._trace.write(
            "cube", episode=episode, x=round(cube.x, 4), y=round(cube.y, 4), yaw=round(cube.yaw, 4)
        )

    def tell_joints(self, joints: npt.ArrayLike) -> None:
        """Take joints `(6,)` that were read, LeRobot's units."""
        self._trace.write("joints", values=np.asarray(joints, np.float64).round(3).tolist())

    def tell_command(self, joints: npt.ArrayLike, episode: int) -> None:
        """Take targets `(6,)` that were commanded in an episode, LeRobot's units."""
        self._trace.write(
            "command", values=np.asarray(joints, np.float64).round(3).tolist(), episode=episode
        )

    def close(self) -> None:
        """Finish the files. Safe to call twice."""
        if self._recorder is not None:
            self._recorder.close()
            self._trace.write(
                "recorded", frames=self._recorder.frames, dropped=self._recorder.dropped
            )
            self._recorder = None
        self._trace.close()
