# SPDX-License-Identifier: Apache-2.0
"""Make a LeRobot data set of version 3.0 readable for OpenPI, whose LeRobot reads version 2.1.

In: a data set's folder. Out: another folder, one Parquet file and one video for each episode; nothing is
encoded anew. Needs pyarrow and PyAV, which LeRobot's `dataset` extra brings; neither LeRobot nor the network.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Wrong", "convert", "main"]

CHUNK = 1000
"""Episodes in a folder, as version 2.1 has them."""

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
STATS = ("min", "max", "mean", "std", "count")
"""Version 3.0 has quantiles too."""

Record = dict[str, Any]


class Wrong(ValueError):
    """A data set that cannot be converted, and why."""


def convert(source: Path, target: Path, *, drop: Iterable[str] = ()) -> int:
    """Write the data set in `source` to `target`, which must not exist; return the number of episodes.

    Args:
        source: The folder with `meta/info.json`; it is only read.
        target: The folder to make.
        drop: Features to leave out, such as a depth camera's.

    Raises:
        Wrong: If it is not of version 3.0, or a video cannot be cut at an episode's first frame.
        FileExistsError: If there is something at `target`.
    """
    information = json.loads((source / "meta/info.json").read_text(encoding="utf-8"))
    version = information.get("codebase_version")
    if version != "v3.0":
        raise Wrong(f"{source} is of version {version}, expected v3.0")
    left_out = set(drop)
    if unknown := left_out - set(information["features"]):
        raise Wrong(f"no feature {sorted(unknown)}; there are {sorted(information['features'])}")
    episodes = _rows(source / "meta/episodes")
    episodes.sort(key=lambda episode: episode["episode_index"])
    features = {key: f for key, f in information["features"].items() if key not in left_out}
    videos = [key for key, feature in features.items() if feature["dtype"] == "video"]

    target.mkdir(parents=True)
    try:
        _write_data(source, target, episodes, information["data_path"], left_out)
        for key in videos:
            _write_videos(source, target, episodes, information["video_path"], key)
        _write_meta(source, target, episodes, information, features, videos)
    except BaseException:
        shutil.rmtree(target)  # half a data set looks like a whole one
        raise
    return len(episodes)


def _rows(folder: Path) -> list[Record]:
    return [
        row
        for file in sorted(folder.glob("*/*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


def _write_data(
    source: Path, target: Path, episodes: list[Record], data_path: str, drop: set[str]
) -> None:
    """Write each episode's rows."""
    files: dict[tuple[int, int], list[Record]] = {}
    for episode in episodes:
        place = (episode["data/chunk_index"], episode["data/file_index"])
        files.setdefault(place, []).append(episode)
    for (chunk, number), inside in files.items():
        table = pq.read_table(source / data_path.format(chunk_index=chunk, file_index=number))
        # Metadata for newer versions of `datasets` keep the one OpenPI has from reading the file.
        table = table.drop_columns(sorted(drop & set(table.column_names))).replace_schema_metadata()
        first = min(episode["dataset_from_index"] for episode in inside)
        for episode in inside:
            start, stop = episode["dataset_from_index"], episode["dataset_to_index"]
            rows = table.slice(start - first, stop - start)
            _check_rows(rows, episode)
            path = target / _place(DATA, episode)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, path)


def _check_rows(rows: pa.Table, episode: Record) -> None:
    number = episode["episode_index"]
    found = set(rows.column("episode_index").to_pylist())
    if found != {number} or rows.num_rows != episode["length"]:
        raise Wrong(
            f"episode {number}: expected {episode['length']} rows of it, "
            f"got {rows.num_rows} of episodes {sorted(found)}"
        )


