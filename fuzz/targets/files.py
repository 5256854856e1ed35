# SPDX-License-Identifier: Apache-2.0
"""Files somebody handed over: recordings for `serve --policy replay:FILE`, and the options behind them."""

from __future__ import annotations

import importlib
import importlib.util
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fuzz.mutation import of_words
from fuzz.target import Broken, Target
from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.recording.recorder import Recorder
from pi05_websocket.recording.story import tell
from pi05_websocket.recording.words import as_dict, sentences
from pi05_websocket.server.replay import load_replay

__all__ = ["TARGETS"]

_FOLDER: Final = tempfile.TemporaryDirectory(prefix="pi05-fuzz-")
_MOST_BYTES: Final = 4 * 1024 * 1024


def _file(data: bytes) -> str:
    return _loaded(data, "")


def _options(data: bytes) -> str:
    return _loaded(_RECORDING, "?" + data.decode("utf-8", "replace"))


def _loaded(data: bytes, query: str) -> str:
    path = Path(_FOLDER.name) / "wave"
    path.write_bytes(data)
    try:
        policy = load_replay(f"{path}{query}")
    except ConfigError:
        return "ConfigError"
    for _ in range(3):
        actions = policy.infer({})["actions"]
        if actions.dtype != np.float32 or actions.ndim != 2 or not np.isfinite(actions).all():
            raise Broken(f"rows no arm may execute: {actions}")
    return f"{actions.ndim}"


def _saved(*arrays: npt.NDArray[Any], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    if len(arrays) == 1:
        np.save(file, arrays[0])
    else:
        save = np.savez_compressed if compressed else np.savez
        save(file, actions=arrays[0], other=arrays[1])
    return file.getvalue()


_RECORDING: Final = _saved(np.arange(12, dtype=np.float32).reshape(2, 6))


def _files() -> Iterator[bytes]:
    rows = np.arange(12, dtype=np.float64).reshape(2, 6)
    yield _RECORDING
    yield _saved(rows.reshape(1, 2, 6))
    yield _saved(rows, rows)
    yield _saved(rows.astype(np.int16), rows, compressed=True)
    yield _saved(np.array(["a", "b"]))
    yield _saved(np.asfortranarray(rows))
    yield _saved(np.full((2, 6), 1e300))


_FILE_WORDS: Final = (
    b"\x93NUMPY", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"{'descr': '", b"<f4", b"|O", b"<M8[s]",
    b"'shape': (", b"), ", b"99999999999", b"-1", b"True", b"'fortran_order': ", b"PK\x03\x04",
    b"PK\x01\x02", b"PK\x05\x06", b"\x08\x00", b"\x01\x00", b"\x63\x00", b"\x0e\x00", b"\x0c\x00",
    b"actions.npy", b"\n", b"(" * 300, b"L", b"'", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x04",
)  # fmt: skip
_OPTION_WORDS: Final = (
    b"loop", b"=", b"&", b"action_horizon", b"advance", b"1", b"-1", b"0", b"25", b"%00", b"+", b"true",
    b"no", b"9" * 30, b"1_0", b"\xd9\xa1", b";", b"%", b"&" * 50, b"9" * 4400,
)  # fmt: skip


def _recording(data: bytes) -> str:
    path = Path(_FOLDER.name) / "0001.mcap"
    path.write_bytes(data)
    recording = open_recording(path)
    try:
        story = tell(recording.lines())
        ticks = len(story.ticks)
        told = sentences(story)
        as_dict(story)
        answered = list(recording.answered())
    except ConfigError:
        return "ConfigError"
    if not all(line.isprintable() for line in told):
        raise Broken(f"not for a terminal: {told}")
    for one in answered:
        if one.actions.ndim != 2 or not np.isfinite(one.actions).all():
            raise Broken(f"rows no arm may execute: {one.actions}")
    return f"{min(ticks, 3)} ticks, {min(len(answered), 3)} answers, cut off: {recording.cut_off}"


def _plain(recording: bytes) -> bytes:
    """Return it neither packed nor with checksums: so that mutations reach what is in it."""
    writer_module = importlib.import_module("mcap.writer")
    file = io.BytesIO()
    writer = writer_module.Writer(
        file, compression=writer_module.CompressionType.NONE, enable_crcs=False
    )
    writer.start()
    channels: dict[str, int] = {}
    reader = importlib.import_module("mcap.reader").make_reader(io.BytesIO(recording))
    for _, channel, message in reader.iter_messages():
        if channel.topic not in channels:
            encoding = channel.message_encoding
            channels[channel.topic] = writer.register_channel(channel.topic, encoding, 0)
        number = channels[channel.topic]
        writer.add_message(number, message.log_time, message.data, 0, message.sequence)
    writer.finish()
    return file.getvalue()


def _recordings() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="pi05-fuzz-") as folder:
        recorder = Recorder(folder, {"joint_names": "a b"})
        for number in range(3):
            facts = {"tick": number, "episode": 1, "source": "chunk", "seq": 0, "row": number}
            recorder("tick", {**facts, "values": [0.5, number]})
            recorder("request", {"seq": number, "observation": {"x": number}, "quality": None})
            recorder("reply", {"seq": number, "value": {"actions": np.ones((2, 2))}})
        recorder("outage", {"cause": "the cable", "error": "ConnectionLost"})
        recorder("exchange", {"seq": 2, "round_trip_ms": 20.0, "server_ms": 9.0})
        held = {"episode": 1, "source": "hold", "seq": -1, "row": -1, "cause": "link_down"}
        for number in range(3, 9):
            recorder("tick", {"tick": number, **held, "values": [1.0 + 50 * (number == 8), 2.0]})
        recorder("failed", {"seq": 3, "tick": 5, "error": "ConnectionLost", "cause": "the cable"})
        recorder("state", {"state": "stop", "latched": True, "cause": "link_down"})
        recorder.close()
        (path,) = recorder.folder.glob("*.mcap")
        whole = path.read_bytes()
    yield whole
    yield _plain(whole)
    yield whole[: len(whole) // 2]
    yield whole[:8]


_RECORDING_WORDS: Final = (
    b"\x89MCAP0\r\n", b"\x01", b"\x03", b"\x04", b"\x05", b"\x06", b"\x0f", b"\x02", b"zstd", b"lz4", b"json",
    b"\x00" * 8, b"\xff" * 8, b"\x28\xb5\x2f\xfd", b"/tick", b"/request", b"/reply", b"pi05_websocket", b"null",
    b'"x"', b"[1]", b"{}", b"1e999", b"-1", b'"kind":"tick"', b'"values":', b'"time_s":', b'"tick":', b"hold",
)  # fmt: skip

_WITH_MCAP: Final = (
    (
        Target(
            name="recording",
            check=_recording,
            seeds=_recordings,
            mutate=of_words(_RECORDING_WORDS),
            # A packed chunk may grow to 256 MB; who reads a recording chose the file.
            most_memory=None,
        ),
    )
    if importlib.util.find_spec("mcap")
    else ()
)
"""The base install has no mcap."""

TARGETS: Final = (
    *_WITH_MCAP,
    Target(
        name="replay_file",
        check=_file,
        seeds=_files,
        mutate=of_words(_FILE_WORDS),
        # numpy makes room for what a file's header says before it reads on; who starts a server chose the file.
        most_memory=None,
    ),
    Target(
        name="replay_options",
        check=_options,
        seeds=lambda: (b"loop&action_horizon=25&advance=10", b"loop=false", b"", b"x=1"),
        mutate=of_words(_OPTION_WORDS),
        most_memory=lambda size: _MOST_BYTES + 256 * size,
    ),
)
