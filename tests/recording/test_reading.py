# SPDX-License-Identifier: Apache-2.0
"""Files that are whole, cut off anywhere, damaged, or something else."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.recording.reading import McapFile
from pi05_websocket.recording.recorder import Recorder

pytest.importorskip("mcap")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Record two hundred ticks and three exchanges; return the file."""
    folder = tmp_path_factory.mktemp("whole")
    recorder = Recorder(folder, {"url": "ws://x"})
    for tick in range(200):
        facts = {"tick": tick, "episode": 1, "source": "chunk", "seq": 0, "row": tick}
        recorder("tick", {**facts, "values": [0.5 * tick] * 6})
        if tick % 80 == 5:
            image = np.full((20, 20, 3), tick, np.uint8)
            recorder("request", {"seq": tick, "observation": {"i": image}, "quality": None})
            recorder("reply", {"seq": tick, "value": {"actions": np.full((2, 6), tick)}})
    recorder.close()
    (path,) = recorder.folder.glob("*.mcap")
    return path.read_bytes()


def read(path: Path, content: bytes) -> tuple[list[int], bool]:
    """Return the ticks in a file with this content, and whether it had a proper end."""
    path.write_bytes(content)
    recording = open_recording(path)
    ticks = [line["tick"] for line in recording.lines() if line["kind"] == "tick"]
    return ticks, not recording.cut_off


def test_the_projects_own_reader_agrees(whole: bytes):
    """What mcap's reader finds by the index is what is there."""
    from mcap.reader import make_reader

    reader = make_reader(io.BytesIO(whole))
    summary = reader.get_summary()
    counts = {
        summary.channels[number].topic: count
        for number, count in summary.statistics.channel_message_counts.items()
    }

    assert counts["/tick"] == 200
    assert counts["/request"] == counts["/reply"] == counts["/camera/i"] == 3


def test_a_file_cut_off_anywhere_is_read_up_to_there(whole: bytes, tmp_path: Path):
    """Ticks in order from the first on, more of them the more of the file there is."""
    ticks, is_whole = read(tmp_path / "a.mcap", whole)
    assert ticks == list(range(200))
    assert is_whole
    before = 0
    for cut in (0, 5, *range(8, len(whole), 97)):
        ticks, is_whole = read(tmp_path / "a.mcap", whole[:cut])
        assert ticks == list(range(len(ticks)))
        assert len(ticks) >= before
        assert not is_whole
        before = len(ticks)
    assert before == 200


def test_damaged_files_end_in_what_is_good_of_them(whole: bytes, tmp_path: Path):
    """A thousand files with changed bytes: no other error than ours, no tick that was not written."""
    rng = random.Random(0)
    for _ in range(1000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            ticks, _ = read(tmp_path / "a.mcap", bytes(content))
        except ConfigError:
            continue
        assert set(ticks) <= set(range(200))


@pytest.mark.parametrize("content", [b"RIFF", b"\x93NUMPY" + bytes(200)])
def test_something_else_is_told(content: bytes, tmp_path: Path):
    """By what was expected."""
    path = tmp_path / "a.mcap"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="expected a recording in MCAP"):
        list(open_recording(path).lines())


def test_a_chunk_that_would_fill_the_memory_is_not_unpacked(tmp_path: Path):
    """A hundred bytes that claim a terabyte end the reading there."""
    from mcap.data_stream import RecordBuilder
    from mcap.records import Chunk, Header

    builder = RecordBuilder()
    Header(profile="", library="x").write(builder)
    # A zstd frame's header: single segment, eight bytes of content size.
    bomb = b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + bytes(20)
    for compression in ("zstd", ""):
        Chunk(compression, bomb, 0, 0, 0, 2**40).write(builder)
    path = tmp_path / "a.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + builder.end())

    file = McapFile(path)

    assert list(file.entries()) == []
    assert not file.whole


def test_other_packing_is_told(tmp_path: Path):
    """With what unpacks it."""
    from mcap.data_stream import RecordBuilder
    from mcap.records import Chunk

    builder = RecordBuilder()
    Chunk("lz4", b"x", 0, 0, 0, 1).write(builder)
    path = tmp_path / "a.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + builder.end())

    with pytest.raises(ConfigError, match="lz4"):
        list(McapFile(path).entries())


def test_what_is_no_recording_is_told(tmp_path: Path):
    """A folder without files, and nothing at all."""
    with pytest.raises(ConfigError, match=r"--policy\.record=DIR"):
        open_recording(tmp_path)
    with pytest.raises(ConfigError, match="no such recording"):
        open_recording(tmp_path / "gone")


def test_the_newest_run_of_a_folder_is_taken(tmp_path: Path):
    """A run's own folder names that run."""
    for number in (1, 2):
        recorder = Recorder(tmp_path, {"number": str(number)})
        recorder("episode", {"episode": number})
        recorder.close()
    runs = sorted(tmp_path.iterdir())

    newest, oldest = open_recording(tmp_path), open_recording(runs[0])

    assert [line["episode"] for line in newest.lines()] == [2]
    assert [line["episode"] for line in oldest.lines()] == [1]
    assert oldest.settings["number"] == "1"
    assert repr(oldest).startswith("<Recording 20")
