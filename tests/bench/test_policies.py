# SPDX-License-Identifier: Apache-2.0
"""A policy under measurement: asked as by a server, in virtual time, with noise that repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import continuing_policy
import pytest
from continuing_policy import ContinuingPolicy

from pi05_websocket.bench.cells import Cell
from pi05_websocket.bench.episodes import Bench
from pi05_websocket.bench.links import LINKS
from pi05_websocket.bench.policies import MeasuredPolicy
from pi05_websocket.cli import main
from pi05_websocket.errors import ConfigError

pytestmark = pytest.mark.sim  # the expert and the arm


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> ContinuingPolicy:
    """The policy that `continuing_policy:THE_POLICY` loads."""
    made = ContinuingPolicy()
    monkeypatch.setattr(continuing_policy, "THE_POLICY", made, raising=False)
    return made


@pytest.fixture
def measured(policy: ContinuingPolicy) -> MeasuredPolicy:
    """It, as the benchmark sees it."""
    return MeasuredPolicy("continuing_policy:THE_POLICY")


@pytest.fixture
def bench(measured: MeasuredPolicy) -> Iterator[Bench]:
    """One arm that it drives."""
    with Bench("cube", policy=measured) as arm:
        yield arm


def cell(seam: str, link: str = "wan") -> Cell:
    """Return a cell of ours."""
    name = "continuing"
    return Cell(task="cube", horizon=50, link=LINKS[link], rule="ours", seam=seam, policy=name)


def test_the_expert_is_one_of_them():
    """It cannot continue a chunk, and wants the preset's images."""
    expert = MeasuredPolicy("expert")

    assert (expert.name, expert.action_horizon, expert.conditions) == ("expert", 50, False)
    assert expert.key_map().cameras["realsense"].fit == "raw"
    assert expert.key_map("jpeg").cameras["realsense"].size == "224x224"
    assert expert.key_map("jpeg").cameras["wrist2"] == expert.key_map().cameras["wrist2"]
    assert repr(expert) == "<MeasuredPolicy expert conditions=False>"


def test_a_policy_says_its_name_its_rows_and_its_images(measured: MeasuredPolicy):
    """What it does not say is as the preset has it."""
    cameras = measured.key_map().cameras

    assert (measured.name, measured.action_horizon, measured.conditions) == ("continuing", 50, True)
    assert (cameras["realsense"].fit, cameras["realsense"].size) == ("crop", "24x32")
    assert cameras["wrist2"].size == "224x224"


def test_a_policy_that_does_not_say_its_rows_is_refused():
    """Half of an unknown number cannot be executed."""
    with pytest.raises(ConfigError, match="no action_horizon"):
        MeasuredPolicy("continuing_policy:Silent")


def test_the_leftover_reaches_the_policy_and_its_rows_are_played(
    bench: Bench, policy: ContinuingPolicy
):
    """What is still to be executed is sent in virtual time, and the arm goes on along it without a step."""
    episode = bench.run(cell("rtc", link="5g"), 3)

    first, *others = policy.requests
    assert len(first[0].leftover) == 0
    assert len(others) == episode.requests - 1 > 5
    assert {len(request.leftover) for request, *_ in others[1:]} <= set(range(20, 50))
    assert {infer_ms for *_, infer_ms in policy.requests} == {50.0}
    assert {queue_ms for _, queue_ms, _ in policy.requests} == {0.0}
    # Half of a round trip without the inference: 15 ms of way, half of the 107 ms that the bytes take.
    assert 75 < others[-1][0].age_ms < 200
    assert policy.images == {(24, 32, 3)}
    assert max(episode.seam_jumps) < 0.01


@pytest.mark.parametrize("seam", ["blend", "replace"])
def test_other_seams_send_no_leftover(bench: Bench, policy: ContinuingPolicy, seam: str):
    """Then the server sees what a stock one would."""
    bench.run(cell(seam), 3)

    assert policy.requests == []
    assert policy.images == {(24, 32, 3)}


def test_noise_is_that_of_the_seed_and_the_request(bench: Bench, policy: ContinuingPolicy):
    """The same for every rule, another one for every episode."""
    for seam in ("rtc", "blend"):
        policy.seeds.clear()
        bench.run(cell(seam), 7)
        assert policy.seeds == list(range(70_000, 70_000 + len(policy.seeds)))
    assert policy.resets == 2


def test_the_command_measures_a_policy_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: ContinuingPolicy
):
    """Beside the expert, for which rtc is n/a."""
    words = [
        "--policy",
        "continuing_policy:THE_POLICY",
        "expert",
        "--episodes",
        "1",
        "--tasks",
        "cube",
    ]
    ours = ["--links", "local", "--rules", "ours", "--seams", "blend", "rtc", "--processes", "1"]
    ours += ["--images", "raw"]

    assert main(["bench", "latency", *words, *ours, "--out", str(tmp_path)]) == 0

    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [(f["policy"], f["seam"]) for f in found] == [
        ("continuing", "blend"),
        ("continuing", "rtc"),
        ("expert", "blend"),
    ]
    assert "| continuing: ours, rtc | 0%" in printed
    assert "| expert: ours, rtc | n/a |" in printed
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "success.png",
        "success-continuing.png",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "expert", "expert"], "two policies are called 'expert'"),
        (["--horizons", "60"], "a chunk of expert has 50 rows"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Before the first episode."""
    assert main(["bench", "latency", *words, "--out", str(tmp_path)]) != 0
    assert says in capsys.readouterr().err
