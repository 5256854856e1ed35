# SPDX-License-Identifier: Apache-2.0
"""Who may go on where another server's plan ended."""

from __future__ import annotations

import pytest

from pi05_websocket.client.sameness import Sameness

URLS = ("ws://a", "ws://b")


@pytest.mark.parametrize(
    ("followed", "other", "marked", "agrees"),
    [
        ("1", "1", False, True),
        ("1", "2", False, False),
        ("1", "2", True, False),  # what is announced proves the contrary
        (None, None, False, False),
        (None, None, True, True),
        ("1", None, False, False),
        ("1", None, True, True),
        (None, "1", False, False),
    ],
)
def test_another_server(
    followed: str | None, other: str | None, marked: bool, agrees: bool
) -> None:
    """Equal fingerprints suffice; where there are none the user's word does."""
    sameness = Sameness(2, marked=marked)
    sameness.came(0, followed)
    sameness.came(1, other)
    assert sameness.agrees(0)
    assert sameness.agrees(1)  # no plan is followed yet
    sameness.follow(0)
    assert sameness.agrees(0)
    assert sameness.agrees(1) is agrees


@pytest.mark.parametrize(
    ("before", "now", "agrees"), [("1", "2", False), ("1", None, False), (None, None, True)]
)
def test_the_same_address_again(before: str | None, now: str | None, agrees: bool) -> None:
    """A server that comes back is trusted as a single one is, unless it says something else than before."""
    sameness = Sameness(2)
    sameness.came(0, before)
    sameness.follow(0)
    sameness.came(0, now)
    assert sameness.agrees(0) is agrees


def test_a_person_accepts() -> None:
    """From then on it is the other policy that is followed."""
    sameness = Sameness(2)
    sameness.came(0, "1")
    sameness.came(1, "2")
    sameness.follow(0)
    assert (sameness.followed, sameness.expected, sameness.said(1)) == (0, "1", "2")
    sameness.follow(1)
    assert sameness.agrees(1)
    assert not sameness.agrees(0)
    assert repr(sameness) == "<Sameness followed=1 expected=2>"


@pytest.mark.parametrize(
    ("followed", "number", "other", "words"),
    [
        ("1", 1, "2", "ws://b serves another policy than ws://a did: fingerprint 2, expected 1"),
        ("1", 0, "2", "the server serves another policy than ws://a did"),
        ("1", 1, None, "is not known: one of them does not say. The arm holds"),
        (
            None,
            1,
            None,
            "ws://a is gone, and whether ws://b serves the same policy is not known: neither",
        ),
    ],
)
def test_both_are_named(followed: str | None, number: int, other: str | None, words: str) -> None:
    """The text says what is known, and what a person can do."""
    sameness = Sameness(2)
    sameness.came(0, followed)
    sameness.follow(0)
    sameness.came(number, other)
    said = sameness.why_not(number, URLS)
    assert words in said
    assert "until a person accepts it" in said
    assert ("same_policy" in said) is (other is None)
