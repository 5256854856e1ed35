# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.cli.demo_story import Story, Tail, TraceLine, read_trace


def tick(number: int, source: str = "chunk", **facts: Any) -> TraceLine:
    """Return a tick's line at 30 Hz."""
    return {"kind": "tick", "time_s": number / 30, "tick": number, "source": source, **facts}


def exchange(trip: float, **facts: Any) -> TraceLine:
    """Return an exchange's line."""
    line = {"kind": "exchange", "time_s": 1.0, "round_trip_ms": trip, "delay_ticks": 2}
    return {**line, "server_ms": trip / 2, **facts}


def episode(number: int, *, success: bool) -> list[TraceLine]:
    """Return the lines of an episode of three seconds."""
    times = {"began": 4.0 * number, "ended": 4.0 * number + 3.0}
    facts = {"episode": number, "success": success, "duration_s": 2.0}
    return [{"kind": kind, "time_s": moment, **facts} for kind, moment in times.items()]


def test_tail_reads_whole_lines_once(tmp_path: Path) -> None:
    """A line that is still being written waits until it is whole; none is told twice."""
    path = tmp_path / "trace.jsonl"
    tail = Tail(path)

    assert tail.read() == []
    path.write_text('{"kind": "a"}\n{"kin')
    assert tail.read() == [{"kind": "a"}]
    with path.open("a") as file:
        file.write('d": "b"}\n')
    assert tail.read() == [{"kind": "b"}]
    assert read_trace(path) == [{"kind": "a"}, {"kind": "b"}]


def test_counts_ticks_and_holds() -> None:
    """Every tick counts; those without a chunk's row are held."""
    story = Story()
    story.tell([tick(0, "hold"), tick(1), tick(2, "zero"), tick(3)])

    assert (story.ticks, story.held_ticks) == (4, 2)


def test_rate_waits_for_a_second_and_a_half() -> None:
    """The live rate is that of late; at first there is none."""
    story = Story()
    story.tell([tick(number) for number in range(44)])
    assert story.tick_rate is None

    story.tell([tick(44)])
    assert story.tick_rate == pytest.approx(30.0)


def test_follows_episodes() -> None:
    """The robot's trace says which episode runs and how each ended."""
    story = Story()
    story.tell([{"kind": "cube", "time_s": 0.0, "episode": 0}])
    assert (story.connected, story.episode) == (True, None)

    story.tell([*episode(0, success=True), *episode(1, success=False)])
    assert (story.episode, story.successes) == (1, 1)
    assert story.outcomes[1].began_s == 4.0
    assert story.outcomes[1].ended_s == 7.0


def test_outage_lasts_until_recovered() -> None:
    """The cause is shown while there are no actions."""
    story = Story()
    story.tell([{"kind": "outage", "time_s": 0.0, "cause": "connection lost"}])
    assert story.outage == "connection lost"

    story.tell([{"kind": "recovered", "time_s": 1.0}, {"kind": "recording", "time_s": 1.0}])
    assert (story.outage, story.outages) == (None, 1)


def test_figures() -> None:
    """The summary has what the documentation promises."""
    story = Story()
    story.tell([tick(number) for number in range(31)])
    story.tell([exchange(10.0), exchange(20.0, server_ms=None)])
    story.tell([*episode(0, success=True), *episode(1, success=True)])

    figures = story.figures(1)

    assert figures["episodes"] == 1
    assert figures["successes"] == 1
    assert figures["ticks"] == 31
    assert figures["control_hz"] == 30.0
    assert figures["round_trip_ms"] == {"p50": 15.0, "p99": 19.9}
    assert figures["server_ms"] == {"p50": 5.0, "p99": 5.0}
    assert figures["per_episode"] == [{"episode": 0, "success": True, "duration_s": 2.0}]


def test_figures_of_nothing() -> None:
    """A demo in which nothing happened has figures too."""
    figures = Story().figures(3)

    assert (figures["episodes"], figures["ticks"], figures["control_hz"]) == (0, 0, None)
    assert figures["round_trip_ms"] == {"p50": None, "p99": None}


def test_time_without_an_action_is_counted() -> None:
    """A demo in which the arm only holds must end; one row begins the count anew."""
    story = Story()
    line = {"kind": "tick", "tick": 0, "episode": 1, "seq": -1, "row": -1, "values": []}
    story.tell([{**line, "source": "hold", "time_s": 10.0 + i} for i in range(5)])
    held = story.held_s
    story.tell([{**line, "source": "chunk", "time_s": 20.0}])

    assert (held, story.held_s) == (4.0, 0.0)