def _place(path: str, episode: Record, key: str = "") -> str:
    number = episode["episode_index"]
    return path.format(episode_chunk=number // CHUNK, episode_index=number, video_key=key)


def _write_videos(
    source: Path, target: Path, episodes: list[Record], video_path: str, key: str
) -> None:
    """Write each episode's part of a camera's video, packet by packet."""
    for episode in episodes:
        here = video_path.format(
            video_key=key,
            chunk_index=episode[f"videos/{key}/chunk_index"],
            file_index=episode[f"videos/{key}/file_index"],
        )
        path = target / _place(VIDEO, episode, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        first = Fraction(episode[f"videos/{key}/from_timestamp"])
        frames = _cut(source / here, path, first, episode["length"])
        if frames != episode["length"]:
            raise Wrong(
                f"{here}, episode {episode['episode_index']}: "
                f"expected {episode['length']} frames, got {frames}"
            )


def _cut(source: Path, target: Path, first: Fraction, length: int) -> int:
    """Copy `length` frames from the one at `first`, in seconds; return how many there were."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        stream = whole.streams.video[0]
        copied = part.add_stream_from_template(stream, opaque=True)  # copied: no encoder is needed
        assert stream.time_base is not None
        start = round(first / stream.time_base)
        half = round(Fraction(1, 2) / stream.average_rate / stream.time_base)
        whole.seek(max(0, start), stream=stream)  # to the key frame at it or before it
        offset = frames = 0
        for packet in whole.demux(stream):
            # Timestamps are rounded to the video's own clock: half a frame decides.
            if packet.pts is None or packet.dts is None or packet.pts < start - half:
                continue
            if frames == 0:
                if not packet.is_keyframe:
                    raise Wrong(
                        f"{source}: no key frame at {float(first):.3f} s, where an episode begins"
                    )
                offset = packet.pts
            packet.pts -= offset
            packet.dts -= offset
            packet.stream = copied
            part.mux(packet)
            frames += 1
            if frames == length:
                break
    return frames


def _write_meta(
    source: Path,
    target: Path,
    episodes: list[Record],
    information: Record,
    features: Record,
    videos: list[str],
) -> None:
    tasks = pq.read_table(source / "meta/tasks.parquet").to_pylist()
    for task in tasks:  # the text is pandas' index, under a name of its own
        (task["task"],) = (value for key, value in task.items() if key != "task_index")
    _write_lines(
        target / "meta/tasks.jsonl",
        ({"task_index": t["task_index"], "task": t["task"]} for t in tasks),
    )
    _write_lines(
        target / "meta/episodes.jsonl",
        ({key: e[key] for key in ("episode_index", "tasks", "length")} for e in episodes),
    )
    _write_lines(
        target / "meta/episodes_stats.jsonl",
        ({"episode_index": e["episode_index"], "stats": _stats(e, features)} for e in episodes),
    )
    old = {
        "codebase_version": "v2.1",
        "robot_type": information.get("robot_type"),
        "total_episodes": len(episodes),
        "total_frames": sum(episode["length"] for episode in episodes),
        "total_tasks": len(tasks),
        "total_videos": len(episodes) * len(videos),
        "total_chunks": -(-len(episodes) // CHUNK),
        "chunks_size": CHUNK,
        "fps": information["fps"],
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA,
        "video_path": VIDEO if videos else None,
        "features": features,
    }
    (target / "meta/info.json").write_text(json.dumps(old, indent=4), encoding="utf-8")


def _stats(episode: Record, features: Record) -> Record:
    return {
        key: {name: episode[f"stats/{key}/{name}"] for name in STATS}
        for key in features
        if f"stats/{key}/mean" in episode
    }


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def main() -> None:
    """Convert the data set named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="the folder with meta/info.json, version 3.0")
    parser.add_argument("target", type=Path, help="the folder to make, version 2.1")
    parser.add_argument("--drop", action="append", default=[], metavar="FEATURE", help="leave out")
    chosen = parser.parse_args()
    try:
        episodes = convert(chosen.source, chosen.target, drop=chosen.drop)
    except (Wrong, OSError) as exc:
        raise SystemExit(f"to_v21: {exc}") from exc
    print(f"to_v21: {episodes} episodes in {chosen.target}")


if __name__ == "__main__":
    main()
