# SPDX-License-Identifier: Apache-2.0
"""A data set of version 3.0 becomes one that OpenPI's LeRobot reads: the same rows, the same frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_openpi
import numpy as np
import pytest

av = pytest.importorskip("av")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

to_v21 = fake_openpi.load("to_v21", fake_openpi.FOLDER / "to_v21.py")

LENGTHS = (4, 6, 3)
FPS = 30
CAMERA = "observation.images.front"


def grey(episode: int, frame: int) -> int:
    """Return the brightness that tells a frame from all others."""
    return 20 + 70 * episode + 10 * frame


def write_video(path: Path, frames: list[int], gop: int) -> None:
    """Encode one grey picture for each number; LeRobot has a key frame every second picture."""
    path.parent.mkdir(parents=True)
    # The steps in brightness would be key frames of their own.
    options = {"g": str(gop), "sc_threshold": "1000000000"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for value in frames:
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a data set of three episodes in two data files and one video, as LeRobot 0.6 lays it out."""
    root = tmp_path / "v3"
    rows: list[dict[str, Any]] = []
    episodes: list[dict[str, Any]] = []
    for number, length in enumerate(LENGTHS):
        first = len(rows)
        for frame in range(length):
            state = [float(number), float(frame), 0.0, 0.0, 0.0, 0.0]
            rows.append(
                {
                    "observation.state": state,
                    "action": state,
                    "timestamp": frame / FPS,
                    "frame_index": frame,
                    "episode_index": number,
                    "index": first + frame,
                    "task_index": number % 2,
                }
            )
        stats = {
            "min": [0.0],
            "max": [1.0],
            "mean": [0.5],
            "std": [0.1],
            "count": [length],
            "q01": [0.0],
        }
        episodes.append(
            {
                "episode_index": number,
                "tasks": [("pick", "place")[number % 2]],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": int(number == 2),
                "dataset_from_index": first,
                "dataset_to_index": first + length,
                f"videos/{CAMERA}/chunk_index": 0,
                f"videos/{CAMERA}/file_index": 0,
                f"videos/{CAMERA}/from_timestamp": first / FPS,
                f"videos/{CAMERA}/to_timestamp": (first + length) / FPS,
            }
            | {f"stats/action/{name}": value for name, value in stats.items()}
        )
    cut = LENGTHS[0] + LENGTHS[1]
    newer = {b"huggingface": b'{"info": {"features": {"action": {"_type": "List"}}}}'}
    for number, part in enumerate((rows[:cut], rows[cut:])):
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part).replace_schema_metadata(newer), path)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(episodes[::-1]), root / "meta/episodes/chunk-000/file-000.parquet"
    )
    tasks = [
        {"task_index": 0, "__index_level_0__": "pick"},
        {"task_index": 1, "__index_level_0__": "place"},
    ]
    pq.write_table(pa.Table.from_pylist(tasks), root / "meta/tasks.parquet")
    pictures = [grey(number, frame) for number, n in enumerate(LENGTHS) for frame in range(n)]
    write_video(
        root / f"videos/{CAMERA}/chunk-000/file-000.mp4", pictures, getattr(request, "param", 2)
    )
    information = {
        "codebase_version": "v3.0",
        "robot_type": "so_follower",
        "fps": FPS,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [6]},
            "action": {"dtype": "float32", "shape": [6]},
            CAMERA: {"dtype": "video", "shape": [48, 64, 3]},
        },
    }
    (root / "meta/info.json").write_text(json.dumps(information))
    return root


def lines(path: Path) -> list[Any]:
    """Return what a file of JSON lines holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list[tuple[float, float]]:
    """Return each picture's time and brightness."""
    with av.open(str(path)) as container:
        return [
            (float(frame.pts * frame.time_base), float(frame.to_ndarray(format="rgb24").mean()))
            for frame in container.decode(video=0)
        ]


def test_each_episode_has_its_rows(source: Path, tmp_path: Path) -> None:
    """One file for each episode, its own rows in their order, without metadata of newer versions."""
    assert to_v21.convert(source, tmp_path / "v2") == 3
    for number, length in enumerate(LENGTHS):
        table = pq.read_table(tmp_path / f"v2/data/chunk-000/episode_{number:06d}.parquet")
        assert not table.schema.metadata
        states = [row["observation.state"][:2] for row in table.to_pylist()]
        assert states == [[number, frame] for frame in range(length)]


