# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket tune` against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.cli import main
from pi05_websocket.cli.tune import TuneCommand, sample_observation
from pi05_websocket.presets import PRESETS, preset
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.wire.realtime import RealtimeSupport, announcement


class Still:
    """Answers every observation with 50 rows of six zeros."""

    def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
        """Return the chunk."""
        return {"actions": np.zeros((50, 6), np.float32)}


@pytest.fixture
def server() -> Iterator[WebsocketPolicyServer]:
    """Serve 50 rows of six joints, announcing RTC."""
    with WebsocketPolicyServer(Still(), port=0, metadata=announcement(RealtimeSupport())) as served:
        yield served


def test_measures_and_recommends(
    server: WebsocketPolicyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """It prints what was measured, a setting a line with its reason, and words to paste."""
    out = tmp_path / "network.json"

    code = main(["tune", "--url", server.url, "--seconds", "0.3", "--json", str(out)])

    printed = capsys.readouterr().out
    facts = json.loads(out.read_text())
    assert code == 0
    assert "replies of 50 rows" in printed
    assert "--policy.action_horizon=25" in printed
    assert "--policy.seam=rtc" in printed
    assert facts["rows"] == 50
    assert facts["ping_ms"] is not None
    assert len(facts["round_trips_ms"]) >= 1


def test_a_server_that_does_not_condition(capsys: pytest.CaptureFixture[str]):
    """It announces what it does with deadlines; chunks that do not follow each other are blended."""
    metadata = announcement(RealtimeSupport(prefix="none", refusals=True))
    with WebsocketPolicyServer(Still(), port=0, metadata=metadata) as server:
        assert main(["tune", "--url", server.url, "--seconds", "0.2"]) == 0

    assert "--policy.seam=blend" in capsys.readouterr().out


def test_no_time_is_refused(capsys: pytest.CaptureFixture[str]):
    """Settings are checked before anything is dialled."""
    assert main(["tune", "--seconds", "0"]) == 2
    assert "more than 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_sampled(name: str):
    """A made-up observation fits each key map."""
    observation = sample_observation(preset(name), TuneCommand())

    assert observation
