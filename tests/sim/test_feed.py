# SPDX-License-Identifier: Apache-2.0
"""Frames through a file: the newest one, whole, in any process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.feed import FeedReader, FrameFeed, NoFrames

SHAPE = (5, 4, 3)


def frame(value: int) -> np.ndarray:
    """Return a frame of one value."""
    return np.full(SHAPE, value, np.uint8)


@pytest.fixture
def feed(tmp_path: Path) -> FrameFeed:
    """Return a feed without frames."""
    return FrameFeed(tmp_path / "deep" / "a.frames", SHAPE)


@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=12))
def test_the_newest_frame_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    """With its number and its time, however many came before."""
    feed = FrameFeed(tmp_path_factory.mktemp("feed") / "a.frames", SHAPE)
    reader = FeedReader(feed.path)
    for count, value in enumerate(values, 1):
        feed.write(frame(value), taken_s=count / 2)
        seen, number, taken_s = reader.read()
        assert (seen == value).all()
        assert (seen.shape, number, taken_s) == (SHAPE, count, count / 2)
    reader.close()


def test_a_frame_is_a_copy(feed: FrameFeed) -> None:
    """It stays what it was when others follow."""
    feed.write(frame(1))
    seen = FeedReader(feed.path).read()[0]
    for value in range(2, 9):
        feed.write(frame(value))
    assert (seen == 1).all()


def test_nothing_yet(feed: FrameFeed) -> None:
    """Before the first frame it says so."""
    reader = FeedReader(feed.path)
    assert reader.newest == 0
    with pytest.raises(NoFrames, match="no frame yet"):
        reader.read()
    assert "newest=0" in repr(reader)
    assert "frames=0" in repr(feed)


def test_frames_of_another_shape_are_refused(feed: FrameFeed) -> None:
    """The file has room for one shape."""
    with pytest.raises(ConfigError, match=r"\(5, 4, 3\)"):
        feed.write(np.zeros((4, 5, 3), np.uint8))


@pytest.mark.parametrize(
    "content", [b"", b"JFIF" * 100, b"pi05cam1", b"pi05cam1" + bytes(100)], ids=range(4)
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever is in them."""
    path = tmp_path / "a.frames"
    path.write_bytes(content)
    with pytest.raises(NoFrames, match="no camera frames"):
        FeedReader(path)


def test_no_file_is_told(feed: FrameFeed) -> None:
    """A feed that was closed leaves none; its readers keep what they have."""
    feed.write(frame(3))
    reader = FeedReader(feed.path)
    feed.close()
    feed.close()
    assert (reader.read()[0] == 3).all()
    with pytest.raises(NoFrames, match="is the emulated arm running"):
        FeedReader(feed.path)


def test_a_damaged_file_is_told(feed: FrameFeed) -> None:
    """A frame that never becomes whole is not waited for."""
    feed.write(frame(3))
    content = bytearray(feed.path.read_bytes())
    content[32 + 1 * (16 + 60)] ^= 1  # the stamp of frame 1
    feed.path.write_bytes(content)
    with pytest.raises(NoFrames, match="no whole frame"):
        FeedReader(feed.path).read()


def test_frames_are_whole_while_others_are_written(feed: FrameFeed) -> None:
    """Never half of one frame and half of the next."""
    stop = threading.Event()

    def write() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 256
            feed.write(frame(value))

    feed.write(frame(0))
    writer = threading.Thread(target=write)
    writer.start()
    reader = FeedReader(feed.path)
    mixed = [len(np.unique(reader.read()[0])) for _ in range(300)]
    stop.set()
    writer.join()
    assert set(mixed) == {1}


def test_another_process_reads_it(feed: FrameFeed) -> None:
    """The file is all they share."""
    feed.write(frame(42))
    program = (
        "import sys; from pathlib import Path; from pi05_websocket.sim.feed import FeedReader;"
        "sys.exit(int(FeedReader(Path(sys.argv[1])).read()[0].max()))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(feed.path)]).returncode == 42
