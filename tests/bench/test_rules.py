# SPDX-License-Identifier: Apache-2.0
"""The peers' rules, tick by tick."""

from __future__ import annotations

import numpy as np

from pi05_websocket.bench.rules import AskAndWait, Played, QueueEngine, Rule


def chunk(seq: int, rows: int) -> np.ndarray:
    """Return rows that say where they come from."""
    return (100 * seq + np.arange(rows, dtype=np.float32))[:, None]


def run(rule: Rule, ticks: int, *, delay: int, rows: int) -> list[int | None]:
    """Return the value executed at each tick, replies coming after `delay` ticks."""
    executed: list[int | None] = []
    under_way: tuple[int, int] | None = None
    seq = -1
    for tick in range(ticks):
        if under_way is not None and tick - under_way[1] >= delay:
            rule.arrived(under_way[0], chunk(under_way[0], rows), tick, delay / 30)
            under_way = None
        if under_way is None and rule.wants(tick):
            seq += 1
            rule.asked(seq, tick)
            under_way = (seq, tick)
        played: Played | None = rule.play(tick)
        executed.append(None if played is None else int(played.values[0]))
        if played is not None:
            assert (played.seq * 100 + played.row) == executed[-1]
    return executed


def test_ask_and_wait_stops_at_every_chunk_and_begins_at_its_first_row():
    """OpenPI's broker with an action horizon of 3, and two ticks of delay."""
    executed = run(AskAndWait(3), 12, delay=2, rows=10)

    assert executed == [None, None, 0, 1, 2, None, None, 100, 101, 102, None, None]


def test_ask_and_wait_executes_what_there_is():
    """A horizon beyond the chunk ends with it."""
    assert run(AskAndWait(9), 6, delay=1, rows=3) == [None, 0, 1, 2, None, 100]


def test_queue_engine_drops_the_latency_even_of_the_first_chunk():
    """Row 3 is the first to be executed, although the arm stood still meanwhile."""
    executed = run(QueueEngine(30, threshold=4), 12, delay=3, rows=12)

    assert executed[:5] == [None, None, None, 3, 4]


def test_queue_engine_asks_below_its_threshold_and_replaces():
    """At four rows left it asks; the reply replaces what is left of the queue."""
    executed = run(QueueEngine(30, threshold=4), 16, delay=3, rows=12)

    assert executed[3:14] == [3, 4, 5, 6, 7, 8, 9, 10, 103, 104, 105]


def test_queue_engine_never_moves_with_chunks_shorter_than_the_latency():
    """Every chunk is dropped whole, for ever."""
    assert run(QueueEngine(30), 30, delay=5, rows=5) == [None] * 30


def test_rules_show_their_state():
    """For a debugger."""
    assert repr(AskAndWait(3)) == "<AskAndWait execute=3>"
    assert repr(QueueEngine(30)) == "<QueueEngine threshold=30 left=0>"
