# SPDX-License-Identifier: Apache-2.0
"""Metrics and the Rerun view: real libraries, fed by a real player."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.metrics import RobotMetrics
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.rerun_view import RerunView
from pi05_websocket.robot.trace import Trace
from pi05_websocket.testing import FakeClock, ScriptedPolicy

has_metrics = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None, reason="needs the extra metrics"
)
has_view = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="needs the extra view"
)


@pytest.fixture
def metrics() -> Iterator[RobotMetrics]:
    """Serve metrics on a free port."""
    served = RobotMetrics(0)
    yield served
    served.close()


def play(trace: Trace) -> None:
    """Let a player hold twice, take a chunk, run out and lose its server."""
    clock = FakeClock()
    policy = ScriptedPolicy(clock)
    player = ActionPlayer(policy, PlayerConfig(), trace=trace, clock=clock)
    player.start_episode()
    pose = np.zeros(2, np.float32)
    for tick in range(6):
        player.collect(tick)
        player.ask(tick, dict)
        if tick == 1:
            policy.exchanges[0].answer(np.ones((3, 2), np.float32))
        if tick == 4:
            policy.exchanges[-1].answer(np.full((3, 2), np.nan, np.float32))
        player.act(tick, pose)
        clock.sleep(1 / 30)


def scrape(metrics: RobotMetrics) -> dict[str, float]:
    """Return what a Prometheus server would read."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


@has_metrics
def test_metrics_count_what_happened(metrics: RobotMetrics):
    """Ticks by source, held ticks, exchanges, bytes, outages and the round trip are there to be scraped."""
    play(Trace(None, listeners=[metrics]))

    samples = scrape(metrics)

    assert samples['pi05_ticks_total{source="chunk"}'] == 3
    assert samples['pi05_ticks_total{source="hold"}'] == 3
    held = [value for name, value in samples.items() if name.startswith("pi05_held_ticks_total")]
    assert sum(held) == 3
    assert samples['pi05_exchanges_total{outcome="accepted"}'] == 1
    assert samples["pi05_round_trip_seconds_count"] == 1
    assert samples['pi05_outages_total{error="InvalidReply"}'] == 1
    assert samples["pi05_episodes_total"] == 1


@has_metrics
def test_metrics_count_who_answered(metrics: RobotMetrics):
    """Of several servers each has its count; a single one has no name."""
    for server in ("ws://a", "ws://b", "ws://b"):
        metrics("exchange", {"round_trip_ms": 1.0, "server": server})

    samples = scrape(metrics)

    assert samples['pi05_answers_total{server="ws://a"}'] == 1
    assert samples['pi05_answers_total{server="ws://b"}'] == 2


@has_metrics
def test_a_taken_port_says_so(metrics: RobotMetrics):
    """Before the arm moves, with the setting's name."""
    with pytest.raises(ConfigError, match="metrics_port"):
        RobotMetrics(metrics.port)


@has_view
def test_the_view_draws_chunks_commands_and_causes(tmp_path: Path):
    """The recording holds every entity the module promises."""
    import rerun

    out = tmp_path / "run.rrd"
    view = RerunView(save=out)
    play(Trace(None, listeners=[view]))
    view.close()
    rerun.disconnect()

    written = out.read_bytes()
    for entity in ("pi05/command", "pi05/chunk/", "pi05/delay", "pi05/held", "pi05/log"):
        assert entity.encode() in written


@pytest.mark.parametrize(
    ("module", "make"), [("prometheus_client", lambda: RobotMetrics(0)), ("rerun", RerunView)]
)
def test_a_missing_library_says_what_to_install(
    module: str, make: Any, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is imported that was not asked for, and the error names the extra."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError, match="pip install"):
        make()


def test_a_listener_that_fails_does_not_stop_the_arm(caplog: pytest.LogCaptureFixture):
    """It is told nothing more, and the log says why."""
    told: list[str] = []

    def broken(kind: str, facts: dict[str, Any]) -> None:
        told.append(kind)
        raise RuntimeError("no display")

    trace = Trace(None, listeners=[broken])
    trace.write("tick")
    trace.write("tick")

    assert told == ["tick"]
    assert "no display" in caplog.text
