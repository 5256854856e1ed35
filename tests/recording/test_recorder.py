# SPDX-License-Identifier: Apache-2.0
"""A real player recorded to real files, and read back."""

from __future__ import annotations

import logging
import resource
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError, ConnectionLost
from pi05_websocket.recording.contents import Recording, open_recording
from pi05_websocket.recording.recorder import Recorder, settings_of
from pi05_websocket.recording.ring import segments_of
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.trace import Trace
from pi05_websocket.testing import FakeClock, ScriptedPolicy
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images

pytest.importorskip("mcap")

SCENE = (np.mgrid[:48, :64].sum(0)[..., None] * [1, 2, 3] % 256).astype(np.uint8)
OBSERVATION = {"top": SCENE, "state": np.arange(2, dtype=np.float32), "prompt": "pick"}


def played(folder: Path, *, quality: int | None = None, **settings: Any) -> Path:
    """Let a player hold, execute, fail and hold; return the run's folder."""
    recorder = Recorder(folder, {"joint_names": "a b"}, **settings)
    clock = FakeClock()
    policy = ScriptedPolicy(clock)
    policy.metadata = {"model": "pi05", "mean": np.zeros(2)}
    trace = Trace(None, listeners=[recorder])
    player = ActionPlayer(policy, PlayerConfig(), trace=trace, clock=clock)
    player.start_episode()
    buffer = dict(OBSERVATION, top=SCENE.copy())
    for tick in range(24):
        player.collect(tick)
        buffer["top"][:] = SCENE
        player.ask(tick, lambda: buffer)
        buffer["top"][:] = 0  # the robot's camera writes into the same memory
        if tick == 2:
            policy.exchanges[0].answer(np.ones((8, 2), np.float32))
        if tick == 9:
            policy.exchanges[-1].fail(ConnectionLost("the cable"))
        player.act(tick, np.zeros(2, np.float32))
        clock.sleep(1 / 30)
    recorder.close()
    recorder.close()
    return recorder.folder


def lines_of(recording: Recording, kind: str) -> list[dict[str, Any]]:
    """Return the lines of one kind."""
    return [line for line in recording.lines() if line["kind"] == kind]


def test_everything_that_happened_is_there(tmp_path: Path):
    """Ticks, the observation as it was sent, the answer, the failure, the server, the settings."""
    recording = open_recording(played(tmp_path))

    ticks = lines_of(recording, "tick")
    assert [tick["tick"] for tick in ticks] == list(range(24))
    assert {tick["source"] for tick in ticks} == {"chunk", "hold"}
    assert all("cause" in tick for tick in ticks if tick["source"] == "hold")
    (answered,) = recording.answered()
    assert answered.message == codec.encode(OBSERVATION)
    np.testing.assert_array_equal(answered.actions, np.ones((8, 2), np.float32))
    assert lines_of(recording, "exchange")[0]["seq"] == answered.seq == 0
    (failed,) = lines_of(recording, "failed")
    assert (failed["error"], failed["cause"]) == ("ConnectionLost", "the cable")
    assert lines_of(recording, "episode")[0]["episode"] == 1
    assert lines_of(recording, "server")[0]["metadata"] == {"model": "pi05", "mean": [0, 0]}
    assert recording.settings["joint_names"] == "a b"
    assert not recording.cut_off


def test_a_request_of_jpegs_is_kept_as_jpegs(tmp_path: Path):
    """Bit for bit what went out."""
    recorder = Recorder(tmp_path, {})
    recorder("request", {"seq": 5, "observation": OBSERVATION, "quality": 85})
    recorder("reply", {"seq": 5, "value": {"actions": np.zeros((1, 2))}})
    recorder.close()

    (answered,) = open_recording(tmp_path).answered()

    assert answered.message == codec.encode(encode_images(OBSERVATION, 85)[0])
    assert answered.seq == 5


def test_the_folder_stays_within_its_bound_and_every_segment_explains_itself(tmp_path: Path):
    """The newest is there, the oldest is not; settings and server stand in each."""
    recorder = Recorder(tmp_path, {"url": "ws://x"}, max_bytes=1_000_000, queue_bytes=10**9)
    noise = np.random.default_rng(0)
    for seq in range(60):
        image = noise.integers(0, 256, (100, 200, 3), np.uint8)
        facts = {"seq": seq, "observation": {"image": image}, "quality": None, "metadata": {"m": 1}}
        recorder("request", facts)
        recorder("reply", {"seq": seq, "value": {"actions": np.zeros((1, 2))}})
    recorder.close()

    stored = segments_of(tmp_path)
    assert sum(segment.nbytes for segment in stored) <= 1_050_000
    assert len(stored) > 3
    assert [one.seq for one in open_recording(tmp_path).answered()][-1] == 59
    for segment in stored:
        alone = open_recording(segment.path)
        assert lines_of(alone, "server")
        assert alone.settings["url"] == "ws://x"
    assert recorder.lost == 0


