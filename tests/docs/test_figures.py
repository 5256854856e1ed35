# SPDX-License-Identifier: Apache-2.0
"""Measured figures become tables: what a benchmark wrote, in the readers' words."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
from documents import ROOT


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """Import scripts/figures.py, which lies outside any package."""
    spec = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_round_trip_table(figures: ModuleType) -> None:
    """Each pairing is a row, and machine and commit stand below."""
    pairing = {"p50_ms": 1.234, "p99_ms": 5.0, "over_floor": 2.0, "stock_over_this": 1.5}
    measured = {
        "request_bytes": 1072395,
        "rounds": 20,
        "calls": 25,
        "machine": {"cpu": "2 x Example", "python": "3.12.1", "commit": "abc1234"},
        "pairings": dict.fromkeys(figures.PAIRINGS, pairing),
    }

    lines = figures.round_trip(measured).splitlines()

    assert lines[2] == "| this project / this project | 1.23 ms | 5.00 ms | 1.50 x as long |"
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(figures.PAIRINGS)
    assert "1.07 MB there" in lines[-2]
    assert "2 x Example" in lines[-1]
    assert "commit abc1234" in lines[-1]


def test_expert_table(figures: ModuleType) -> None:
    """The cube at rest comes first, less latency before more, and no success means no time."""
    run: dict[str, Any] = {
        "task": "belt",
        "latency_ms": 200.0,
        "successes": 0,
        "episodes": 5,
        "wilson_95": [0.0, 0.4345],
        "median_s": None,
        "slowest_s": None,
        "machine": "Linux x86_64, 2 cores",
        "commit": "abc1234",
    }
    good = {"task": "cube", "successes": 5, "wilson_95": [0.5655, 1.0], "median_s": 1.84}

    lines = figures.expert_success(
        [run, run | good | {"slowest_s": 2.0}, run | good | {"latency_ms": 0.0, "slowest_s": 1.9}]
    ).splitlines()

    assert lines[2:] == [
        "| cube at rest | 0 ms | 5 of 5 | 56.5% to 100.0% | 1.8 s | 1.9 s |",
        "| cube at rest | 200 ms | 5 of 5 | 56.5% to 100.0% | 1.8 s | 2.0 s |",
        "| cube on a moving belt | 200 ms | 0 of 5 | 0.0% to 43.5% | - | - |",
        "",
        "Measured with `benchmarks/expert_success.py` on Linux x86_64, 2 cores, at commit abc1234.",
    ]


@pytest.mark.parametrize(
    ("figures_of_it", "told"),
    [
        ({"commit": "abc1234"}, False),
        ({"machine": {"commit": "abc1234"}}, False),
        ({"commit": "abc1234", "machine": "Linux"}, False),
        ({"commit": "abc1234+"}, True),
        ({"machine": {"commit": "abc1234+"}}, True),
        ({"machine": "Linux"}, True),
        ({"machine": {"cpu": "2 x Example"}}, True),
        ({"commit": "unknown"}, True),
    ],
)
def test_figures_of_no_commit_are_told(
    figures: ModuleType, tmp_path, monkeypatch, figures_of_it: dict[str, Any], told: bool
) -> None:
    """Nobody could measure them again."""
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    (tmp_path / "some.json").write_text(json.dumps(figures_of_it))
    assert bool(list(figures.changed_checkouts())) is told


def test_demo_table(figures: ModuleType) -> None:
    """One row for each run."""
    run = {
        "task": "cube",
        "added_latency_ms": 200.0,
        "successes": 4,
        "episodes": 5,
        "control_hz": 29.06,
        "round_trip_ms": {"p50": 224.63, "p99": 269.37},
        "delay_ticks": {"p50": 7.0},
        "held_ticks": 3,
        "ticks": 305,
    }
    assert figures.demo([run]).splitlines()[2:] == [
        "| cube at rest | 200 ms | 4 of 5 | 29.1 Hz | 225 ms, 269 ms | 7 | 3 of 305 |"
    ]


def test_learned_policies_have_a_table_each_task(figures: ModuleType) -> None:
    """With the policy in front of each rule, and how many episodes stand behind it."""
    cell = {
        **{"policy": "smolvla", "task": "cube", "horizon": 50, "link": "wan", "rtt_ms": 200.0},
        **{"rule": "ours", "seam": "rtc", "episodes": 50, "successes": 40, "held_ticks": 0},
        **{"ticks": 4000, "time_to_success_s": 2.5, "seam_velocity_ratio": 0.8},
    }
    results = {"cells": [cell, {**cell, "episodes": 20, "successes": 1, "task": "belt"}]}

    text = figures.learned({**results, "machine": "Example", "commit": "abc1234"})

    assert "Cube at rest, 50 rows:" in text
    assert "| smolvla: ours, rtc | 80%, 2.5 s, 0% held, seam 0.8 |" in text
    assert "70 episodes, 20 to 50 in each cell, on Example, at commit abc1234" in text


def test_real_sockets_have_two_tables(figures: ModuleType) -> None:
    """Round trips link by link, and cells, both beside the model."""
    side = {
        **{"episodes": 20, "successes": 19, "wilson_95": [0.76, 0.99], "held_ticks": 1},
        **{"ticks": 1500, "time_to_success_s": 2.3, "round_trip_ms": {"median": 320.0}},
    }
    cell = {
        **{"cell": "belt/50/wan/ours/blend/jpeg", "real": side, "virtual": side},
        **{"difference": [0.0, -0.2, 0.2], "agrees": True, "late_ticks": 3},
        **{"slower_than_charged": 1, "tick_to_send_ms": {"median": 9.0}},
    }
    trips = {"wan": {"first_ms": 2000.0, "round_trips_ms": [880.0], "kind": "kernel TCP over TUN"}}
    results = {"cells": [cell], "round_trips": trips, "machine": "Example", "commit": "abc1234"}

    text = figures.real(results)

    assert "| wan (200 ms) | 2000 ms | 880 ms |" in text
    assert "1 of 1 cells agree" in text
    assert "20 episodes in real time, on Example, at commit abc1234" in text


def test_every_generated_block_is_somewhere_once(figures: ModuleType) -> None:
    """The documents' blocks are the ones there are."""
    paths = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    for name in figures.BLOCKS:
        assert text.count(f"<!-- generated: {name} -->") == 1
    assert text.count("<!-- generated: ") == text.count("<!-- end -->") == len(figures.BLOCKS)


