# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run and report; what they measure is the machine's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.openpi

ROUND_TRIP = Path(__file__).parents[2] / "benchmarks" / "round_trip.py"
RELAY = ROUND_TRIP.parent / "relay.py"


def test_round_trip_reports_every_pairing(tmp_path: Path) -> None:
    """A short run prints the table and writes all figures."""
    file = tmp_path / "figures.json"
    command = [
        sys.executable,
        str(ROUND_TRIP),
        "--rounds",
        "2",
        "--calls",
        "3",
        "--json",
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = json.loads(file.read_text())
    assert len(figures["pairings"]) == 5
    for name, values in figures["pairings"].items():
        assert name in done.stdout
        assert set(values) == {"p50_ms", "p99_ms", "over_floor", "stock_over_this"}
        assert all(value > 0 for value in values.values())
    assert figures["pairings"]["raw TCP"]["over_floor"] == 1
    assert figures["pairings"]["stock / stock"]["stock_over_this"] == 1
    assert figures["machine"]["commit"]


def test_relay_reports_every_part(tmp_path: Path) -> None:
    """A short run of round trip and throughput prints its tables and writes all figures."""
    file = tmp_path / "figures.json"
    words = ["--rounds", "1", "--calls", "2", "--seconds", "0.2", "--clients", "2", "--parts"]
    command = [sys.executable, str(RELAY), *words, "round trip", "throughput", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = json.loads(file.read_text())
    assert len(figures["round trip"]) == 8
    assert len(figures["throughput"]) == 10
    for name, values in (figures["round trip"] | figures["throughput"]).items():
        assert name in done.stdout
        assert values["p50_ms"] > 20
    assert figures["round trip"]["stock, 49 KB, direct"]["more_than_direct_ms"] == 0
    assert figures["throughput"]["ours, 1.07 MB, 2 clients, gateway, two"]["of_capacity"] > 0
    assert figures["request_bytes"]["1.07 MB"] > 1_070_000
    assert figures["machine"]["commit"]


def test_help_teaches() -> None:
    """`--help` says what is compared with what."""
    command = [sys.executable, str(ROUND_TRIP), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for word in ("ours", "stock", "raw", "--rounds", "--json", "examples:"):
        assert word in done.stdout
