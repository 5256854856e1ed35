# SPDX-License-Identifier: Apache-2.0
"""One direction of a link, packet by packet."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.bench.delay_line import DelayLine, queue_bytes
from pi05_websocket.bench.links import LINKS, Link
from pi05_websocket.errors import ConfigError

PACKET = bytes(1500)


def test_way_and_bits():
    """Half of a round trip, and 1500 bytes at 12 Mbit/s are a millisecond; the second waits for the first."""
    line = DelayLine(Link(name="x", rtt_ms=200, mbit=12), seed=0)

    line.put(1.0, PACKET)
    line.put(1.0, b"second" * 250)

    assert line.next_at == pytest.approx(1.101)
    assert line.take(1.1005) == []
    assert line.take(1.1011) == [PACKET]
    assert line.next_at == pytest.approx(1.102)
    assert line.take(2.0) == [b"second" * 250]
    assert line.next_at == math.inf
    assert (line.carried, line.lost, line.dropped) == (2, 0, 0)


def test_each_packet_is_lost_by_itself():
    """With the link's probability; a lost one took its time on the wire."""
    line = DelayLine(Link(name="x", rtt_ms=0, loss=0.1, mbit=12), seed=0)
    for i in range(5000):
        line.put(i / 1000, PACKET)

    assert line.lost / 5000 == pytest.approx(0.1, abs=0.015)
    assert len(line.take(math.inf)) == 5000 - line.lost
    line.put(5.0, PACKET)
    assert line.next_at == pytest.approx(5.001)


def test_packets_that_are_overtaken_or_come_twice():
    """Each by the link's share; nothing is lost by that."""
    line = DelayLine(Link(name="x", rtt_ms=0, mbit=1000, reorder=0.1, duplicate=0.05), seed=0)
    sent = [i.to_bytes(4, "big") for i in range(5000)]
    for i, packet in enumerate(sent):
        line.put(i / 10000, packet)
    out = line.take(math.inf)

    assert line.overtaken / 5000 == pytest.approx(0.1, abs=0.02)
    assert line.doubled / 5000 == pytest.approx(0.045, abs=0.015)
    assert sorted(out) != out
    assert set(out) == set(sent)
    assert len(out) == 5000 + line.doubled
    for wrong in ({"reorder": 1.0}, {"duplicate": -0.1}):
        with pytest.raises(ConfigError, match="shares below 1"):
            Link(name="x", rtt_ms=0, **wrong)


def test_what_does_not_fit_into_the_queue_is_dropped():
    """The queue holds what it is documented to hold, and a packet."""
    link = Link(name="x", rtt_ms=0, mbit=12)
    line = DelayLine(link, seed=0)
    fit = queue_bytes(link) // 1500
    for _ in range(2 * fit):
        line.put(0.0, PACKET)

    assert line.dropped == pytest.approx(fit, abs=2)
    line.put(0.1, PACKET)
    assert line.take(10.0) == [PACKET] * (2 * fit - line.dropped + 1)


@pytest.mark.parametrize(
    ("link", "expected"),
    [("wan", 2_500_000), ("4g", 475_000), ("far", 5_000_000)],
)
def test_the_queue_is_a_round_trip_or_200_ms(link: str, expected: int):
    """Whichever is more, at the link's rate."""
    assert queue_bytes(LINKS[link]) == expected


def test_a_slow_link_holds_some_packets_all_the_same():
    """A modem too has a queue of 128 KiB."""
    assert queue_bytes(Link(name="x", rtt_ms=10, mbit=1)) == 128 * 1024


def test_jitter_only_adds_and_has_the_stated_spread():
    """Packets far apart see queues of their own."""
    line = DelayLine(Link(name="x", rtt_ms=100, jitter_ms=20), seed=3)
    waits = []
    for i in range(4000):
        line.put(10.0 * i, b"x")
        waits.append(line.next_at - 10.0 * i)
        line.take(math.inf)

    assert min(waits) >= 0.05
    assert statistics.stdev(waits) == pytest.approx(0.020 / 2**0.5, rel=0.1)


def test_packets_of_one_burst_share_their_jitter():
    """Queues change in tenths of a second, not between two packets."""
    line = DelayLine(Link(name="x", rtt_ms=100, jitter_ms=20), seed=3)
    line.put(0.0, b"x")
    line.put(0.0, b"y")
    first = line.next_at

    assert line.take(first + 1e-6) == [b"x", b"y"]


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(20, 1500)), max_size=60),
    st.sampled_from(sorted(LINKS)),
    st.integers(0, 999),
)
def test_nothing_overtakes_and_nothing_comes_early(
    packets: list[tuple[float, int]], name: str, seed: int
):
    """What comes out is in the order it went in, after half of a round trip and its bits."""
    link = LINKS[name]
    line, now, sent = DelayLine(link, seed), 0.0, []
    for i, (pause, size) in enumerate(packets):
        now += pause
        sent.append((now, size))
        line.put(now, i.to_bytes(2, "big") + bytes(size - 2))
    last, numbers = 0.0, []
    while line.next_at < math.inf:
        at = line.next_at
        assert at >= last
        last = at
        for packet in line.take(at):
            number = int.from_bytes(packet[:2], "big")
            numbers.append(number)
            went, size = sent[number]
            assert at >= went + link.rtt_ms / 2000 + size * 8 / (link.mbit * 1e6) - 1e-9

    assert numbers == sorted(numbers)
    assert len(numbers) + line.lost + line.dropped == len(packets)


def test_repr_says_what_is_under_way():
    """For a debugger."""
    line = DelayLine(LINKS["lan"], seed=0)
    line.put(0.0, b"x")

    assert repr(line) == "<DelayLine lan under_way=1 lost=0>"


def test_a_cut_line_lets_nothing_in():
    """What is under way comes out; once it is mended, packets go their way again."""
    line = DelayLine(Link(name="x", rtt_ms=100), seed=0)
    line.put(0.0, b"before")
    line.cut = True
    line.put(0.01, b"meanwhile")
    line.cut = False
    line.put(0.02, b"after")
    assert line.take(1.0) == [b"before", b"after"]
    assert (line.carried, line.lost) == (2, 1)