def test_server_load_table(figures: ModuleType) -> None:
    """OpenPI's figure stands first, this project's behind the arrow."""
    one = {
        "throughput": 41.9,
        "p50_ms": 380.4,
        "p99_ms": 389.0,
        "missed": 0.25,
        "health_max_ms": 353.0,
        "cpu_ms": 0.82,
    }
    cell = {"policy": "batched", "clients": 16, "at_a_rate": False, "stock": one, "ours": one}
    measured = {
        "machine": {"cpu": "2 x Example", "python": "3.12.1", "commit": "abc1234"},
        "cells": [cell, cell | {"at_a_rate": True}],
    }

    lines = figures.server_load(measured).splitlines()

    row = "| 42 → 42 | 380 / 389 → 380 / 389 | 25% → 25% | 353 → 353 | 0.82 → 0.82 |"
    assert lines[4:6] == [f"| batched | 16 {row}", f"| batched | 16 at 2 Hz {row}"]
    assert "2 x Example, Python 3.12.1, at commit abc1234" in lines[-1]


def test_batches_table(figures: ModuleType) -> None:
    """A policy that answers one by one differs by nothing; only one that can follow has a second figure."""
    measured = {
        "commit": "abc1234",
        "machine": "2 cores",
        "robots": 16,
        "policies": [
            {
                "policy": "pi05",
                "batch": True,
                "free": {"largest_difference": 6.1e-05},
                "following": {"largest_difference": 0.000423},
            },
            {"policy": "vqbet", "batch": False, "free": {"largest_difference": 0.0}},
        ],
    }

    lines = figures.batches(measured).splitlines()

    assert lines[2] == "| pi05 | one for all | 0.00006 | 0.00042 |"
    assert lines[3] == "| vqbet | one for each | none, to the bit |  |"
    assert "16 requests together" in lines[-1]
    assert "at commit abc1234" in lines[-1]