def test_a_full_queue_loses_the_newest_counts_and_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The control thread never waits; where something is missing, the recording says how much."""
    recorder = Recorder(tmp_path, {}, queue_bytes=5_000)
    big = {"seq": 0, "observation": {"image": SCENE}, "quality": None}
    with caplog.at_level(logging.WARNING):
        recorder("request", big)
        recorder("request", big)
        recorder("episode", {"episode": 1})
    recorder.close()

    assert recorder.lost == 2
    assert len([r for r in caplog.records if "too slow" in r.message]) == 1
    recording = open_recording(tmp_path)
    assert lines_of(recording, "gap") == [
        {"kind": "gap", "time_s": pytest.approx(lines_of(recording, "episode")[0]["time_s"]), "lost": 2}
    ]  # fmt: skip
    assert "lost=2" in repr(recorder)


def test_a_long_answer_counts_with_its_length(tmp_path: Path) -> None:
    """How long it is the server decides: a slow disk must not let megabytes of them wait."""
    recorder = Recorder(tmp_path, {}, queue_bytes=5_000)
    recorder("reply", {"seq": 1, "value": {"actions": np.zeros((1, 2))}, "nbytes": 5_000})
    recorder("reply", {"seq": 2, "value": {"actions": np.zeros((1, 2))}, "nbytes": 100})
    recorder.close()
    assert recorder.lost == 1
    assert [one.seq for one in open_recording(tmp_path).answered()] == []
    assert recorder.folder.is_dir()


@pytest.fixture
def no_file_above() -> Iterator[Any]:
    """Return a function that lets no file of this process grow above so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda nbytes: resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_recording_and_not_the_motion(
    tmp_path: Path, no_file_above: Any, caplog: pytest.LogCaptureFixture
):
    """Said once; what was written before can be read."""
    recorder = Recorder(tmp_path, {})
    done = threading.Event()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    no_file_above(100_000)
    with caplog.at_level(logging.WARNING):
        for seq in range(20):
            recorder("request", {"seq": seq, "observation": {"image": noise}, "quality": None})
        recorder._thread.join(10)
        recorder("episode", {"episode": 1})
        done.set()
        recorder.close()

    assert not recorder._thread.is_alive()
    assert len([r for r in caplog.records if "the recording ends here" in r.message]) == 1
    recording = open_recording(tmp_path)
    assert sum(1 for _ in recording._entries({"/request"})) >= 5
    assert recording.cut_off


class Held:
    """Metadata that keep the recorder's thread until they are let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __ne__(self, other: object) -> bool:
        self.reached.set()
        self.let_go.wait(10)
        return False


class Word:
    """What a message holds."""


def test_what_waits_for_a_disk_that_is_full_is_let_go(tmp_path: Path, no_file_above: Any):
    """Megabytes may wait; of what comes afterwards nothing is kept."""
    recorder = Recorder(tmp_path, {})
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    held, words = Held(), [Word(), Word()]
    seen = [weakref.ref(word) for word in words]
    no_file_above(1_000)
    facts = {"seq": 1, "observation": {"image": noise}, "quality": None, "metadata": held}
    recorder("request", facts)
    recorder("episode", {"word": words.pop()})
    held.let_go.set()
    recorder._thread.join(10)
    recorder("episode", {"word": words.pop()})

    assert not recorder._thread.is_alive()
    assert [word() for word in seen] == [None, None]
    recorder.close()


def test_what_comes_after_the_end_is_not_kept(tmp_path: Path):
    """Also while the last of it is being written."""
    recorder = Recorder(tmp_path, {})
    held, word = Held(), Word()
    seen = weakref.ref(word)
    facts = {"seq": 1, "observation": {"image": SCENE}, "quality": None, "metadata": held}
    recorder("request", facts)
    held.reached.wait(10)
    closing = threading.Thread(target=recorder.close)
    closing.start()
    while recorder._queue.empty():
        pass
    recorder("episode", {"word": word})
    del word
    held.let_go.set()
    closing.join(10)

    assert seen() is None


def test_an_observation_that_cannot_be_recorded_ends_the_listening_alone(tmp_path: Path):
    """As with every listener of the trace: the arm goes on."""
    recorder = Recorder(tmp_path, {})
    trace = Trace(None, listeners=[recorder])

    trace.show("request", seq=0, observation={"x": object()}, quality=None)
    trace.show("episode", episode=1)
    recorder.close()

    assert not list(tmp_path.glob("*/*.mcap"))


def test_a_missing_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before the arm moves."""
    monkeypatch.setitem(sys.modules, "mcap.writer", None)

    with pytest.raises(ConfigError, match=r"\[record\]"):
        Recorder(tmp_path, {})


def test_settings_in_words():
    """What says nothing is left out."""

    @dataclass
    class Config:
        url: str = "ws://x"
        key: str | None = None
        name: str = ""
        hz: float = 30.0

    assert settings_of(Config(), joints="a") == {"url": "ws://x", "hz": "30.0", "joints": "a"}
