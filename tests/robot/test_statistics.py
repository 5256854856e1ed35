# SPDX-License-Identifier: Apache-2.0
"""How a run went, in a file of its own or in LeRobot's."""

from __future__ import annotations

import json
from pathlib import Path

from pi05_websocket.robot.statistics import RunStatistics, quantiles
from pi05_websocket.robot.trace import Trace


def a_run(path: Path) -> RunStatistics:
    """Return the statistics of a short run."""
    statistics = RunStatistics(path)
    trace = Trace(None, listeners=[statistics])
    trace.write("episode", episode=1)
    trace.write("tick", source="hold", cause="first_chunk")
    for round_trip in (30.0, 20.0, 40.0):
        trace.write("exchange", round_trip_ms=round_trip, server_ms=10.0, outcome="ACCEPTED")
        trace.write("tick", source="chunk")
    trace.write("exchange", round_trip_ms=900.0, outcome="TOO_OLD")
    trace.write("outage", cause="gone", error="ConnectionLost")
    return statistics


def test_figures_go_into_a_file_of_their_own(tmp_path: Path):
    """Folders are made; closing twice writes once."""
    path = tmp_path / "deep" / "summary.json"
    statistics = a_run(path)
    statistics.close()
    written = path.read_text()
    path.unlink()
    statistics.close()

    assert not path.exists()
    assert json.loads(written) == {
        "remote_policy": {
            "episodes": 1,
            "ticks": 4,
            "held_ticks": 1,
            "held_by_cause": {"first_chunk": 1},
            "outages": 1,
            "exchanges": {"accepted": 3, "too_old": 1},
            "round_trip_ms": {"p50": 40.0, "p99": 900.0, "max": 900.0},
            "infer_ms": {"p50": 10.0, "p99": 10.0, "max": 10.0},
        }
    }
    assert repr(statistics) == "<RunStatistics summary.json 4 ticks>"


def test_figures_go_into_lerobots_file(tmp_path: Path):
    """What is there stays."""
    path = tmp_path / "eval_info.json"
    path.write_text(json.dumps({"overall": {"pc_success": 100.0}}))

    a_run(path).close()

    found = json.loads(path.read_text())
    assert found["overall"] == {"pc_success": 100.0}
    assert found["remote_policy"]["held_ticks"] == 1


def test_something_else_is_not_overwritten(tmp_path: Path, caplog):
    """A warning, and the file as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("not JSON")

    a_run(path).close()

    assert path.read_text() == "not JSON"
    assert "is left as it is" in caplog.text


def test_quantiles_of_nothing():
    """None, not zeros."""
    assert quantiles([]) is None
