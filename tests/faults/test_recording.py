# SPDX-License-Identifier: Apache-2.0
"""Recordings of runs in which something breaks: the link is cut, the process is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from driven_arm import Wire

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.recording.recorder import Recorder
from pi05_websocket.recording.story import Story, tell
from pi05_websocket.recording.words import sentences
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.runtime import Runtime
from pi05_websocket.robot.trace import Trace
from pi05_websocket.server import WebsocketPolicyServer

pytest.importorskip("mcap")
pytestmark = pytest.mark.faults


class Arm:
    """Is where it was commanded."""

    def __init__(self) -> None:
        self.joints = np.zeros(6, np.float32)

    def get_observation(self) -> RobotReading:
        """Return two images and the joints."""
        images = {
            "wrist2": np.zeros((224, 224, 3), np.uint8),
            "realsense": np.zeros((480, 640, 3), np.uint8),
        }
        return RobotReading(images, self.joints)

    def send_action(self, values: np.ndarray, /) -> None:
        """Go there."""
        self.joints = np.array(values, np.float32)


class Onwards:
    """Twenty rows onwards, or what breaks instead."""

    def __init__(self) -> None:
        self.fails = False

    def infer(self, observation: dict) -> dict:
        """Answer."""
        if self.fails:
            raise ValueError("out of memory")
        state = np.asarray(observation["observation/state"], np.float32)
        return {"actions": state + np.arange(20)[:, None].astype(np.float32)}


def run(policy: Onwards, folder: Path, after: dict[float, str], seconds: float) -> Story:
    """Drive an arm over a link; break and mend at these seconds; return what the recording tells."""
    key_map: KeyMap = preset("so101")
    with WebsocketPolicyServer(policy, "127.0.0.1", 0) as server:
        link = Wire(server.port)
        what = {
            "cut": lambda: link.fail(broken=True),
            "mend": lambda: link.fail(broken=False),
            "fail": lambda: setattr(policy, "fails", True),
            "work": lambda: setattr(policy, "fails", False),
        }
        timers = [threading.Timer(at, what[name]) for at, name in after.items()]
        config = ConnectionConfig(
            url=f"ws://127.0.0.1:{link.port}", backoff_first=0.05, backoff_max=0.1
        )
        recorder = Recorder(folder, {})
        with RemotePolicy(config=config, wait_for_server=5) as remote:
            trace = Trace(None, listeners=[recorder])
            runtime = Runtime(Arm(), remote, key_map, PlayerConfig(), task="go", trace=trace)
            for timer in timers:
                timer.start()
            runtime.run(seconds)
        recorder.close()
        link.close()
    return tell(open_recording(folder).lines())


def test_explain_names_the_cut(tmp_path: Path):
    """The arm held because the link was down, came to a stop, and went on by itself."""
    story = run(Onwards(), tmp_path, {1.5: "cut", 4.0: "mend"}, 6.0)

    (pause,) = [pause for pause in story.pauses if pause.main_cause == "link_down"]
    assert 1.0 < pause.seconds < 3.0
    assert pause.before is not None
    assert pause.after is not None
    assert pause.stopped == "stop"
    said = "\n".join(sentences(story))
    assert "link down (" in said
    assert "look at the network between robot and server" in said
    assert story.ticks[-1]["source"] == "chunk"


def test_explain_names_the_servers_error(tmp_path: Path):
    """With the server's own words, and the requests that failed."""
    story = run(Onwards(), tmp_path, {1.0: "fail", 3.0: "work"}, 5.0)

    (pause,) = [pause for pause in story.pauses if pause.main_cause == "server_error"]
    assert any("out of memory" in text for text in pause.said)
    assert {line["error"] for line in story.failed} == {"PolicyError"}
    assert "read the server's log" in "\n".join(sentences(story))


KILLED = """
import sys, time
import numpy as np
from pi05_websocket.recording.recorder import Recorder

recorder = Recorder(sys.argv[1], {"url": "ws://x"})
image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
for tick in range(100000):
    facts = {"tick": tick, "episode": 1, "source": "chunk", "seq": 0, "row": 0, "values": [0.0] * 6}
    recorder("tick", facts)
    if tick % 30 == 0:
        recorder("request", {"seq": tick, "observation": {"image": image}, "quality": None})
        recorder("reply", {"seq": tick, "value": {"actions": np.zeros((5, 6))}})
    if tick == 600:
        print("running", flush=True)
    time.sleep(0.002)
"""


def test_a_killed_process_leaves_what_it_recorded(tmp_path: Path):
    """A signal 9 in mid-run: all but the last chunk is there, ticks without a gap, requests whole."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        time.sleep(0.2)  # the disk has what was told before
        os.kill(process.pid, signal.SIGKILL)

    recording = open_recording(tmp_path)
    ticks = [line["tick"] for line in recording.lines() if line["kind"] == "tick"]
    assert recording.cut_off
    assert ticks == list(range(len(ticks)))
    assert len(ticks) > 550
    asked = [one.seq for one in recording.answered()]
    assert asked == list(range(0, 30 * len(asked), 30))
    assert len(asked) >= 19
    assert all(one.observation()["image"].shape == (64, 64, 3) for one in recording.answered())


BESIDE = """
import logging, sys, time
import numpy as np
from pi05_websocket.recording.recorder import Recorder

logging.basicConfig(level=logging.WARNING)
recorder = Recorder(sys.argv[1], {}, max_bytes=1_000_000)
noise = np.random.default_rng(0)
print("began", flush=True)
sys.stdin.readline()
for seq in range(60):
    image = noise.integers(0, 256, (100, 200, 3), np.uint8)
    recorder("request", {"seq": seq, "observation": {"image": image}, "quality": None})
    recorder("reply", {"seq": seq, "value": {"actions": np.zeros((5, 6))}})
    while not recorder._queue.empty():
        time.sleep(0.001)
    print("told", flush=True)
    sys.stdin.readline()
recorder.close()
"""


def test_two_processes_record_into_one_folder(tmp_path: Path):
    """Neither ends the other, both have their newest observations, and together they keep the bound."""
    with contextlib.ExitStack() as both:
        processes = [both.enter_context(_beside(tmp_path)) for _ in range(2)]
        for _ in range(61):
            for process in processes:
                assert process.stdout.readline()
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
        assert [process.communicate()[1] for process in processes] == ["", ""]

    runs = sorted(tmp_path.iterdir())
    assert [[one.seq for one in open_recording(run).answered()][-1] for run in runs] == [59, 59]
    assert sum(file.stat().st_size for run in runs for file in run.iterdir()) <= 1_050_000


def _beside(folder: Path) -> subprocess.Popen[str]:
    """Start a process that records 60 observations, each when it is told to."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BESIDE, str(folder)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