def test_relay_tables(figures: ModuleType) -> None:
    """What a gateway adds, what it carries with most clients, what was lost, and where that was measured."""
    trip = {"p50_ms": 23.4, "p99_ms": 30.0, "more_than_direct_ms": 0.0}
    load = {"a_second": 602.0, "of_capacity": 0.98, "gateway_cpu_ms": 0.61}
    names = [(server, size) for server in ("ours", "stock") for size in ("1.07 MB", "49 KB")]
    measured = {
        "request_bytes": {"1.07 MB": 1071583, "49 KB": 49362},
        "machine": {
            **{"cpu": "2 x Example", "python": "3.12.1", "commit": "abc1234"},
            **{"load": "1.0 2.0 3.0", "load at the end": "4.0 2.0 3.0"},
        },
        "round trip": {f"{server}, {size}, direct": trip for server, size in names}
        | {
            f"{server}, {size}, gateway": trip | {"p50_ms": 24.9, "more_than_direct_ms": 1.5}
            for server, size in names
        },
        "throughput": {
            f"{server}, {size}, {clients} clients, {way}": load
            for server, size in names
            for clients in (1, 64)
            for way in ("direct, one server", "gateway, two", "gateway, two, 2 connections each")
        },
        "faults": {"stock": {"requests": 878.0, "lost": 0.0, "foreign": 0.0, "worst_ms": 1042.7}},
    }

    text = figures.relay(measured)
    lines = text.splitlines()

    assert lines[2] == "| OpenPI's server | 1.07 MB | 23.4 ms | 24.9 ms | 1.5 ms |"
    assert "| this project's | 49 KB | 602 | 98 % | 0.6 ms each |" in lines
    assert "| OpenPI's server, 2 connections each | 1.07 MB | 602 | 98 % | 0.6 ms each |" in lines
    assert text.count("602") == 8
    assert (
        "0 of 878 requests lost, 0 answered with another's, the slowest answer after 1.0 s" in text
    )
    assert "2 x Example" in lines[-1]
    assert "load 1.0 at the beginning, 4.0 at the end" in lines[-1]


def test_idle_link_table(figures: ModuleType) -> None:
    """Whose client, which images, what they took and what they needed; the link and the machine below."""
    way = {"bytes": 301000.0, "of_raw": 0.281, "needed_ms": 98.0, "p50_ms": 103.2, "p99_ms": 110.0}
    measured = {
        "machine": {"machine": "Linux x86_64, 2 cores", "commit": "abc1234"},
        **{"mbit": 50.0, "rtt_ms": 50.0, "every_s": 0.8, "congestion": "cubic", "count": 60},
        "ways": {
            "stock, resized": way | {"ratio": 1.65},
            "ours, resized, cold": way | {"ratio": 1.66},
            "ours, resized": way | {"ratio": 1.054},
        },
    }

    lines = figures.idle_link(measured).splitlines()

    assert lines[2] == "| OpenPI's, resized | 301 kB | 0.28 | 103 ms | 110 ms | 1.65 |"
    assert lines[3].startswith("| this project's, resized, without pongs | 301 kB")
    assert lines[4].endswith("| 1.05 |")
    assert lines[6].startswith("50 Mbit/s and 50 ms, an observation every 0.8 s, 60 of each")
    assert "Linux x86_64, 2 cores, at commit abc1234" in lines[-1]


def test_scale_out_table(figures: ModuleType) -> None:
    """Each way of each cell is a row; what it takes over the plain server, and under which load."""
    path = {
        "throughput": 100.4,
        "p50_ms": 30.04,
        "p99_ms": 50.0,
        "front_cpu_ms": 5.432,
        "policy_cpu_ms": 4.5,
        "control_cores": 0.3,
        "over_plain_ms": 8.96,
    }
    measured = {
        "machine": {"cpu": "2 x Example", "python": "3.12.1", "commit": "abc1234"},
        "policies": 2,
        "rounds": 3,
        "cells": [
            {
                "size": "large",
                "request_bytes": 1072395,
                "clients": 4,
                "load": 2.4,
                "paths": {"plain": path | {"over_plain_ms": 0.0}, "ray": path},
            }
        ],
    }

    lines = figures.scale_out(measured).splitlines()

    assert lines[2] == "| 1.07 MB | 4 | plain | 100 | 30.0 ms |  | 5.43 | 4.50 |"
    assert lines[3] == "| 1.07 MB | 4 | ray | 100 | 30.0 ms | +9.0 ms | 5.43 | 4.50 |"
    assert "load 2 to 2, at commit abc1234" in lines[-1]


