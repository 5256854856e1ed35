# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself: real episodes of the simulated arm, the real player, the command."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.bench import runner
from pi05_websocket.bench.cells import Cell
from pi05_websocket.bench.episodes import Bench, velocity_jumps
from pi05_websocket.bench.links import LINKS, Link, make_link
from pi05_websocket.bench.runner import Store, run
from pi05_websocket.bench.virtual import VirtualPolicy
from pi05_websocket.cli import main
from pi05_websocket.client.image_quality import ImageQuality
from pi05_websocket.errors import DeadlineExceeded
from pi05_websocket.testing import FakeClock

pytestmark = pytest.mark.sim


CLEAN = make_link("wan", loss=0.0)
"""200 ms and its jitter, without loss."""


def cell(
    rule: str,
    link: str | Link = "wan",
    seam: str = "replace",
    horizon: int = 50,
    task: str = "belt",
) -> Cell:
    """Return a cell, of the belt if not said otherwise."""
    network = LINKS[link] if isinstance(link, str) else link
    return Cell(task=task, horizon=horizon, link=network, rule=rule, seam=seam)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One arm at the belt."""
    with Bench("belt") as arm:
        yield arm


def test_ours_neither_stops_nor_steps_at_200_ms(bench: Bench):
    """The aim, for a few seeds: picked up, no held tick, seams no rougher than the plan itself."""
    for seed in range(3):
        episode = bench.run(cell("ours", CLEAN, seam="blend"), seed)

        assert episode.success
        assert episode.held_ticks == 0
        assert episode.requests >= 3
        assert len(episode.round_trips_ms) == episode.requests
        assert min(episode.round_trips_ms) > 250
        assert max(episode.seam_jumps) <= 1.2 * episode.row_jumps


def test_ours_does_not_step_where_segments_are_lost(bench: Bench):
    """At 1 % a reply may come after the last row: a hold, but no jump and no failure."""
    for seed in range(3):
        episode = bench.run(cell("ours", seam="blend"), seed)

        assert episode.success
        assert episode.held_ticks < 0.3 * episode.ticks
        assert max(episode.seam_jumps) <= 1.2 * episode.row_jumps


@pytest.mark.parametrize("rule", ["openpi", "lerobot", "lerobot-rtc"])
def test_peers_are_driven_by_their_own_rules(bench: Bench, rule: str):
    """The blocking ones hold at every chunk; the queue engine does not, and steps."""
    episode = bench.run(cell(rule), 0)

    assert episode.ticks > 0
    if rule == "lerobot-rtc":
        assert max(episode.seam_jumps) > episode.row_jumps
    else:
        assert episode.held_ticks > 5


def test_an_arm_that_never_moves_has_failed(bench: Bench):
    """Chunks shorter than the latency leave LeRobot's engine at rest; the episode ends all the same."""
    episode = bench.run(cell("lerobot-rtc", link="far", horizon=10), 0)

    assert not episode.success
    assert episode.ticks == 0
    assert episode.reaction_s is None


def test_a_moved_cube_is_followed():
    """The reaction counts from its being moved: at least a round trip, at most two chunks."""
    with Bench("moved") as bench:
        here, far = (
            [bench.run(cell("ours", link, "blend", task="moved"), seed) for seed in range(3)]
            for link in ("local", "5g")
        )

    assert all(episode.success for episode in here)
    reactions = [[episode.reaction_s or 0.0 for episode in episodes] for episodes in (here, far)]
    assert all(0.05 < reaction < 1.7 for reaction in reactions[0] + reactions[1])
    assert sum(reactions[0]) < sum(reactions[1])


def test_the_same_seed_gives_the_same_episode(bench: Bench):
    """Virtual time repeats to the last digit."""
    assert bench.run(cell("ours", seam="blend"), 5) == bench.run(cell("ours", seam="blend"), 5)


def test_without_distance_a_reply_is_there_at_once(bench: Bench):
    """A peer that asks on this machine still waits for the inference, and no longer."""
    episode = bench.run(cell("openpi", link="local"), 0)

    assert episode.success
    assert 0 < episode.held_ticks < 15


def test_a_virtual_exchange_is_done_when_its_time_has_come():
    """Not before, and a result asked for too early says so."""
    clock = FakeClock()
    rows = np.zeros((4, 6), np.float32)
    policy = VirtualPolicy(lambda *_: {"actions": rows}, LINKS["local"], clock, seed=0)
    exchange = policy.submit({})

    with pytest.raises(DeadlineExceeded):
        exchange.result(0)
    assert not exchange.done()
    assert exchange.late().args
    assert "VirtualExchange" in repr(exchange)
    clock.sleep(0.06)

    assert exchange.done()
    assert exchange.age() == pytest.approx(0.06)
    assert exchange.result(0).value["actions"] is rows
    assert policy.unavailable() is None


