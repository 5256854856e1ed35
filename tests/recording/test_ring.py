# SPDX-License-Identifier: Apache-2.0
"""A folder of recordings stays within its bound, and nothing but our own files is ever deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.ring import (
    LEAST_BYTES,
    Ring,
    StoredSegment,
    segment_bytes,
    segments_of,
    surplus,
)


@given(st.lists(st.integers(0, 100)), st.integers(0, 100), st.integers(0, 300))
def test_the_oldest_go_and_no_more_than_must(sizes: list[int], room: int, most: int):
    """What is left fits with the room; with the last one that went it would not."""
    stored = [StoredSegment(Path(str(i)), size) for i, size in enumerate(sizes)]

    gone = surplus(stored, room, most)

    assert gone == [segment.path for segment in stored[: len(gone)]]
    left = sum(sizes[len(gone) :]) + room
    assert left <= most or len(gone) == len(stored)
    if gone:
        assert left + sizes[len(gone) - 1] > most


@pytest.mark.parametrize(
    ("most", "expected"), [(LEAST_BYTES, 125_000), (2_000_000_000, 32_000_000)]
)
def test_several_segments_share_the_bound(most: int, expected: int):
    """So that little is lost when the oldest goes."""
    assert segment_bytes(most) == expected


def test_segments_are_numbered_and_old_runs_go(tmp_path: Path):
    """A run that has lost its last segment goes too; what others put there stays."""
    old = tmp_path / "20200101-000000"
    old.mkdir()
    for number in range(1, 4):
        (old / f"000{number}.mcap").write_bytes(bytes(400_000))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0001.mcap").write_bytes(bytes(900_000))
    ring = Ring(tmp_path, 1_000_000)

    first = ring.next_segment(ring.segment_bytes)
    assert [s.path.name for s in segments_of(tmp_path)] == ["0002.mcap", "0003.mcap"]
    first.write_bytes(bytes(900_000))
    second = ring.next_segment(90_000)

    assert (first.name, second.name) == ("0001.mcap", "0002.mcap")
    assert not old.exists()
    assert (tmp_path / "other" / "0001.mcap").exists()
    assert (tmp_path / "notes.txt").exists()
    assert repr(ring) == f"<Ring {ring.run.name} segment 2>"


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path):
    """Nothing is overwritten."""
    assert len({Ring(tmp_path, LEAST_BYTES).run for _ in range(4)}) == 4


def test_segments_come_in_the_order_they_were_written(tmp_path: Path):
    """Also after the ten thousandth."""
    run = tmp_path / "20260101-000000"
    run.mkdir()
    for name in ("10000.mcap", "9999.mcap", "0001.mcap", "explain.png"):
        (run / name).touch()

    names = [segment.path.name for segment in segments_of(tmp_path)]

    assert names == ["0001.mcap", "9999.mcap", "10000.mcap"]


def test_what_cannot_be_is_refused(tmp_path: Path):
    """Before the arm moves, with the setting's name."""
    with pytest.raises(ConfigError, match="record_max_bytes=10: expected 1000000"):
        Ring(tmp_path, 10)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="record="):
        Ring(tmp_path / "file", LEAST_BYTES)