def test_ray_nodes_table(figures: ModuleType) -> None:
    """Each event is a row, with the range of its runs where they differ."""
    run = {
        "requests": 1000,
        "lost_ours": 0,
        "lost_stock": 4,
        "stale": 0,
        "full_rate_s": 0.25,
        "worst_wait_s": 1.0,
        "load": 3.0,
    }
    runs = [run, run | {"lost_stock": 6, "load": 5.0}, run]
    measured = {
        "machine": {"cpu": "2 x Example", "commit": "abc1234"},
        "events": {"kill node": runs},
    }

    lines = figures.ray_nodes(measured).splitlines()

    assert lines[2] == "| kill node | 1000 | 0 | 4 (4 to 6) | 0 | 0.2 s | 1.0 s |"
    assert "Medians of 3 runs" in lines[-1]


def test_soak_table(figures: ModuleType) -> None:
    """Each process is a row; one that was started again has no growth."""
    slope = {"per_hour": 1.25, "low": -0.5, "high": 3.0, "grown": 0.4}
    process = {
        "rss_mb": [100.0, 101.2],
        "memory": slope,
        "fds": [47.0, 47.0],
        "threads": [5.0, 5.0],
    }
    measured = {
        "robots": 8,
        "minutes": 20.0,
        "warm_up_s": 120.0,
        "processes": {"server": process, "second server": process | {"memory": None}},
        "counts": {"ticks": 288000, "held": 12},
        "faults": {"cut": 10, "restart": 8},
        "round_trips": {"count": 19000, "p50_ms": [25.0, 24.0], "p99_ms": [41.0, 42.0]},
        "machine": {
            "cpu": "2 x Example",
            "python": "3.12.1",
            "load": "1.5 1.0 1.0",
            "load at the end": "2.0",
            "commit": "abc1234",
        },
    }

    lines = figures.soak(measured).splitlines()

    assert lines[2] == ("| server | 100.0 MB, 101.2 MB | +1.2 MB (-0.5 to +3.0) | 47, 47 | 5, 5 |")
    assert "started again" in lines[3]
    assert "Faults: cut 10, restart 8." in lines[5]
    assert lines[5].endswith("another moment's: 0.")
    assert "99th percentile 41 and 42 ms" in lines[7]
    assert "commit abc1234" in lines[-1]


def test_failover_table(figures: ModuleType) -> None:
    """Each target is a row with what was measured, and where it was."""
    kill = {
        "kills": 1000,
        "median_ms": 118.2,
        "p99_ms": 216.0,
        "request_under_way": {"kills": 250, "median_ms": 55.4, "p99_ms": 75.1},
        "with_half_a_second_of_rows": 990,
        "held_ticks_of_those": 0,
        "stale_actions": 0,
    }
    cut = {
        "cuts": 40,
        "seconds": 2.0,
        "most_rows_left_at_hold": 0,
        "resume_median_ms": 60.6,
        "resume_longest_ms": 81.0,
        "largest_step": 0.04,
        "largest_step_allowed": 0.04,
        "stale_actions": 0,
    }
    where = {"cpu": "2 x Example", "python": "3.12.1", "commit": "abc1234"}

    cable = {
        "seconds": 5.0,
        "cuts": 20,
        "round_trip_ms": 20.0,
        "cold_ms": 201.0,
        "warm_ms": 122.0,
        "answer_median_ms": 410.0,
        "answer_longest_ms": 520.0,
    }
    measured = {"kill": kill, "cut": cut, "cables": [cable], "machine": where}
    lines = figures.failover(measured).splitlines()

    assert "1000 times" in lines[2]
    assert "median 118 ms, 99th percentile 216 ms" in lines[2]
    assert lines[4].endswith("990 with rows for 0.5 s or more | 0 |")
    assert "median 61 ms, longest 81 ms" in lines[7]
    assert "lost for 5 s, 20 times" in lines[10]
    assert "median 410 ms, longest 520 ms; over a connection that is there 122 ms" in lines[10]
    assert "commit abc1234" in lines[-1]
