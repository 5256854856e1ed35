# SPDX-License-Identifier: Apache-2.0
"""A folder of recordings stays within its bound, and nothing but our own files is ever deleted."""

from __future__ import annotations

import contextlib
import os
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

SEGMENTS = st.builds(
    StoredSegment,
    path=st.uuids().map(lambda name: Path(str(name))),
    nbytes=st.integers(0, 100),
    modified_ns=st.integers(0, 9),
    being_written=st.booleans(),
)


@given(st.lists(SEGMENTS), st.integers(0, 100), st.integers(0, 300))
def test_the_oldest_go_and_no_more_than_must(stored: list[StoredSegment], room: int, most: int):
    """What is left fits, and would not with the last one that went; what is being written stays."""
    gone = surplus(stored, room, most)

    finished = [segment for segment in stored if not segment.being_written]
    open_bytes = sum(max(one.nbytes, most // 8) for one in stored if one.being_written)
    if gone is None:
        assert open_bytes + room > most
        return
    in_order = sorted(finished, key=lambda segment: segment.modified_ns)
    assert gone == [segment.path for segment in in_order[: len(gone)]]
    left = open_bytes + room + sum(segment.nbytes for segment in in_order[len(gone) :])
    assert left <= most
    if gone:
        assert left + in_order[len(gone) - 1].nbytes > most


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

    with ring.next_segment(ring.segment_bytes) as first:
        names = [segment.path.name for segment in segments_of(tmp_path)]
        assert names == ["0002.mcap", "0003.mcap", "0001.mcap"]
        first.write(bytes(900_000))
    with ring.next_segment(90_000) as second:
        assert [Path(file.name).name for file in (first, second)] == ["0001.mcap", "0002.mcap"]

    assert not old.exists()
    assert (tmp_path / "other" / "0001.mcap").exists()
    assert (tmp_path / "notes.txt").exists()
    assert repr(ring) == f"<Ring {ring.run.name} segment 2>"


def test_what_another_run_writes_stays_and_what_was_written_longest_ago_goes(tmp_path: Path):
    """Whichever run began first; once it is closed it is as old as its last byte."""
    older, newer = Ring(tmp_path, LEAST_BYTES), Ring(tmp_path, LEAST_BYTES)
    finished = older.next_segment(older.segment_bytes)
    with finished:
        finished.write(bytes(125_000))
    os.utime(finished.name, ns=(0, 0))
    with older.next_segment(older.segment_bytes) as growing:
        for number in range(1, 11):
            with newer.next_segment(newer.segment_bytes) as file:
                file.write(bytes(125_000))
            os.utime(file.name, ns=(number, number))
        names = [
            (one.path.parent, one.path.name, one.being_written) for one in segments_of(tmp_path)
        ]
        kept = [(newer.run, f"{number:04d}.mcap", False) for number in range(4, 11)]
        assert names == [(older.run, "0002.mcap", True), *kept]
        growing.write(bytes(125_000))
    os.utime(growing.name, ns=(0, 0))
    newer.next_segment(newer.segment_bytes).close()

    assert not Path(growing.name).exists()


def test_a_run_goes_on_in_a_folder_that_another_removed(tmp_path: Path):
    """Its numbers too; and a name that is taken is passed over."""
    older, newer = Ring(tmp_path, LEAST_BYTES), Ring(tmp_path, LEAST_BYTES)
    with older.next_segment(older.segment_bytes) as file:
        file.write(bytes(900_000))
    newer.next_segment(900_000).close()
    assert not older.run.exists()

    older.next_segment(older.segment_bytes).close()
    (older.run / "0003.mcap").touch()
    with older.next_segment(older.segment_bytes) as file:
        assert Path(file.name) == older.run / "0004.mcap"


def test_the_bound_holds_whoever_is_writing(tmp_path: Path):
    """Whose segment does not fit any more gets none, and nothing is deleted for it."""
    rings = [Ring(tmp_path, LEAST_BYTES) for _ in range(9)]
    with rings[0].next_segment(rings[0].segment_bytes) as file:
        file.write(bytes(10))
    with contextlib.ExitStack() as others:
        for ring in rings[1:8]:
            others.enter_context(ring.next_segment(ring.segment_bytes))
        assert Path(file.name).exists()
        with pytest.raises(OSError, match="7 other recordings are being written in"):
            rings[8].next_segment(2 * rings[8].segment_bytes)
        assert Path(file.name).exists()
        assert not list(rings[8].run.iterdir())
        rings[8].next_segment(rings[8].segment_bytes).close()
        assert not Path(file.name).exists()
    with pytest.raises(OSError, match="expected room for 1000001 bytes more"):
        rings[8].next_segment(LEAST_BYTES + 1)


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path):
    """Nothing is overwritten."""
    assert len({Ring(tmp_path, LEAST_BYTES).run for _ in range(4)}) == 4


def test_segments_come_in_the_order_they_were_written(tmp_path: Path):
    """Also after the ten thousandth; a file with a run's name is none."""
    (tmp_path / "20250101-000000").touch()
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
