# SPDX-License-Identifier: Apache-2.0
"""Whose request is decoded next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.decoding_order import DecodingOrder


def order_of(*jobs: str) -> DecodingOrder[str]:
    """Requests that are to be read; the first letter is the connection."""
    order: DecodingOrder[str] = DecodingOrder()
    for job in jobs:
        order.to_read(job[0], job)
    return order


def all_of(order: DecodingOrder[str]) -> list[str]:
    """Decode one after the other until there is nothing left."""
    taken = []
    while (job := order.take()) is not None:
        taken.append(job)
        order.done(job[0])
    return taken


@pytest.mark.parametrize(
    ("came", "decoded"),
    [
        ([], []),
        (["a1", "a2"], ["a1", "a2"]),
        (["a1", "b1", "c1"], ["a1", "b1", "c1"]),
        (["a1", "a2", "a3", "b1"], ["a1", "b1", "a2", "a3"]),
        (["a1", "a2", "b1", "b2", "c1"], ["a1", "b1", "c1", "a2", "b2"]),
    ],
)
def test_connections_take_turns(came: list[str], decoded: list[str]) -> None:
    """However many a connection has sent, the others wait for one of them."""
    assert all_of(order_of(*came)) == decoded


def test_one_of_a_connection_at_a_time() -> None:
    """So a second thread is free for the others; the n-th message is never read before the one before it."""
    order = order_of("a1", "a2", "b1", "b2")
    assert [order.take(), order.take(), order.take()] == ["a1", "b1", None]
    order.done("b")
    assert order.take() == "b2"
    order.done("a")
    assert order.take() == "a2"
    assert repr(order) == "<DecodingOrder requests=0 connections=2>"


def test_everything_is_read_before_the_first_is_unpacked() -> None:
    """What has been read last may be newer than what is to be unpacked."""
    order = order_of("a1", "a2")
    assert order.take() == "a1"
    order.to_unpack("a", "a1 packed")
    order.done("a")
    assert all_of(order) == ["a2", "a1 packed"]


def test_what_is_unpacked_is_told_from_what_is_read() -> None:
    """Reading is over in a moment."""
    order = order_of("a1")
    assert not order.unpacking("a")
    assert order.take() == "a1"
    assert not order.unpacking("a")
    order.to_unpack("a", "a1 packed")
    order.done("a")
    assert not order.unpacking("a")
    assert order.take() == "a1 packed"
    assert order.unpacking("a")
    order.done("a")
    assert not order.unpacking("a")


def test_a_thread_may_want_only_what_is_quick() -> None:
    """It leaves alone who has nothing but images to unpack, and does not move them to the end."""
    order = order_of("a1", "b1")
    assert order.take() == "a1"
    order.to_unpack("a", "a1 packed")
    order.done("a")
    assert [order.take(to_read=True), order.take(to_read=True)] == ["b1", None]
    assert (len(order), order.take()) == (1, "a1 packed")


def test_who_is_gone_is_forgotten() -> None:
    """What waits is dropped; what is under way then comes to nothing."""
    order = order_of("a1", "a2", "b1")
    assert order.take() == "a1"
    order.drop("a")
    order.to_unpack("a", "a1 packed")
    order.done("a")
    order.drop("a")
    assert len(order) == 1
    assert all_of(order) == ["b1"]
    assert repr(order) == "<DecodingOrder requests=0 connections=0>"


_STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "take", "end", "drop"]), st.sampled_from("abcd")),
    max_size=80,
)


@given(_STEPS)
def test_nobody_is_overtaken_twice(steps: list[tuple[str, str]]) -> None:
    """Between two of one connection, all others that waited had one; each is taken once, in order."""
    order: DecodingOrder[str] = DecodingOrder()
    waiting: dict[str, list[str]] = {session: [] for session in "abcd"}
    under_way: set[str] = set()
    since_mine: dict[str, Counter[str]] = {session: Counter() for session in "abcd"}
    for number, (what, session) in enumerate(steps):
        if what == "come":
            order.to_read(session, f"{session}{number}")
            waiting[session].append(f"{session}{number}")
        elif what == "end" and session in under_way:
            order.done(session)
            under_way.discard(session)
        elif what == "drop":
            order.drop(session)
            waiting[session].clear()
            under_way.discard(session)
        elif what == "take":
            free = [name for name in waiting if waiting[name] and name not in under_way]
            job = order.take()
            assert (job is None) == (not free)
            if job is None:
                continue
            mine = job[0]
            assert job == waiting[mine].pop(0)
            under_way.add(mine)
            for other in free:
                since_mine[other][mine] += other != mine
            since_mine[mine].clear()
            assert all(count <= 1 for counts in since_mine.values() for count in counts.values())
        for name in waiting:
            if not waiting[name] or name in under_way:
                since_mine[name].clear()
        assert len(order) == sum(map(len, waiting.values()))
