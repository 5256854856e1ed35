# SPDX-License-Identifier: Apache-2.0
"""The plot and the video, made from a short story and a recording of coloured frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
av = pytest.importorskip("av")

from matplotlib.colors import to_hex  # noqa: E402
from PIL import Image  # noqa: E402

from pi05_websocket.cli.demo_plot import (  # noqa: E402
    chunk_borders,
    draw_episodes,
    draw_plot,
)
from pi05_websocket.cli.demo_story import Story, TraceLine  # noqa: E402
from pi05_websocket.cli.demo_video import FPS, SIZE, Narration, make_video  # noqa: E402
from pi05_websocket.sim.live import LiveImage, side_by_side  # noqa: E402
from pi05_websocket.sim.recording import FrameRecorder  # noqa: E402
from pi05_websocket.testing import FakeClock  # noqa: E402

ORIGIN = 100.0


def policy_trace(*, seconds: float = 2.0) -> list[TraceLine]:
    """Return ticks with a new chunk every ten, one of them held, and an exchange per chunk."""
    lines: list[TraceLine] = []
    for number in range(round(seconds * 30)):
        time_s = ORIGIN + 0.2 + number / 30
        held = number == 35
        lines.append(
            {
                "kind": "tick",
                "time_s": time_s,
                "source": "hold" if held else "chunk",
                "seq": -1 if held else number // 10,
                "values": [float(number + joint) for joint in range(6)],
            }
        )
        if number % 10 == 0:
            facts = {"round_trip_ms": 20.0, "server_ms": 8.0, "delay_ticks": 1 + number % 20}
            lines.append({"kind": "exchange", "time_s": time_s, **facts})
    return lines


def robot_trace() -> list[TraceLine]:
    """Return a success and a failure, and joints."""
    lines: list[TraceLine] = []
    for episode, success in enumerate((True, False)):
        began = ORIGIN + 0.3 + episode
        facts: dict[str, Any] = {"episode": episode, "success": success, "duration_s": 0.6}
        lines.append({"kind": "began", "time_s": began, **facts})
        lines.append({"kind": "joints", "time_s": began, "values": [0.0] * 6})
        lines.append({"kind": "ended", "time_s": began + 0.9, **facts})
    return lines


@pytest.fixture
def story() -> Story:
    """Return the story both traces tell."""
    told = Story()
    told.tell([*policy_trace(), *robot_trace()])
    return told


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 1.2 seconds of both cameras, front red and wrist blue."""
    folder = tmp_path_factory.mktemp("recording")
    clock = FakeClock()
    recorder = FrameRecorder(folder, clock=clock)
    clock.sleep(1.0)
    front = np.full((480, 640, 3), (200, 30, 30), dtype=np.uint8)
    wrist = np.full((224, 224, 3), (30, 30, 200), dtype=np.uint8)
    for _ in range(30):
        recorder.add({"realsense": front, "wrist2": wrist})
        clock.sleep(0.04)
    recorder.add({"realsense": front, "wrist2": wrist})
    recorder.add({"realsense": front, "wrist2": wrist})  # at the same moment
    recorder.close()
    assert recorder.frames == 32
    return folder


def test_borders_are_where_a_chunk_takes_over() -> None:
    """A held tick is no new chunk, coming back to one is."""
    seqs = [0, 0, 1, -1, 1]
    ticks = [{"time_s": float(number), "seq": seq} for number, seq in enumerate(seqs)]

    assert chunk_borders(ticks) == [2.0, 4.0]


def test_plot_is_a_picture(tmp_path: Path, story: Story) -> None:
    """A PNG of the promised size, not a blank one."""
    path = tmp_path / "plot.png"

    draw_plot(policy_trace(), robot_trace(), story, path, title="a test")

    with Image.open(path) as picture:
        assert picture.size == (1540, 880)
        assert len(np.unique(np.asarray(picture).reshape(-1, picture.size[0]))) > 20


