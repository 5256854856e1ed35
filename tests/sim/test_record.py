# SPDX-License-Identifier: Apache-2.0
"""What a simulated arm tells about a run, without videos; those are in `tests/plugin/test_so101_sim.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pi05_websocket.sim.episodes import EpisodeEvent
from pi05_websocket.sim.record import ArmRecord
from pi05_websocket.sim.so101 import CAMERA_SHAPES


class Lines:
    """A trace that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.closed = False

    def write(self, kind: str, **facts: Any) -> None:
        """Keep one."""
        self.lines.append((kind, facts))

    def close(self) -> None:
        """Note the end."""
        self.closed = True


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (EpisodeEvent("began", 2, 1.0), ("began", {"episode": 2, "success": False, "duration_s": 0.0})),
        (
            EpisodeEvent("ended", 2, 9.0, success=True, duration_s=2.34567),
            ("ended", {"episode": 2, "success": True, "duration_s": 2.346}),
        ),
        (EpisodeEvent("next", 0, 9.0), ("cube", {"episode": 0, "x": 0.2245, "y": 0.0442, "yaw": 0.1287})),
    ],
)  # fmt: skip
def test_events_become_lines(event: EpisodeEvent, line: tuple[str, dict[str, Any]]) -> None:
    """One each; the next episode is the next cube's place."""
    trace = Lines()
    ArmRecord(trace, seed=0).tell(event)
    assert trace.lines == [line]


def test_joints_and_commands_are_rounded() -> None:
    """To a thousandth of a degree."""
    trace = Lines()
    record = ArmRecord(trace, seed=0)
    record.tell_joints(np.full(6, 1 / 3))
    record.tell_command([0.0, 1.23456], 7)
    assert trace.lines == [
        ("joints", {"values": [0.333] * 6}),
        ("command", {"values": [0.0, 1.235], "episode": 7}),
    ]


def test_live_picture_without_a_recording(tmp_path: Path) -> None:
    """Frames are shown; closing closes the trace."""
    trace = Lines()
    record = ArmRecord(trace, seed=0, live_image=tmp_path / "live.jpg")
    record.add_frames({name: np.zeros(shape, np.uint8) for name, shape in CAMERA_SHAPES.items()})
    record.close()
    with Image.open(tmp_path / "live.jpg") as picture:
        assert picture.size == (640, 480)
    assert trace.closed
