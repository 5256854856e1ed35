# SPDX-License-Identifier: Apache-2.0
"""A recording's answers, served again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.recorder import Recorder
from pi05_websocket.server.loading import load_policy
from pi05_websocket.server.recorded import RecordedPolicy, is_recording, load_recorded

FIRST, SECOND = np.array([[1, 1], [2, 2]], np.float32), np.array([[3, 3]], np.float32)
ANSWERS = [(FIRST, 0.25), (SECOND, 0.5)]


def rows(policy: RecordedPolicy, replies: int) -> list[list[int]]:
    """Return the first column of the next replies."""
    return [[int(row[0]) for row in policy.infer({})["actions"]] for _ in range(replies)]


def test_answers_come_in_their_order_and_the_last_row_is_held():
    """Each as long as it was; `reset` begins anew."""
    policy = RecordedPolicy(ANSWERS)

    assert rows(policy, 4) == [[1, 2], [3], [3], [3]]
    policy.reset()
    assert rows(policy, 1) == [[1, 2]]
    assert repr(policy) == "<RecordedPolicy recording next=1 of 2>"


def test_looped_and_in_its_own_time():
    """It takes as long as it took then."""
    slept: list[float] = []
    policy = RecordedPolicy(ANSWERS, loop=True, timing=True, sleep=slept.append)

    assert rows(policy, 3) == [[1, 2], [3], [1, 2]]
    assert slept == [0.25, 0.5, 0.25]


def test_what_a_client_does_to_an_answer_changes_no_other():
    """The recording stays what it was."""
    policy = RecordedPolicy(ANSWERS, loop=True)
    policy.infer({})["actions"][:] = 9

    assert rows(policy, 2) == [[3], [1, 2]]


def test_nothing_answered_is_told():
    """There is nothing to serve."""
    with pytest.raises(ConfigError, match="at least one answered request"):
        RecordedPolicy([])


def test_a_recording_is_told_from_a_file_of_actions(tmp_path: Path):
    """By its name, or because it is a folder."""
    assert is_recording("run/0001.mcap?loop")
    assert is_recording(f"{tmp_path}?loop")
    assert not is_recording("wave.npz")
    assert not is_recording("wave?loop")


def test_a_recording_is_served_by_its_folder(tmp_path: Path):
    """As `serve --policy replay:FOLDER` loads it."""
    pytest.importorskip("mcap")
    recorder = Recorder(tmp_path, {})
    for seq, (actions, _) in enumerate(ANSWERS):
        recorder("request", {"seq": seq, "observation": {}, "quality": None})
        recorder("reply", {"seq": seq, "value": {"actions": actions}})
    recorder("request", {"seq": 2, "observation": {}, "quality": None})
    recorder("reply", {"seq": 2, "value": {"actions": np.full((1, 2), np.nan)}})
    recorder.close()

    policy = load_policy(f"replay:{tmp_path}?loop&timing=false")

    assert isinstance(policy, RecordedPolicy)
    assert rows(policy, 3) == [[1, 2], [3], [1, 2]]
    with pytest.raises(ConfigError, match="unknown option 'speed'"):
        load_recorded(f"{tmp_path}?speed=2")
