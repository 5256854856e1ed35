# SPDX-License-Identifier: Apache-2.0
"""The `_rt` fields: what is sent is what is read, and what a stranger sends is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi05_websocket.errors import DecodeError
from pi05_websocket.wire.codec import decode, encode
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    read_realtime_reply,
    realtime_support,
    split_realtime,
    with_realtime,
    with_realtime_reply,
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SIGNALLING = np.frombuffer(bytes.fromhex("010000000000f07f"), "<f8")
"""NaN that warns where it is converted."""
LEFTOVER = np.arange(6, dtype=np.float32).reshape(3, 2)


def a_request(**changes: Any) -> RealtimeRequest:
    """A valid request with some fields replaced."""
    fields: dict[str, Any] = {
        "seq": 7,
        "leftover": LEFTOVER,
        "delay": 2,
        "execution_horizon": 5,
        "control_hz": 30.0,
        "deadline_ms": 250.0,
        "age_ms": 12.5,
    }
    return RealtimeRequest(**(fields | changes))


def sent(**changes: Any) -> dict[str, Any]:
    """An observation whose `_rt` has some fields replaced."""
    observation = with_realtime({"state": 1}, a_request())
    return {**observation, "_rt": observation["_rt"] | changes}


@given(
    seq=st.integers(0, 2**53),
    leftover=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 60), st.integers(1, 14)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    ticks=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    control_hz=st.floats(1.0, 1000.0),
    deadline_ms=st.none() | st.floats(0.0, 10_000.0),
    age_ms=st.floats(0.0, 10_000.0),
    traceparent=st.none() | st.just(TRACEPARENT),
)
def test_a_request_survives_the_wire(
    seq: int,
    leftover: np.ndarray,
    ticks: tuple[int, int],
    control_hz: float,
    deadline_ms: float | None,
    age_ms: float,
    traceparent: str | None,
) -> None:
    """Every request comes out of the codec as it went in, to the bit."""
    request = RealtimeRequest(
        seq=seq,
        leftover=leftover,
        delay=ticks[0],
        execution_horizon=ticks[1],
        control_hz=control_hz,
        deadline_ms=deadline_ms,
        age_ms=age_ms,
        traceparent=traceparent,
    )
    stock, read = split_realtime(decode(encode(with_realtime({"prompt": "pick"}, request))))
    assert stock == {"prompt": "pick"}
    assert read is not None
    np.testing.assert_array_equal(read.leftover, leftover, strict=True)
    names = ("seq", "delay", "execution_horizon", "control_hz", "deadline_ms", "age_ms")
    for name in (*names, "traceparent"):
        assert getattr(read, name) == getattr(request, name)


def test_without_a_trace_nothing_is_said_of_one() -> None:
    """The bytes are those of a client that knows no traces."""
    assert "traceparent" not in with_realtime({}, a_request())["_rt"]


def test_the_observation_is_not_touched() -> None:
    """Adding and splitting make new dicts."""
    observation = {"state": 1}
    asked = with_realtime(observation, a_request())
    split_realtime(asked)
    assert observation == {"state": 1}
    assert set(asked) == {"state", "_rt"}


def test_without_a_request_there_is_none() -> None:
    """A stock observation is handed on as it is."""
    assert split_realtime({"state": 1}) == ({"state": 1}, None)


def test_wider_floats_become_float32() -> None:
    """A client may send float64 rows; the policy gets float32."""
    _, request = split_realtime(sent(leftover=LEFTOVER.astype(np.float64)))
    assert request is not None
    np.testing.assert_array_equal(request.leftover, LEFTOVER, strict=True)


def test_age_and_deadline_may_be_left_out() -> None:
    """Both are estimates a client may not have."""
    observation = sent()
    del observation["_rt"]["age_ms"], observation["_rt"]["deadline_ms"]
    _, request = split_realtime(observation)
    assert request is not None
    assert (request.age_ms, request.deadline_ms) == (0.0, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seq": -1}, r"_rt\.seq: expected an integer"),
        ({"traceparent": b"00"}, r"_rt\.traceparent: expected a traceparent of W3C"),
        ({"traceparent": TRACEPARENT + "\n"}, r"_rt\.traceparent"),
        ({"traceparent": TRACEPARENT.upper()}, r"_rt\.traceparent"),
        ({"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, r"_rt\.traceparent"),
        (
            {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"},
            r"_rt\.traceparent",
        ),
        ({"seq": True}, r"_rt\.seq"),
        ({"seq": 1.0}, r"_rt\.seq"),
        ({"delay": None}, r"_rt\.delay"),
        ({"delay": 10_001}, r"_rt\.delay: expected an integer from 0 to 10000, got 10001"),
        ({"execution_horizon": "5"}, r"_rt\.execution_horizon"),
        ({"control_hz": 0.0}, r"_rt\.control_hz: expected a number above 0"),
        ({"control_hz": float("nan")}, r"_rt\.control_hz"),
        ({"control_hz": float("inf")}, r"_rt\.control_hz"),
        ({"deadline_ms": -1.0}, r"_rt\.deadline_ms"),
        ({"age_ms": True}, r"_rt\.age_ms"),
        ({"age_ms": "soon"}, r"_rt\.age_ms"),
        ({"leftover": [[1.0]]}, r"_rt\.leftover: expected a finite float array"),
        ({"leftover": np.zeros((2, 2), np.int32)}, r"got int32 of shape \(2, 2\)"),
        ({"leftover": np.zeros(3, np.float32)}, r"got float32 of shape \(3,\)"),
        ({"leftover": np.zeros((10_001, 1), np.float32)}, r"at most 10000 rows"),
        ({"leftover": np.zeros((1, 1025), np.float32)}, r"of 1024 values"),
        ({"leftover": np.full((1, 1), np.nan, np.float32)}, r"got NaN or infinity"),
        ({"leftover": np.full((1, 1), 1e300)}, r"got NaN or infinity"),
        ({"leftover": SIGNALLING.reshape(1, 1)}, r"got NaN or infinity"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    """The error names the field, what it should be and what it is."""
    with pytest.raises(DecodeError, match=said):
        split_realtime(sent(**changes))


def test_a_request_that_is_no_map_is_refused() -> None:
    """`_rt` itself must be a map."""
    with pytest.raises(DecodeError, match=r"_rt: expected a map, got \[1\]"):
        split_realtime({"_rt": [1]})


@pytest.mark.parametrize(
    "support",
    [RealtimeSupport(), RealtimeSupport(prefix="trained", max_delay=8)],
)
def test_what_a_server_announces_is_what_a_robot_reads(support: RealtimeSupport) -> None:
    """The announcement survives the codec."""
    assert realtime_support(decode(encode(announcement(support)))) == support


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"_rt": 1},
        {"_rt": {}},
        {"_rt": {"version": 2, "prefix": "guided"}},
        {"_rt": {"version": 1, "prefix": "none"}},
        {"_rt": {"version": 1, "prefix": ""}},
        {"_rt": {"version": 1, "prefix": "x" * 33}},
        {"_rt": {"version": 1, "prefix": "guided", "max_delay": -1}},
    ],
)
def test_an_announcement_to_rely_on_or_none(metadata: Any) -> None:
    """What is missing, malformed or of another version counts as no support, so stock bytes are sent."""
    assert realtime_support(metadata) is None


def test_a_reply_survives_the_wire() -> None:
    """The robot reads what the server pinned."""
    reply = RealtimeReply(seq=7, delay=3, prefix="guided", queue_ms=1.5, infer_ms=80.0)
    result = {"actions": 1}
    assert read_realtime_reply(decode(encode(with_realtime_reply(result, reply)))) == reply
    assert result == {"actions": 1}


@pytest.mark.parametrize(
    "reply",
    [None, {}, {"_rt": 3}, {"_rt": {"seq": 1}}, {"_rt": {"seq": 1, "delay": -1}}],
)
def test_a_reply_without_a_word_to_rely_on(reply: Any) -> None:
    """Nonsense under `_rt` costs the join, not the chunk."""
    assert read_realtime_reply(reply) is None
