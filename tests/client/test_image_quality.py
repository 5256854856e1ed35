# SPDX-License-Identifier: Apache-2.0
"""How images are sent, from made-up links: each link says how long a message of a quality takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.client.image_quality import (
    LADDER,
    NEAR_S,
    QUICK_S,
    ImageQuality,
    ImageTransport,
    Sent,
    check_images,
)
from pi05_websocket.errors import ConfigError

NBYTES = {None: 1_072_000, 95: 160_000, 90: 100_000, 85: 70_000, 75: 50_000}

Link = Callable[[int], float]
"""Bytes of a message to the seconds it takes, there and back."""


def rate(megabit: float, *, rtt_s: float = 0.002) -> Link:
    """A link whose bytes take the time."""
    return lambda nbytes: rtt_s + nbytes * 8e-6 / megabit


def paced(rtt_s: float) -> Link:
    """A far link on which a message takes the same time however long it is."""
    return lambda nbytes: 1.6 * rtt_s


def drive(images: ImageQuality, link: Link, exchanges: int) -> list[str]:
    """Send so many observations; return what was told."""
    told = []
    for _ in range(exchanges):
        quality = images.quality
        nbytes = NBYTES.get(quality, 50_000)
        said = images.exchanged(Sent(quality=quality, nbytes=nbytes, network_s=link(nbytes)))
        told += [] if said is None else [said]
    return told


def connected(
    transport: ImageTransport = "auto", *, connect_s: float | None = 0.001, floor: int = 75
) -> ImageQuality:
    """One that has just connected to a server that reads JPEG."""
    images = ImageQuality(transport, floor)
    images.connected(announced=True, connect_s=connect_s)
    return images


def test_before_a_connection_images_are_raw() -> None:
    """Nobody has announced anything yet."""
    images = ImageQuality("jpeg")
    assert images.quality is None
    assert repr(images) == "<ImageQuality jpeg raw>"
    assert drive(images, rate(1), 20) == []
    assert images.quality is None


@pytest.mark.parametrize("link", [rate(10_000, rtt_s=0.0001), rate(1000, rtt_s=0.001)])
def test_near_images_stay_raw(link: Link) -> None:
    """Loopback and a gigabit switch, for ever."""
    images = connected()
    assert drive(images, link, 500) == []
    assert images.quality is None


def test_a_slow_link_begins_at_the_floor_and_gets_what_is_free() -> None:
    """100 Mbit/s: a raw message takes 88 ms, the best JPEG 15."""
    images = connected()
    told = drive(images, rate(100), 100)
    assert told[0] == "images are sent as JPEG of quality 75 instead of raw: 1,072 kB took 88 ms"
    assert told[-1].startswith("images are sent as JPEG of quality 95 instead of JPEG of quality")
    assert len(told) == 4
    assert images.quality == 95


def test_a_very_slow_link_stays_at_the_floor() -> None:
    """5 Mbit/s: each rung up costs more than it may; tries become rarer."""
    images = connected()
    drive(images, rate(5), 50)
    told = drive(images, rate(5), 1000)
    assert images.quality in (75, 85)
    assert 2 <= len(told) <= 12


def test_where_bytes_do_not_matter_images_are_raw_again() -> None:
    """A near server that lets requests wait: JPEG would lose quality for nothing."""
    images = connected()
    told = drive(images, lambda _: 0.3, 20)
    assert [said.split(":")[0] for said in told] == [
        "images are sent as JPEG of quality 75 instead of raw",
        "images are sent as raw instead of JPEG of quality 75",
    ]
    assert images.quality is None
    # Tried again now and then, because it may have been something else; ever more rarely.
    assert 0 < len(drive(images, lambda _: 0.3, 2000)) < 40


def test_a_far_server_begins_small() -> None:
    """The first large message over a far link takes many round trips: none is sent to find that out."""
    images = ImageQuality()
    assert (
        images.connected(announced=True, connect_s=0.2) == "images are sent as JPEG of quality 75"
    )
    assert images.quality == 75


def test_far_images_are_as_good_as_is_free_and_never_raw() -> None:
    """A paced link carries quality 95 in the time of quality 75. Raw is not tried: it may take far longer."""
    images = connected(connect_s=0.2)
    drive(images, paced(0.2), 200)
    assert images.quality == 95


def test_a_step_in_the_time_is_found_and_remembered() -> None:
    """What fits into ten segments goes at once; the next rung does not, and is tried ever more rarely."""
    images = connected(connect_s=0.2)

    def link(nbytes: int) -> float:
        return 0.32 if nbytes < 60_000 else 0.64

    counts = []
    for _ in range(4):
        counts.append(len(drive(images, link, 200)))
        assert images.quality in (75, 85)
    assert counts[0] > counts[-1]


def test_a_link_that_gets_worse_is_followed_down_and_up() -> None:
    """Wi-Fi behind a wall, and back."""
    images = connected()
    drive(images, rate(100), 100)
    assert images.quality == 95
    drive(images, rate(4), 40)
    assert images.quality in (75, 85)
    drive(images, rate(100), 1500)
    assert images.quality == 95


def test_raw_comes_back_where_the_link_is_near_again() -> None:
    """Another robot's upload has ended."""
    images = connected()
    drive(images, rate(20), 30)
    assert images.quality is not None
    drive(images, rate(1000, rtt_s=0.001), 1500)
    assert images.quality is None


