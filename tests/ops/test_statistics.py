# SPDX-License-Identifier: Apache-2.0
"""What a server's records add up to, however many robots come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from told import answered, opened, refused

from pi05_websocket.ops.statistics import Statistics
from pi05_websocket.server.records import Closed, Record, TurnedAway


def test_a_gateway_has_no_batches() -> None:
    """What its upstreams do together it does not know."""
    statistics = Statistics()
    statistics.take([opened(), answered(batch=0)], 100.0)
    counts = statistics.counts
    assert (counts.outcomes["answered"], counts.batch.count, counts.busy_s) == (1, 0, 0.0)


def test_a_robots_way_through() -> None:
    """It comes, asks, is refused, and goes."""
    statistics = Statistics()
    statistics.take([opened(), answered(age_ms=5.0, batch=2), refused("busy")], 100.0)
    statistics.see({1: 3}, 100.0)
    assert list(statistics.robots) == [1]
    assert statistics.robots[1].figures(106.0).waiting_s == 6.0
    statistics.take([Closed(connection=1, why="1000 by the client")], 101.0)
    counts = statistics.counts
    assert not statistics.robots
    assert counts.outcomes == {"answered": 1, "refused": 1, "failed": 0}
    assert counts.refusals == {"busy": 1, "late": 0, "superseded": 0, "rate": 0}
    assert counts.keys == {("arm", "answered"): 1, ("arm", "refused"): 1}
    assert (counts.opened, counts.closed) == (1, {"goodbye": 1})
    assert (counts.bytes_in, counts.bytes_out, counts.busy_s) == (2000, 100, 0.025)
    assert counts.network_s.sum == 0.01
    assert (counts.batch.count, counts.queue_s.count, counts.total_s.count) == (1, 1, 2)
    (gone,) = statistics.departed(102.0)
    assert (gone.who, gone.host, gone.words, gone.failed) == (
        "arm",
        "10.0.0.7",
        "1000 by the client",
        False,
    )
    assert repr(statistics) == "<Statistics robots=0 <Counts requests=2 opened=1>>"


def test_who_failed_is_remembered_with_the_reason() -> None:
    """A failed request closes its connection: the robot comes again and again, and is one line."""
    statistics = Statistics()
    for number in range(3):
        fate = [
            opened(number, peer=f"10.0.0.7:{5000 + number}"),
            refused("KeyError: 'top'", connection=number, outcome="failed"),
            Closed(connection=number, why="1011 KeyError: 'top'"),
        ]
        statistics.take(fate, 100.0 + number)
    (gone,) = statistics.departed(110.0)
    assert (gone.times, gone.failed, gone.at) == (3, True, 102.0)
    assert gone.words == "the policy looks for 'top' and the observation has no such key"
    assert statistics.counts.failures == {"KeyError": 3}
    assert statistics.departed(500.0) == []
    statistics.take([opened(9), refused("KeyError: 'top'", connection=9, outcome="failed")], 900.0)
    statistics.take([Closed(connection=9, why="1011 KeyError: 'top'")], 900.0)
    assert [gone.times for gone in statistics.departed(900.0)] == [1]


def test_who_goes_without_asking() -> None:
    """There is nothing to say but how it went."""
    statistics = Statistics()
    statistics.take([opened(), Closed(connection=1, why="lost: no goodbye")], 1.0)
    assert [gone.words for gone in statistics.departed(1.0)] == ["lost: no goodbye"]


def test_only_the_last_who_went_are_remembered() -> None:
    """A robot with a new address each time is one of thirty-two."""
    statistics = Statistics()
    for number in range(40):
        peer = f"10.0.0.{number}:5000"
        gone = Closed(connection=number, why="lost: no goodbye")
        statistics.take([opened(number, peer=peer), gone], 1.0)
    hosts = [gone.host for gone in statistics.departed(1.0)]
    assert (len(hosts), hosts[0], hosts[-1]) == (32, "10.0.0.39", "10.0.0.8")


def test_what_belongs_to_nobody_is_counted_all_the_same() -> None:
    """When the port is opened late, robots are there already."""
    statistics = Statistics()
    away = TurnedAway(reason="full", why="4 are connected")
    statistics.take([answered(), Closed(connection=1, why="lost: no goodbye"), away], 1.0)
    assert statistics.counts.keys == {("other", "answered"): 1}
    assert statistics.counts.closed == {"lost": 1}
    assert statistics.counts.turned_away == {"full": 1}
    assert statistics.departed(1.0) == []


def test_names_are_bounded() -> None:
    """A stranger's words become labels: there is an end to them."""
    statistics = Statistics()
    records: list[Record] = []
    for number in range(1000):
        records += [
            opened(number, who=f"arm-{number}"),
            answered(connection=number),
            refused(f"Error{number}: x", connection=number, outcome="failed"),
            refused(f"kind{number}", connection=number),
        ]
    statistics.take(records, 1.0)
    counts = statistics.counts
    assert [len(counts.failures), len(counts.refusals), len(counts.key_misses)] == [201] * 3
    assert counts.keys["other", "answered"] == 800


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("oacrf")), max_size=200))
def test_memory_is_bounded(events: list[tuple[int, str]]) -> None:
    """Whatever comes in whatever order: only who is connected is kept, and the last few who went."""
    statistics = Statistics()
    connected: set[int] = set()
    asked = 0
    for at, (number, event) in enumerate(events):
        record: Record = opened(number, who=f"arm-{number}", peer=f"10.0.0.{at}:1")
        if event == "o":
            connected.add(number)
        elif event == "c":
            connected.discard(number)
            record = Closed(connection=number, why="lost: no goodbye")
        elif event == "a":
            record = answered(float(at), number)
        else:
            record = refused("busy", float(at), number, "refused" if event == "r" else "failed")
        asked += event in "arf"
        statistics.take([record], float(at))
    assert set(statistics.robots) == connected
    assert len(statistics.departed(float(len(events)))) <= 32
    assert statistics.counts.outcomes.total() == asked
