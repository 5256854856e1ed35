# SPDX-License-Identifier: Apache-2.0
"""Modelled networks: what a message takes, and that nothing overtakes."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.bench.links import LINKS, Link, Path, make_link
from pi05_websocket.errors import ConfigError


def times(link: Link, nbytes: int, count: int = 400) -> list[float]:
    """Return what messages take that are sent far apart."""
    path = Path(link, seed=1)
    return [path.arrival(100.0 * i, nbytes) - 100.0 * i for i in range(count)]


def test_way_and_bytes():
    """Half of a round trip, and a megabyte at 8 Mbit/s is a second."""
    link = Link(name="x", rtt_ms=200, mbit=8)

    assert times(link, 1_000_000, 1) == pytest.approx([1.1])


def test_a_message_waits_for_the_one_before():
    """Two at once take twice the time on the wire."""
    path = Path(Link(name="x", rtt_ms=0, mbit=8), seed=0)

    assert [path.arrival(0.0, 1_000_000), path.arrival(0.0, 1_000_000)] == pytest.approx([1, 2])


def test_jitter_only_adds_and_has_the_stated_spread():
    """Queues on the way: never faster than the way itself."""
    each = times(Link(name="x", rtt_ms=100, jitter_ms=20), 100, 4000)

    assert min(each) >= 0.05
    assert statistics.stdev(each) == pytest.approx(0.020 / 2**0.5, rel=0.1)


def test_a_loss_costs_round_trips():
    """Of 740 segments at 1 % some are always lost: a round trip to resend, and one of slower sending."""
    link = Link(name="x", rtt_ms=200, loss=0.01, mbit=10_000)
    each = [took - 0.1 for took in times(link, 1_072_400)]

    assert 0.399 < statistics.median(each) < 0.61
    assert max(each) < 2.0


@pytest.mark.parametrize(
    ("nbytes", "rtt_ms", "expected"),
    [
        (1_072_400, 200, 0.110),  # half a round trip, not the millisecond its bytes would take
        (40_000, 200, 0.110),  # whatever its size
        (14_480, 200, 0.0),  # but for what the initial window carries
        (1_072_400, 1, 0.00086),  # and for where half a round trip is less than the bytes take
    ],
)
def test_a_message_is_spread_over_half_a_round_trip(nbytes: int, rtt_ms: float, expected: float):
    """The kernel paces by what it has seen arrive, and it has never seen more than a message at a time."""
    link = Link(name="x", rtt_ms=rtt_ms, mbit=10_000)
    each = [took - rtt_ms / 2000 for took in times(link, nbytes, 5)]

    assert statistics.median(each) == pytest.approx(expected, abs=2e-5)


def test_pacing_under_loss_feels_the_jitter_of_several_round_trips():
    """A message that is lost in part sees more of the queues on the way than one that is not."""
    clean = Link(name="x", rtt_ms=200, jitter_ms=50, mbit=100)
    lossy = Link(name="x", rtt_ms=200, jitter_ms=50, mbit=100, loss=0.01)
    extra = [statistics.median(times(link, 1_072_400)) for link in (clean, lossy)]

    assert extra[1] - extra[0] == pytest.approx(0.1 + 0.16 + 0.2, abs=0.06)


def test_a_small_message_is_seldom_lost_and_then_stalls_for_a_probe():
    """Nothing behind the only segment tells of its loss: two round trips, or the timer's 200 ms and more."""
    link = Link(name="x", rtt_ms=20, loss=0.2, mbit=10_000)
    stalls = [took - 0.01 for took in times(link, 100, 2000)]
    lost = [stall for stall in stalls if stall > 0.001]

    assert len(lost) / len(stalls) == pytest.approx(0.2, abs=0.03)
    assert min(lost) == pytest.approx(0.04, abs=0.002)
    assert max(lost) >= 0.199


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 10**6)), max_size=30),
    st.integers(0, 999),
)
def test_nothing_overtakes(messages: list[tuple[float, int]], seed: int):
    """One connection delivers in order, after the time of sending."""
    path, now, last = Path(LINKS["wan"], seed), 0.0, 0.0
    for pause, nbytes in messages:
        now += pause
        there = path.arrival(now, nbytes)
        assert there >= max(last, now)
        last = there


def test_a_link_by_name_with_changes():
    """A changed link is called after its round trip."""
    assert make_link("wan") is LINKS["wan"]
    changed = make_link("wan", rtt_ms=300)
    assert (changed.name, changed.rtt_ms, changed.loss) == ("300ms", 300, 0.01)
    assert make_link("lan", loss=0.1, jitter_ms=3, mbit=5).rtt_ms == 1.0


def test_repr_names_the_link():
    """For a debugger."""
    assert repr(Path(LINKS["lan"], 0)) == "<Path lan>"


@pytest.mark.parametrize(
    "wrong", [{"rtt_ms": -1}, {"jitter_ms": -1}, {"loss": 0.5}, {"loss": -0.1}, {"mbit": 0}]
)
def test_impossible_links_are_refused(wrong: dict[str, float]):
    """Numbers are checked and quoted."""
    with pytest.raises(ConfigError):
        Link(**{"name": "x", "rtt_ms": 1.0, **wrong})


def test_an_unknown_link_is_refused():
    """With the names there are."""
    with pytest.raises(ConfigError, match="wifi"):
        make_link("moon")