@pytest.mark.parametrize(
    ("link", "exchanges"),
    [
        (rate(10_000, rtt_s=0.0001), 4),  # loopback: the first does not count, three do
        (rate(1000, rtt_s=0.0003), 4),  # a gigabit switch
        (rate(1000, rtt_s=0.002), 33),  # slower: rung by rung, as ever
        (rate(100), None),  # raw would take 88 ms
        (rate(5), None),
        (paced(0.2), None),
    ],
)
def test_raw_comes_back_as_soon_as_it_would_be_quick(link: Link, exchanges: int | None) -> None:
    """A busy machine opens its connection slowly: that is one moment, and no distance."""
    images = connected(connect_s=0.02)
    assert images.quality == 75
    until_raw = next(
        (n for n in range(1, 300) if drive(images, link, 1) and not images.quality), None
    )
    assert until_raw == exchanges


def test_raw_comes_back_by_the_size_that_raw_has() -> None:
    """Known once it was sent: small raw images are quick where forty times a JPEG would not be."""
    images = connected()
    slow = Sent(quality=None, nbytes=60_000, network_s=0.6)
    assert images.exchanged(slow) is not None
    quick = Sent(quality=75, nbytes=50_000, network_s=0.03)
    told = [images.exchanged(quick) for _ in range(12)]
    assert [said for said in told if said] == [
        "images are sent as raw instead of JPEG of quality 75: 50 kB took 30 ms"
    ]


def test_raw_that_is_slower_than_it_should_be_is_tried_ever_more_rarely() -> None:
    """A link that carries short messages at once and stalls on long ones: no rate tells that."""
    images = connected(connect_s=0.02)

    def link(nbytes: int) -> float:
        return 0.001 if nbytes < 200_000 else 0.3

    counts = [len(drive(images, link, 500)) for _ in range(4)]
    assert counts[0] > counts[-1]
    assert counts[-1] <= 12


def test_raw_that_has_been_quick_for_long_is_trusted_again() -> None:
    """After a bad hour and a good one two late answers do not cost minutes of JPEG."""
    images = connected()
    stalls = [True]

    def link(nbytes: int) -> float:
        return 0.3 if stalls[0] and nbytes > 200_000 else 0.001

    drive(images, link, 1000)
    stalls[0] = False
    drive(images, link, 1000)
    assert images.quality is None
    assert len(drive(images, lambda _: 0.6, 2)) == 1
    assert images.quality == 75
    drive(images, link, 8)
    assert images.quality is None


def test_raw_that_cost_its_connection_comes_back_later() -> None:
    """Not after three quick small messages: after eight, and after twice as many the next time."""
    images = connected()
    counts = []
    for _ in range(2):
        images.gave_up()
        images.connected(announced=True, connect_s=0.001)
        link = rate(10_000, rtt_s=0.0001)
        counts.append(
            next(n for n in range(1, 99) if drive(images, link, 1) and not images.quality)
        )
    assert counts == [9, 17]


def test_one_loss_changes_nothing() -> None:
    """The median of three exchanges counts."""
    images = connected()
    drive(images, rate(1000), 10)
    assert drive(images, lambda _: 0.3, 1) == []
    assert drive(images, rate(1000), 10) == []


def test_the_first_message_of_a_connection_does_not_count() -> None:
    """TCP's window is small then."""
    images = connected()
    assert drive(images, lambda _: 0.2, 1) == []
    assert drive(images, rate(1000), 3) == []


