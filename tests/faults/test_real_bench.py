# SPDX-License-Identifier: Apache-2.0
"""Episodes on the machine's clock, over real sockets, and the command that compares them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pi05_websocket.bench.cells import Cell
from pi05_websocket.bench.links import LINKS
from pi05_websocket.bench.real import Charged, RealBench, connect
from pi05_websocket.cli import main
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.sim.expert import ExpertPolicy

pytestmark = pytest.mark.sim

WORDS = ["bench", "real", "--messages", "5", "--tasks", "belt", "--links", "lan", "--peer-links"]


@pytest.mark.parametrize(("rule", "seam"), [("ours", "blend"), ("openpi", "replace")])
def test_an_episode_over_a_real_connection(rule: str, seam: str):
    """The arm does its task, and what real time adds is told."""
    cell = Cell(task="cube", horizon=50, link=LINKS["local"], rule=rule, seam=seam)  # type: ignore[arg-type]
    server = WebsocketPolicyServer(Charged(ExpertPolicy()), port=0)
    with server, connect(server.url) as policy, RealBench(policy) as bench:
        episode = bench.run(cell, 0)

    assert episode.success
    assert episode.requests == len(episode.tick_to_send_ms) >= 2
    assert min(episode.round_trips_ms) >= 50
    assert all(0 < took < 1000 for took in episode.infer_ms)
    assert all(wait > 0 for wait in episode.tick_to_send_ms)
    assert episode.row_jumps > 0
    assert "ExpertPolicy" in repr(Charged(ExpertPolicy()))


def test_the_command_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One episode through the proxy; what is there is not run again, and never mixed with another kind."""
    words = [*WORDS, "--link-kind", "proxy", "--episodes", "1", "--out", str(tmp_path)]

    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    again = capsys.readouterr().out

    assert "1 links, 1 episodes; modelled loss" in first
    assert "1 links, 0 episodes" in again
    assert "| belt/50/lan/ours/blend | 1/1" in again
    facts = json.loads((tmp_path / "real.json").read_text())
    assert facts["commit"]
    assert [found["kind"] for found in facts["cells"]] == ["modelled loss"]
    assert facts["cells"][0]["agrees"]
    assert facts["round_trips"]["lan"]["kind"] == "modelled loss"
    assert "lan (1 ms)" in (tmp_path / "real.md").read_text()
    known = facts["round_trips"]
    known["lan"]["kind"] = "kernel TCP over TUN, bbr"
    (tmp_path / "round_trips.json").write_text(json.dumps(known))
    assert main([*words, "--episodes", "2"]) == 2
    assert "take another --out" in capsys.readouterr().err


def test_round_trips_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Without episodes there is one table."""
    words = [*WORDS, "--link-kind", "proxy", "--episodes", "0", "--out", str(tmp_path)]

    assert main(words) == 0

    printed = capsys.readouterr().out
    assert "lan (1 ms)" in printed
    assert "verdict" not in printed


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["--nonsense"], 2), (["--messages", "1"], 2)]
)
def test_wrong_words_are_refused(words: list[str], code: int, capsys: pytest.CaptureFixture[str]):
    """By the parser, or with the numbers that were expected."""
    assert main(["bench", "real", *words]) == code
    captured = capsys.readouterr()
    assert captured.out + captured.err