def test_each_episode_has_its_frames_from_zero(source: Path, tmp_path: Path) -> None:
    """The frame at t belongs to the row at t: times begin at zero and none is another episode's."""
    to_v21.convert(source, tmp_path / "v2")
    for number, length in enumerate(LENGTHS):
        video = tmp_path / f"v2/videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4"
        found = frames_of(video)
        assert [round(time * FPS, 2) for time, _ in found] == list(range(length))
        for frame, (_, brightness) in enumerate(found):
            assert brightness == pytest.approx(grey(number, frame), abs=4)


def test_meta_is_that_of_the_older_version(source: Path, tmp_path: Path) -> None:
    """Tasks, lengths, statistics and layout, as LeRobot's loader for 2.1 looks for them."""
    to_v21.convert(source, tmp_path / "v2")
    meta = tmp_path / "v2/meta"
    assert lines(meta / "tasks.jsonl") == [
        {"task_index": 0, "task": "pick"},
        {"task_index": 1, "task": "place"},
    ]
    assert [
        (e["episode_index"], e["tasks"], e["length"]) for e in lines(meta / "episodes.jsonl")
    ] == [
        (0, ["pick"], 4),
        (1, ["place"], 6),
        (2, ["pick"], 3),
    ]
    assert lines(meta / "episodes_stats.jsonl")[1] == {
        "episode_index": 1,
        "stats": {
            "action": {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [6]}
        },
    }
    information = json.loads((meta / "info.json").read_text())
    assert information["codebase_version"] == "v2.1"
    counted = (
        "total_episodes",
        "total_frames",
        "total_tasks",
        "total_videos",
        "total_chunks",
        "fps",
    )
    assert [information[key] for key in counted] == [3, 13, 2, 3, 1, 30]
    assert information["features"][CAMERA]["dtype"] == "video"


def test_features_can_be_left_out(source: Path, tmp_path: Path) -> None:
    """A camera that is dropped leaves no video and no entry; a column no column."""
    to_v21.convert(source, tmp_path / "v2", drop=[CAMERA, "action"])
    assert not (tmp_path / "v2/videos").exists()
    assert json.loads((tmp_path / "v2/meta/info.json").read_text())["video_path"] is None
    table = pq.read_table(tmp_path / "v2/data/chunk-000/episode_000000.parquet")
    assert "action" not in table.column_names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codebase_version": "v2.1"}, "of version v2.1, expected v3.0"),
        ({"fps": 30}, r"no feature \['depth'\]"),
    ],
)
def test_another_data_set_is_refused(source: Path, tmp_path: Path, change: Any, says: str) -> None:
    """The version, and what there is, are said; nothing is left behind."""
    path = source / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(to_v21.Wrong, match=says):
        to_v21.convert(source, tmp_path / "v2", drop=["depth"])
    assert not (tmp_path / "v2").exists()


@pytest.mark.parametrize("source", [50], indirect=True)
def test_a_video_that_cannot_be_cut_is_refused(source: Path, tmp_path: Path) -> None:
    """Without a key frame where an episode begins a copy would show another frame; nothing is left behind."""
    with pytest.raises(to_v21.Wrong, match=r"no key frame at 0\.133 s"):
        to_v21.convert(source, tmp_path / "v2")
    assert not (tmp_path / "v2").exists()


def test_a_missing_row_is_noticed(source: Path, tmp_path: Path) -> None:
    """A data file that does not fit its index is refused."""
    path = source / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(to_v21.Wrong, match="episode 2: expected 3 rows of it, got 2"):
        to_v21.convert(source, tmp_path / "v2")


def test_nothing_is_overwritten(source: Path, tmp_path: Path) -> None:
    """A folder that is there stays as it is, and the command line says so in a line."""
    (tmp_path / "v2").mkdir()
    command = [
        sys.executable,
        str(fake_openpi.FOLDER / "to_v21.py"),
        str(source),
        str(tmp_path / "v2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("to_v21: ")
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "v2").iterdir())


def test_command_line_says_what_it_made(source: Path, tmp_path: Path) -> None:
    """One line: how many episodes, and where."""
    target = tmp_path / "v2"
    command = [sys.executable, str(fake_openpi.FOLDER / "to_v21.py"), str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"to_v21: 3 episodes in {target}\n"