def test_a_virtual_server_does_one_thing_after_the_other():
    """The second of two requests waits for the first; the policy is told how long, and its `_rt` comes back."""
    clock, waited = FakeClock(), list[float]()

    def infer(_: object, queue_ms: float) -> dict[str, object]:
        waited.append(queue_ms)
        return {"actions": np.zeros((4, 6), np.float32), "_rt": {"seq": len(waited)}}

    policy = VirtualPolicy(infer, LINKS["local"], clock, seed=0, metadata={"_rt": {}})
    first, second = policy.submit({}), policy.submit({})
    clock.sleep(0.2)

    # Both came at the same moment but for the first one's bytes, 0.86 ms at 10 Gbit/s.
    assert waited == [0.0, pytest.approx(50.0 - 0.86, abs=0.01)]
    assert second.arrives_at - first.arrives_at == pytest.approx(0.05)
    assert second.result(0).value["_rt"] == {"seq": 2}
    assert second.result(0).value["server_timing"] == {"infer_ms": 50.0}
    assert policy.metadata == {"_rt": {}}


def test_images_as_jpeg_are_encoded_charged_and_seen(bench: Bench):
    """The policy sees what is left of them; the arm picks up all the same, and sooner has its answers."""
    raw = bench.run(cell("ours", CLEAN, seam="blend"), 0)
    jpeg = bench.run(replace(cell("ours", CLEAN, seam="blend"), images="jpeg"), 0)

    assert jpeg.success
    assert jpeg.cell == f"{raw.cell}/jpeg"
    assert np.median(jpeg.round_trips_ms) < np.median(raw.round_trips_ms) - 50


def test_a_virtual_robot_decides_about_its_images_as_a_real_one():
    """Far away it begins small; what it learns from its exchanges it uses."""
    clock, seen = FakeClock(), list[dict[str, Any]]()
    image = np.zeros((480, 640, 3), np.uint8)

    def infer(observation: dict[str, Any], _: float) -> dict[str, Any]:
        seen.append(observation)
        return {"actions": np.zeros((4, 6), np.float32)}

    link = make_link("wan", loss=0.0, jitter_ms=0.0)
    policy = VirtualPolicy(infer, link, clock, seed=0, images=ImageQuality("jpeg"))
    qualities = []
    for _ in range(30):
        exchange = policy.submit({"image": image})
        qualities.append(exchange.quality)
        assert exchange.nbytes < 14_480
        clock.sleep(0.8)

    assert qualities[0] == 75
    assert qualities[-1] == 95
    np.testing.assert_array_equal(seen[0]["image"], image, strict=True)
    assert policy.exchanges[0].network_s == pytest.approx(0.2, abs=0.01)


def test_velocity_jumps():
    """The fastest-changing joint counts; two commands have none."""
    assert velocity_jumps(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 3.0]])) == [3.0]
    assert velocity_jumps(np.zeros((2, 2))) == []


def test_several_processes_give_the_same_episodes(tmp_path: Path):
    """Which process runs an episode changes nothing."""
    wanted = {cell("ours", seam="blend"): 2}
    alone = Store(tmp_path / "alone.jsonl")
    together = Store(tmp_path / "together.jsonl")

    list(run(wanted, alone, processes=1))
    list(run(wanted, together, processes=2))

    assert alone.episodes == together.episodes


def test_a_process_is_quiet_polite_and_single_threaded(monkeypatch: pytest.MonkeyPatch):
    """Renderer and linear algebra keep to one thread, and the machine stays usable."""
    niceness: list[int] = []
    monkeypatch.setattr(os, "nice", niceness.append)
    monkeypatch.setenv("LP_NUM_THREADS", "8")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MUJOCO_GL"):
        monkeypatch.setenv(name, os.environ.get(name, "egl"))
    interrupt = signal.getsignal(signal.SIGINT)
    level = logging.root.manager.disable
    try:
        runner._prepare()

        assert os.environ["LP_NUM_THREADS"] == "1"
        assert niceness == [10]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, interrupt)
        logging.disable(level)


def test_an_interrupted_run_goes_on(tmp_path: Path):
    """What is in the file is not run again, and half a line at its end does no harm."""
    store = Store(tmp_path / "episodes.jsonl")
    wanted = {cell("ours", seam="blend"): 2}
    first = list(run(wanted, store, processes=1))
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"cell": "belt')

    again = Store(tmp_path / "episodes.jsonl")

    assert len(first) == 2
    assert "2 episodes" in repr(again)
    assert list(run(wanted, again, processes=1)) == []
    assert again.of(cell("ours", seam="blend"), 2) == sorted(first, key=lambda e: e.seed)


def test_the_command_writes_table_plot_and_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One episode of two cells."""
    words = ["--episodes", "1", "--tasks", "belt", "--links", "local", "wan", "--rules", "ours"]
    words += ["--images", "raw"]

    code = main(["bench", "latency", *words, "--processes", "1", "--out", str(tmp_path)])

    printed = capsys.readouterr()
    facts = json.loads((tmp_path / "results.json").read_text())
    assert code == 0
    assert "| ours, blend |" in printed.out
    assert "of local (aim 98%" in printed.out
    assert "2/2 episodes" in printed.err
    assert [found["link"] for found in facts["cells"]] == ["local", "wan"]
    assert (tmp_path / "success.png").exists()
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["speed"], 2)])
def test_bench_tells_what_it_measures(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
):
    """The overview names the benchmark there is."""
    assert main(["bench", *words]) == code
    captured = capsys.readouterr()
    assert "latency" in captured.out + captured.err
