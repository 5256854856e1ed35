# SPDX-License-Identifier: Apache-2.0
"""What the trainer's record and the data set say of a checkpoint; nothing where they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lerobot

from lerobot_policy_pi05_websocket.serving_metadata import Origin  # noqa: E402
from lerobot_policy_pi05_websocket.serving_origin import origin_of  # noqa: E402

JOINTS = ["shoulder_pan.pos", "gripper.pos"]


def recorded(folder: Path, training: Any, data_set: Any) -> Path:
    """Write the two files; return the trainer's."""
    info = folder / "data" / "meta" / "info.json"
    info.parent.mkdir(parents=True)
    info.write_text(data_set if isinstance(data_set, str) else json.dumps(data_set))
    file = folder / "train_config.json"
    file.write_text(training if isinstance(training, str) else json.dumps(training))
    return file


def test_names_and_rate_are_the_data_sets(tmp_path: Path) -> None:
    """Where it still lies, it says what the numbers are and how many come in a second."""
    features = {"observation.state": {"names": JOINTS}, "action": {"names": JOINTS[::-1]}}
    training = {"dataset": {"root": str(tmp_path / "data"), "repo_id": "me/cubes"}}
    file = recorded(tmp_path, training, {"fps": 30, "features": features})
    assert origin_of(file, "0f") == Origin(
        weights="0f",
        state_names=tuple(JOINTS),
        action_names=tuple(JOINTS[::-1]),
        control_hz=30.0,
    )


def test_names_in_a_map_are_taken_in_its_order(tmp_path: Path) -> None:
    """As older data sets have them."""
    features = {"action": {"names": {"motors": JOINTS}}}
    training = {"dataset": {"root": str(tmp_path / "data")}}
    file = recorded(tmp_path, training, {"features": features})
    assert origin_of(file, None) == Origin(action_names=tuple(JOINTS))


@pytest.mark.parametrize(
    ("training", "data_set"),
    [
        ({}, {"fps": 30}),
        ({"dataset": None}, {"fps": 30}),
        ({"dataset": {"root": None, "repo_id": "nobody/has-this"}}, {"fps": 30}),
        ({"dataset": {"root": "."}}, {"fps": 30}),
        ([], {"fps": 30}),
        ({"dataset": {"root": "DATA"}}, {"fps": None, "features": {"action": {"names": None}}}),
        ({"dataset": {"root": "DATA"}}, {"fps": "fast", "features": None}),
    ],
)
def test_what_is_not_written_is_not_known(tmp_path: Path, training: Any, data_set: Any) -> None:
    """No record, no data set, or one that does not say."""
    written = json.loads(json.dumps(training).replace("DATA", str(tmp_path / "data")))
    file = recorded(tmp_path, written, data_set)
    assert origin_of(file, "0f") == Origin(weights="0f")
    assert origin_of(None, "0f") == Origin(weights="0f")


def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint is served all the same: it only says less."""
    file = recorded(tmp_path, '{"dataset": ', {})
    assert origin_of(file, None) == Origin()
    assert "train_config.json: not read, so its names are not announced" in caplog.text