def test_one_stalled_raw_message_is_enough() -> None:
    """Another one would cost as much; also the first of a connection."""
    images = connected()
    assert len(drive(images, lambda _: 0.6, 1)) == 1
    assert images.quality == 75


def test_a_request_that_was_given_up_makes_the_next_connection_begin_small() -> None:
    """Near, and too slow for a single raw image; and once only."""
    images = connected()
    images.gave_up()
    assert images.connected(announced=True, connect_s=0.001) is not None
    assert images.quality == 75
    assert images.connected(announced=True, connect_s=0.001) == "images are sent as raw"


def test_an_exchange_that_was_under_way_at_a_change_does_not_count() -> None:
    """It tells nothing about the present quality."""
    images = connected()
    drive(images, rate(1000), 5)
    sent = Sent(quality=75, nbytes=50_000, network_s=9.0)
    assert [images.exchanged(sent) for _ in range(9)] == [None] * 9


def test_raw_is_raw() -> None:
    """Whatever the link is."""
    images = connected("raw", connect_s=0.4)
    assert drive(images, rate(1), 50) == []
    assert images.quality is None


def test_jpeg_is_never_raw() -> None:
    """Near it begins with the best, far with the smallest."""
    assert connected("jpeg").quality == 95
    assert connected("jpeg", connect_s=None).quality == 95
    images = connected("jpeg", connect_s=0.2)
    assert images.quality == 75
    drive(images, rate(10_000), 500)
    assert images.quality == 95


@pytest.mark.parametrize("transport", ["auto", "jpeg"])
def test_a_server_that_announces_nothing_gets_raw_images(transport: ImageTransport) -> None:
    """Told once where JPEG was asked for, however often it is connected to."""
    images = ImageQuality(transport)
    told = [images.connected(announced=False, connect_s=0.2) for _ in range(3)]
    said = "images are sent raw: the server does not announce that it reads JPEG"
    assert told == ([said, None, None] if transport == "jpeg" else [None] * 3)
    assert images.quality is None
    assert drive(images, rate(1), 20) == []


def test_another_server_may_read_less() -> None:
    """What was measured, and what was announced, is forgotten with the connection."""
    images = connected(connect_s=0.2)
    assert images.connected(announced=False, connect_s=0.2) == "images are sent as raw"
    assert images.quality is None


@pytest.mark.parametrize(
    ("floor", "far", "best"), [(75, 75, 95), (80, 80, 95), (95, 95, 95), (98, 98, 98), (30, 30, 95)]
)
def test_the_floor_is_the_worst_that_is_sent(floor: int, far: int, best: int) -> None:
    """A rung of its own where the ladder has none."""
    images = connected("jpeg", connect_s=0.2, floor=floor)
    assert images.quality == far
    drive(images, paced(0.2), 300)
    assert images.quality == best


@pytest.mark.parametrize(
    ("transport", "floor", "told"),
    [
        ("png", 75, "image_transport='png': expected one of auto, raw, jpeg"),
        ("auto", 0, "jpeg_quality_floor=0: expected an integer from 1 to 100"),
        ("auto", 101, "jpeg_quality_floor=101"),
        ("auto", 75.0, "jpeg_quality_floor=75.0"),
    ],
)
def test_impossible_settings_are_refused(transport: str, floor: int, told: str) -> None:
    """With what is possible."""
    with pytest.raises(ConfigError, match=told):
        check_images(transport, floor)


@given(
    transport=st.sampled_from(["auto", "jpeg"]),
    floor=st.integers(1, 100),
    times=st.lists(st.floats(0, 5), max_size=80),
    connect_s=st.sampled_from([None, 0.0, NEAR_S, 0.2]),
)
def test_whatever_a_link_does_the_quality_is_a_rung(
    transport: ImageTransport, floor: int, times: list[float], connect_s: float | None
) -> None:
    """At or above the floor, and raw only where that is allowed."""
    images = connected(transport, connect_s=connect_s, floor=floor)
    for took in times:
        assert images.quality in {floor, *LADDER, None}
        assert images.quality is None or images.quality >= floor
        assert images.quality is not None or transport == "auto"
        images.exchanged(Sent(quality=images.quality, nbytes=1000, network_s=took))


@given(st.lists(st.floats(0, QUICK_S), max_size=60))
def test_raw_images_that_are_quick_stay_raw(times: list[float]) -> None:
    """However they vary below the bound."""
    images = connected()
    for took in times:
        assert images.exchanged(Sent(quality=None, nbytes=1_000_000, network_s=took)) is None
