# SPDX-License-Identifier: Apache-2.0
"""Who comes in, who gives way, and what one connection may do."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.bounds import Admission, Conduct, Door, neighbourhood, too_much

SPARE = 64


@pytest.mark.parametrize(
    ("most", "going"),
    [(100, []), (60, []), (59, ["c"]), (30, ["c"]), (29, ["c", "b"]), (0, ["c", "b", "a"])],
)
def test_who_holds_most_goes_first(most: int, going: list[str]) -> None:
    """And nobody more than it takes."""
    assert too_much({"a": 10, "b": 20, "c": 30}, most) == going


def door(most: int = 2, of_one: int | None = 3, **settings: Any) -> Door:
    """Return a door for so many."""
    return Door(ServerConfig(max_connections=most, max_connections_per_address=of_one, **settings))


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_who_is_behind_an_address(address: str, who: str) -> None:
    """A customer has one IPv4 address, and a whole network of IPv6."""
    assert neighbourhood(address) == who


def test_websockets_fill_the_door_and_sockets_without_do_not() -> None:
    """A health check is answered by a server that is full."""
    door_ = door(most=2, of_one=10)
    first, second, _ = (door_.arrive("10.0.0.1").number for _ in range(3))
    assert first is not None
    assert second is not None
    door_.finish(first)
    assert not door_.full
    door_.finish(second)
    assert door_.full
    door_.leave(first)
    door_.leave(first)
    assert not door_.full
    assert repr(door_) == "<Door open=2 unfinished=1>"


def test_from_one_address_the_oldest_that_said_nothing_gives_way() -> None:
    """And nobody of another address; with only WebSockets there, the new one does not come in."""
    door_ = door(of_one=2)
    other = door_.arrive("10.0.0.2").number
    first = door_.arrive("10.0.0.1").number
    second = door_.arrive("10.0.0.1").number
    third = door_.arrive("10.0.0.1")
    assert other is not None
    assert second is not None
    assert third.number is not None
    assert third.instead_of == first
    door_.finish(third.number)
    door_.finish(second)
    assert door_.arrive("10.0.0.1") == Admission(None)
    assert door_.arrive("10.0.0.2").instead_of is None
    assert door_.refused == 2


def test_where_all_are_too_many_the_largest_crowd_gives_way() -> None:
    """Who has many sockets open that say nothing, not who came with one."""
    door_ = door(most=1, of_one=200)
    door_.arrive("10.0.0.1")
    crowd = [door_.arrive("10.0.0.2").number for _ in range(SPARE)]
    assert door_.arrive("10.0.0.3").instead_of == crowd[0]


def test_a_door_full_of_websockets_lets_nobody_in() -> None:
    """Those that are there stay."""
    door_ = door(most=1, of_one=200)
    for _ in range(SPARE + 1):
        number = door_.arrive("10.0.0.1").number
        assert number
        door_.finish(number)
    assert door_.arrive("10.0.0.2") == Admission(None)
    assert door_.refused == 1


@pytest.mark.parametrize(
    ("address", "settings", "most"),
    [
        ("10.0.0.1", {}, 64),
        ("127.0.0.1", {}, 100),
        ("::1", {}, 100),
        ("127.0.0.1", {"max_connections_per_address": 5}, 5),
        ("10.0.0.1", {"behind_proxy": True, "max_connections_per_address": 5}, 100),
    ],
)
def test_bounds_of_an_address(address: str, settings: dict[str, Any], most: int) -> None:
    """This machine is many: tunnels end there. A proxy is everybody."""
    door_ = Door(ServerConfig(**settings))
    for _ in range(100):
        door_.arrive(address)
    assert repr(door_) == f"<Door open={most} unfinished={most}>"


@pytest.mark.parametrize(
    "setting",
    [
        "max_held_bytes",
        "max_connections",
        "max_connections_per_address",
        "max_pipelined_requests",
        "max_small_frames_per_s",
        "handshake_timeout_s",
        "message_timeout_s",
        "unread_timeout_s",
    ],
)
def test_bounds_that_would_let_nobody_in(setting: str) -> None:
    """0 is no way to say "no bound": it would be none."""
    with pytest.raises(ConfigError, match=f"{setting} must be at least"):
        ServerConfig(**{setting: 0})  # type: ignore[arg-type]


def conduct(**settings: Any) -> Conduct:
    """Return the conduct of a connection that was opened at 0 s, with 100 bytes for the handshake."""
    return Conduct(ServerConfig(**settings), 0.0, 100)


def test_small_frames_are_counted() -> None:
    """Pings, pongs and short fragments together; long fragments are none."""
    mine = conduct(max_small_frames_per_s=2)
    assert mine.small_frame(0.0) is None
    assert mine.fragment(1023, 0.0) is None
    assert mine.fragment(1024, 0.0) is None
    assert mine.small_frame(0.0) == "more than 2 pings and short fragments a second"
    assert mine.fragment(1, 0.5) is None


def test_replies_that_are_not_read() -> None:
    """From when they pile up; reading them in between begins anew."""
    mine = conduct(unread_timeout_s=5)
    mine.writing(paused=True, now=1.0)
    assert mine.look(received=100, reading=True, now=6.0) is None
    mine.writing(paused=False, now=6.0)
    assert mine.look(received=100, reading=True, now=60.0) is None
    mine.writing(paused=True, now=61.0)
    assert mine.look(received=100, reading=True, now=67.0) == "did not read its replies for 5 s"


LATE = "a message that took longer than 5 s to come"


def test_a_message_that_begins_after_a_pause_and_does_not_end() -> None:
    """It is noticed by the bytes that came, at the next look."""
    mine = conduct(message_timeout_s=5)
    assert mine.look(received=100, reading=True, now=60.0) is None
    assert mine.look(received=101, reading=True, now=61.0) is None
    assert mine.look(received=101, reading=True, now=66.0) is None
    assert mine.unfinished(received=120) == 20
    assert mine.look(received=120, reading=True, now=66.1) == LATE


def test_idling_between_whole_messages_is_no_offence() -> None:
    """However long, and with pings."""
    mine = conduct(message_timeout_s=5)
    for now in range(0, 1000, 50):
        mine.frame_taken(received=now, ended_a_message=True, more_to_come=False, now=now)
        assert mine.look(received=now, reading=True, now=now + 40) is None


def test_a_message_right_behind_another_counts_from_there() -> None:
    """Its beginning came with the other's end; a ping in between is no message."""
    mine = conduct(message_timeout_s=5)
    mine.frame_taken(received=10, ended_a_message=True, more_to_come=True, now=1.0)
    mine.frame_taken(received=10, ended_a_message=True, more_to_come=True, now=2.0)
    mine.frame_taken(received=12, ended_a_message=False, more_to_come=True, now=5.0)
    assert mine.look(received=12, reading=True, now=7.0) is None
    assert repr(mine) == "<Conduct unfinished=2.0 unread=None>"
    assert mine.look(received=12, reading=True, now=7.1) == LATE


def test_a_server_that_does_not_read_makes_no_message_late() -> None:
    """What it holds back by itself is not the client's fault."""
    mine = conduct(message_timeout_s=5)
    assert mine.look(received=100, reading=False, now=0.0) is None
    mine.frame_taken(received=10, ended_a_message=True, more_to_come=True, now=1.0)
    assert mine.look(received=10, reading=False, now=60.0) is None
    assert mine.look(received=10, reading=True, now=65.0) is None
    assert mine.look(received=10, reading=True, now=65.1) == LATE
