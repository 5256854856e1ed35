# SPDX-License-Identifier: Apache-2.0
"""What LeRobot records today, converted for the LeRobot that OpenPI pins."""

from __future__ import annotations

import json
from pathlib import Path

import av
import fake_openpi
import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.lerobot, pytest.mark.filterwarnings("default")]

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

from pi05_websocket.presets import SO101_JOINTS  # noqa: E402

CAMERA = "observation.images.front"
LENGTHS = (7, 5)


def colour(episode: int, frame: int) -> int:
    """Return a brightness that no other frame has."""
    return 30 + 100 * episode + 12 * frame


def test_a_recorded_data_set_is_converted(tmp_path: Path) -> None:
    """Rows and frames of every episode are those that were recorded, in one file each."""
    joints = {"dtype": "float32", "shape": (6,), "names": [f"{name}.pos" for name in SO101_JOINTS]}
    camera = {"dtype": "video", "shape": (96, 128, 3), "names": ["height", "width", "channels"]}
    data = LeRobotDataset.create(
        "you/so101_pick",
        fps=30,
        features={"observation.state": joints, "action": joints, CAMERA: camera},
        root=tmp_path / "v3",
        robot_type="so_follower",
    )
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            values = np.full(6, 10 * episode + frame, np.float32)
            picture = np.full((96, 128, 3), colour(episode, frame), np.uint8)
            data.add_frame(
                {"observation.state": values, "action": values + 1, CAMERA: picture, "task": "pick"}
            )
        data.save_episode()
    data.finalize()

    to_v21 = fake_openpi.load("to_v21", fake_openpi.FOLDER / "to_v21.py")
    assert to_v21.convert(tmp_path / "v3", tmp_path / "v2") == len(LENGTHS)

    assert json.loads((tmp_path / "v2/meta/info.json").read_text())["codebase_version"] == "v2.1"
    for episode, length in enumerate(LENGTHS):
        rows = pq.read_table(
            tmp_path / f"v2/data/chunk-000/episode_{episode:06d}.parquet"
        ).to_pylist()
        assert [row["action"][0] for row in rows] == [10 * episode + i + 1 for i in range(length)]
        video = tmp_path / f"v2/videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"
        with av.open(str(video)) as container:
            frames = list(container.decode(video=0))
        assert [float(frame.pts * frame.time_base) for frame in frames] == pytest.approx(
            [row["timestamp"] for row in rows], abs=1e-4
        )
        for number, frame in enumerate(frames):
            brightness = frame.to_ndarray(format="rgb24").mean()
            assert brightness == pytest.approx(colour(episode, number), abs=4)