def test_the_legend_says_what_the_bands_are(story: Story) -> None:
    """Both kinds where both are shown, each in the colour of its band; without episodes none."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_episodes(axes, story, ORIGIN)
    shown = {line.get_label(): line.get_color() for line in axes.get_lines()}
    bands = [to_hex(patch.get_facecolor()) for patch in axes.patches]
    assert shown == {"episode: cube picked up": bands[0], "episode: not picked up": bands[1]}
    empty = Figure().subplots()
    draw_episodes(empty, Story(), ORIGIN)
    assert len(empty.get_lines()) == 0


def test_narration_knows_each_moment(story: Story) -> None:
    """Before, during and after an episode, in success and failure, while holding."""
    narration = Narration(policy_trace(), story, episodes=2, prompt="Pick it up.")

    before, running, done, over = (narration.at(ORIGIN + at) for at in (0.0, 0.5, 1.1, 2.5))
    assert before.episode is None
    assert (running.episode, running.outcome) == (0, None)
    assert running.elapsed_s == pytest.approx(0.2)
    assert done.outcome is not None
    assert done.outcome.success
    assert over.outcome is not None
    assert not over.outcome.success
    assert narration.at(ORIGIN + 0.2 + 35 / 30 + 0.01).holding
    assert (running.held_ticks, over.held_ticks) == (0, 1)


def test_video_shows_both_cameras(tmp_path: Path, story: Story, recording: Path) -> None:
    """1280 by 720, 30 frames a second, front on the left, wrist in the upper right corner."""
    path, shares = tmp_path / "demo.mp4", list[float]()
    narration = Narration(policy_trace(), story, episodes=2, prompt="Pick it up.")

    written = make_video(recording, narration, path, origin_s=ORIGIN - 1, progress=shares.append)

    with av.open(str(path)) as video:
        assert float(video.streams.video[0].average_rate) == FPS
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == written > 5
    assert frames[0].shape == (SIZE[1], SIZE[0], 3)
    assert frames[0][400, 480].argmax() == 0
    assert frames[0][160, 1100].argmax() == 2
    # Each image's upper right corner has its camera's name, light on a dark plate.
    for right in (960, SIZE[0]):
        assert frames[0][14:46, right - 110 : right - 16].min(axis=2).max() > 180
    assert all(0 <= share <= 1 for share in shares)


def test_no_episode_no_video(tmp_path: Path, recording: Path) -> None:
    """Where no episode ended there is nothing to show."""
    narration = Narration([], Story(), episodes=2, prompt="")

    written = make_video(
        recording, narration, tmp_path / "x.mp4", origin_s=0.0, progress=lambda share: None
    )

    assert written == 0


def test_live_image_shows_both_cameras(tmp_path: Path) -> None:
    """The wrist image stands in the front image's corner; the file is renewed, not at every frame."""
    front = np.zeros((480, 640, 3), dtype=np.uint8)
    wrist = np.full((224, 224, 3), 100, dtype=np.uint8)
    live = LiveImage(tmp_path / "deep" / "live.jpg")

    live.show({"realsense": front, "wrist2": wrist})
    first = (tmp_path / "deep" / "live.jpg").stat().st_mtime_ns
    live.show({"realsense": front, "wrist2": wrist})

    picture = side_by_side(front, wrist)
    assert (tmp_path / "deep" / "live.jpg").stat().st_mtime_ns == first
    assert picture[130, 500].tolist() == [100, 100, 100]
    assert picture[300, 300].tolist() == [0, 0, 0]
    assert front.max() == 0


def test_recorder_that_cannot_write_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording that breaks is logged; frames after it are counted as dropped, nothing waits."""
    recorder = FrameRecorder(tmp_path)
    recorder.add({"realsense": np.zeros((0, 0, 3), dtype=np.uint8)})
    recorder.add({"realsense": np.zeros((480, 640, 3), dtype=np.uint8)})
    recorder.close()
    recorder.close()

    assert "recording ends here" in caplog.text
    assert recorder.frames == 0
    assert "dropped=" in repr(recorder)
