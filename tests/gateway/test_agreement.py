# SPDX-License-Identifier: Apache-2.0
"""Which upstreams serve the same policy, and what robots are told of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.gateway.agreement import Agreement, common_metadata, identity_of
from pi05_websocket.wire.encoded_images import image_announcement
from pi05_websocket.wire.realtime import RealtimeSupport, announcement, realtime_support

V1: dict[str, Any] = {"name": "pi05", "fingerprint": {"weights": "a1", "normalizer": "b2"}}
V2: dict[str, Any] = {"name": "pi05", "fingerprint": {"weights": "a2", "normalizer": "b2"}}


def rt(prefix: str = "guided", most: int | None = None, *, refusals: bool = True) -> dict[str, Any]:
    """What a server announces under `_rt`."""
    return announcement(RealtimeSupport(prefix=prefix, max_delay=most, refusals=refusals))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2, "x": 1}]}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"reset_pose": np.zeros(3)}, {"reset_pose": np.zeros(3)}, True),
        ({"reset_pose": np.zeros(3)}, {"reset_pose": np.ones(3)}, False),
        ({"a": 1, "hostname": "x", "pid": 1}, {"a": 1, "hostname": "y", "pid": 2}, True),
        ({"a": 1, **image_announcement()}, {"a": 1, **rt()}, True),
        (V1, {**V1, "name": "renamed"}, True),  # the fingerprint alone counts
        (V1, V2, False),
        ({**V1, "fingerprint": {}}, {**V1, "fingerprint": {}, "name": "x"}, False),  # none is none
    ],
)
def test_who_serves_the_same_policy(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    """By its fingerprint, or by all it says but what is about the process or the wire."""
    assert (identity_of(one) == identity_of(other)) is same


def test_common_metadata_is_what_all_say() -> None:
    """What only one says, or says differently, is not told to robots."""
    assert common_metadata([{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3}]) == {"a": 1}
    assert common_metadata([V1]) == V1


@pytest.mark.parametrize(
    ("supports", "told"),
    [
        ([rt("guided", 8), rt("guided", 5)], RealtimeSupport(prefix="guided", max_delay=5, refusals=True)),
        ([rt("guided"), rt("guided", refusals=False)], RealtimeSupport(prefix="guided")),
        ([rt("guided"), rt("trained")], None),
        ([rt("guided"), {}], None),
        ([{}, {}], None),
    ],
)  # fmt: skip
def test_robots_are_told_of_the_prefix_that_all_know(
    supports: list[dict[str, Any]], told: RealtimeSupport | None
) -> None:
    """With the smallest bound; none where they differ."""
    said = common_metadata([{"a": 1, **support} for support in supports])
    assert realtime_support(said) == told
    assert said["a"] == 1


def test_the_first_decides_and_others_are_left_out() -> None:
    """What serves another policy is not used while somebody serves the first one's."""
    agreement = Agreement()
    assert agreement.identity is None
    assert agreement.metadata() == {}
    assert agreement.came(0, V1, 0.0)
    assert not agreement.came(1, V2, 0.0)
    assert agreement.came(2, V1, 0.0)
    assert [agreement.usable(number) for number in range(4)] == [True, False, True, False]
    assert agreement.knows(1) == identity_of(V2)
    assert agreement.knows(3) is None
    assert agreement.metadata() == V1
    assert agreement.serves(identity_of(V1))
    assert not agreement.serves(identity_of(V2))
    assert not agreement.review(100.0)
    assert repr(agreement) == f"<Agreement {identity_of(V1)} members=3>"


def test_another_policy_is_taken_when_nobody_has_served_the_first_for_a_while() -> None:
    """Two seconds: long enough for a connection that is renewed."""
    agreement = Agreement()
    agreement.came(0, V1, 0.0)
    agreement.came(1, V2, 0.0)
    agreement.left(0, 10.0)
    assert not agreement.usable(1)
    assert not agreement.review(11.9)
    assert agreement.review(12.0)
    assert agreement.usable(1)
    assert agreement.serves(identity_of(V2))
    assert agreement.metadata() == V2
    assert not agreement.came(0, V1, 13.0)
    assert not agreement.review(99.0)


def test_the_first_policy_may_come_back_in_time() -> None:
    """Then nothing has happened."""
    agreement = Agreement()
    agreement.came(0, V1, 0.0)
    agreement.came(1, V2, 0.0)
    agreement.left(0, 10.0)
    agreement.came(0, V1, 11.0)
    assert not agreement.review(20.0)
    assert agreement.usable(0)


def test_without_anybody_the_policy_stays() -> None:
    """A lone server that is restarted serves what it served, or another: who comes next is looked at then."""
    agreement = Agreement()
    agreement.came(0, V1, 0.0)
    agreement.left(0, 10.0)
    agreement.left(0, 11.0)
    assert not agreement.review(20.0)
    assert not agreement.came(0, V2, 20.0)
    assert agreement.review(20.0)
    assert agreement.usable(0)


def test_the_policy_that_most_serve_is_taken() -> None:
    """Of two that could take its place."""
    agreement = Agreement()
    agreement.came(0, {"v": 1}, 0.0)
    for number, version in enumerate((2, 3, 3), start=1):
        agreement.came(number, {"v": version}, 0.0)
    agreement.left(0, 0.0)
    assert agreement.review(2.0)
    assert agreement.identity == identity_of({"v": 3})


def test_a_person_may_allow_what_differs() -> None:
    """All are used, and no robot is told to connect again."""
    agreement = Agreement(mismatch_allowed=True)
    assert agreement.came(0, V1, 0.0)
    assert agreement.came(1, V2, 0.0)
    assert agreement.serves(identity_of(V2))
    assert agreement.metadata() == {"name": "pi05"}
