# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

from pi05_websocket.cli.demo_results import last_words


def figures(successes: int, latency_ms: float) -> dict[str, Any]:
    """Return a summary of five episodes."""
    return {
        "round_trip_ms": {"p50": 8.4, "p99": 16.5},
        "control_hz": 29.8,
        "held_ticks": 0,
        "held_by_cause": {},
        "ticks": 512,
        "episodes": 5,
        "successes": successes,
        "added_latency_ms": latency_ms,
    }


def test_says_what_was_seen_and_what_to_try() -> None:
    """Figures, one sentence, and a next step that was not just taken."""
    near = last_words(figures(4, 0.0), Path("out"))
    far = last_words(figures(4, 200.0), Path("out"))

    assert "29.8 Hz, round trip 8.4 ms (p99 16.5 ms), 0 of 512 ticks held" in near
    assert "pick up 4 of 5 cubes" in near
    assert "so101_follower" in near
    assert near.endswith("with --latency-ms 200.")
    assert far.endswith("with --task belt.")


def test_held_ticks_have_causes() -> None:
    """So that a viewer knows what to change."""
    held = {**figures(4, 0.0), "held_ticks": 5, "held_by_cause": {"reply_late": 3, "link_down": 2}}

    assert "5 of 512 ticks held: reply late 3, link down 2" in last_words(held, Path("out"))


def test_says_which_arm_it_was() -> None:
    """Through LeRobot's driver it says so."""
    said = last_words({**figures(4, 0.0), "robot": "so101-emulated"}, Path("out"))
    assert "cubes through its own so101_follower, on an emulated servo bus, with actions" in said


def test_no_success_is_said() -> None:
    """A demo that picked up nothing does not claim otherwise."""
    said = last_words(figures(0, 0.0), Path("out"))

    assert "no cube was picked up" in said
    assert "You have just seen" not in said
