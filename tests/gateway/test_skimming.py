# SPDX-License-Identifier: Apache-2.0
"""What is read of a message that is passed on, and what is changed in it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import DecodeError
from pi05_websocket.gateway.skimming import LONGEST_SKIMMED, Skimmed, normalised, skim
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.limits import DEFAULT_LIMITS, DecodeLimits
from pi05_websocket.wire.realtime import RealtimeRequest, split_realtime, with_realtime

SAID = RealtimeRequest(
    seq=7,
    leftover=np.ones((3, 2), np.float32),
    delay=2,
    execution_horizon=4,
    control_hz=30.0,
    deadline_ms=250.0,
    age_ms=12.5,
)
RAMP = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 48, 3))
OBSERVATION: dict[str, Any] = {
    "image": RAMP,
    "state": np.arange(6, dtype=np.float32),
    "prompt": "pick",
}


def skimmed(observation: Any) -> Skimmed:
    """Read the top of what our client sends."""
    found = skim(bytearray(codec.encode(observation)))
    assert found is not None
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two messages say the same, in the same order."""
    return codec.encode(codec.decode(one)) == codec.encode(codec.decode(other))


def test_a_stock_message_says_nothing_to_a_gateway() -> None:
    """No deadline, no encoded image, and it goes on as it came."""
    found = skimmed(OBSERVATION)
    assert found.realtime(DEFAULT_LIMITS) is None
    assert not found.encoded_images
    assert list(found.entries) == ["image", "state", "prompt"]


def test_what_the_robot_says_is_read_and_checked() -> None:
    """All of it, as a server would; and refused as there."""
    found = skimmed(with_realtime(OBSERVATION, SAID)).realtime(DEFAULT_LIMITS)
    assert found is not None
    assert (found.seq, found.deadline_ms, found.age_ms) == (7, 250.0, 12.5)
    np.testing.assert_array_equal(found.leftover, SAID.leftover)
    with pytest.raises(DecodeError, match=r"_rt\.seq: expected an integer"):
        skimmed({"_rt": {"seq": -1}}).realtime(DEFAULT_LIMITS)


@pytest.mark.parametrize(
    "observation",
    [
        {"image": RAMP},
        {"cameras": {"left": {"front": RAMP}}},
        {"images": RAMP, "prompt": "the word __image__ here"},  # decoded in vain, and that is all
    ],
)
def test_encoded_images_are_seen_wherever_they_are(observation: dict[str, Any]) -> None:
    """Also in maps inside maps."""
    encoded, count = encode_images(observation, 90)
    assert count == 1
    assert skimmed(encoded).encoded_images
    assert skimmed(observation).encoded_images is ("prompt" in observation)


def test_without_realtime_is_what_a_stock_client_would_have_sent() -> None:
    """Byte for byte."""
    message = skimmed(with_realtime(OBSERVATION, SAID)).without_realtime()
    assert message == codec.encode(OBSERVATION)


def test_the_age_is_renewed_in_place() -> None:
    """Our client writes it last: eight bytes change, and they can be changed again."""
    original = codec.encode(with_realtime(OBSERVATION, SAID))
    found = skimmed(with_realtime(OBSERVATION, SAID))
    for age_ms in (40.0, 12.5):
        message = found.aged(SAID, age_ms)
        assert message is found.message
        assert message == codec.encode(with_realtime(OBSERVATION, replace(SAID, age_ms=age_ms)))
    assert found.message == original


@pytest.mark.parametrize(
    "observation",
    [
        {"_rt": with_realtime({}, SAID)["_rt"], **OBSERVATION},  # not the last entry
        {**OBSERVATION, "_rt": {"age_ms": 12.5, **with_realtime({}, SAID)["_rt"]}},  # not its last
        {**OBSERVATION, "_rt": {**with_realtime({}, SAID)["_rt"], "age_ms": 12}},  # not a float
        {
            **OBSERVATION,
            "_rt": {k: v for k, v in with_realtime({}, SAID)["_rt"].items() if k != "age_ms"},
        },
    ],
)
def test_the_age_of_any_other_message_is_renewed_too(observation: dict[str, Any]) -> None:
    """With all else as it was."""
    found = skimmed(observation)
    said = found.realtime(DEFAULT_LIMITS)
    assert said is not None
    stock, renewed = split_realtime(codec.decode(found.aged(said, 99.0)))
    assert renewed is not None
    assert renewed.age_ms == 99.0
    assert (renewed.seq, renewed.deadline_ms, renewed.delay) == (7, 250.0, 2)
    np.testing.assert_array_equal(renewed.leftover, SAID.leftover)
    assert codec.encode(stock) == codec.encode(OBSERVATION)


def test_an_immutable_message_is_written_anew() -> None:
    """What was decoded beside may be bytes."""
    message = codec.encode(with_realtime(OBSERVATION, SAID))
    found = skim(message)
    assert found is not None
    assert found.aged(SAID, 40.0) == codec.encode(
        with_realtime(OBSERVATION, replace(SAID, age_ms=40.0))
    )
    assert found.message == message


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x91\x01",
        b"\x81\xa1a",  # ends too early
        b"\x81\xc4\x01a\x01",  # names as binary, which some peers write
        b"\x80\x01",  # something follows
        b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",  # deeper than anybody needs
        b"\xde\x01\x01" + b"".join(b"\xa3%03d\x01" % i for i in range(257)),
        b"\xdf\x00\x01\x00\x00",
        bytes(LONGEST_SKIMMED + 1),
    ],
)
def test_what_is_not_skimmed(message: bytes) -> None:
    """It has to be decoded, by which all bounds are checked."""
    assert skim(message) is None
    assert skim(bytearray(message)) is None


@pytest.mark.parametrize("head", [b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"])
def test_longer_heads_are_maps_too(head: bytes) -> None:
    """Some packers write no short ones."""
    found = skim(head + b"\xa1a\x01")
    assert found is not None
    assert list(found.entries) == ["a"]


def test_normalised_is_the_same_request() -> None:
    """As our encoder writes it; images stay what they are unless they are asked for as arrays."""
    encoded, _ = encode_images(with_realtime(OBSERVATION, SAID), 90)
    message = codec.encode(encoded)
    assert same(normalised(message, DEFAULT_LIMITS, False).message, message)
    found = codec.decode(normalised(message, DEFAULT_LIMITS, True).message)
    assert list(found) == list(encoded)
    assert found["image"].shape == RAMP.shape
    assert np.abs(found["image"].astype(int) - RAMP).max() < 8
    assert isinstance(normalised(message, DEFAULT_LIMITS, True).message, bytearray)


@pytest.mark.parametrize(
    ("message", "limits", "wrong"),
    [
        (b"\xc1", DEFAULT_LIMITS, "an unused tag"),
        (b"\x91\x01", DEFAULT_LIMITS, "expected an observation .a map., got list"),
        (b"\x81\xa1a\x92\x01\x02", DecodeLimits(max_items=3), "more than 3 values"),
    ],
)
def test_what_is_no_request_is_refused(message: bytes, limits: DecodeLimits, wrong: str) -> None:
    """As at a server."""
    with pytest.raises(DecodeError, match=wrong):
        normalised(message, limits, True)


@given(st.binary(max_size=200))
def test_any_bytes_are_skimmed_or_not(message: bytes) -> None:
    """Nothing else happens, whatever a stranger sends; what is skimmed is a whole map."""
    found = skim(bytearray(message))
    if found is not None:
        assert isinstance(found.encoded_images, bool)
        assert msgspec.msgpack.decode(
            found.without_realtime(), type=dict[str, msgspec.Raw]
        ).keys() == found.entries.keys() - {"_rt"}
        with contextlib.suppress(DecodeError):
            found.realtime(DEFAULT_LIMITS)


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in ("_rt", "__ndarray__")),
        st.one_of(st.integers(0, 99), st.text(max_size=9), st.binary(max_size=9), st.none()),
        max_size=8,
    ),
    st.integers(0, 8),
    st.floats(0, 1000),
)
def test_wherever_it_stands_everything_else_stays(
    observation: dict[str, Any], place: int, age_ms: float
) -> None:
    """Taking `_rt` out, or renewing its age, changes nothing else."""
    items = list(observation.items())
    items.insert(min(place, len(items)), ("_rt", with_realtime({}, SAID)["_rt"]))
    found = skimmed(dict(items))
    assert found.without_realtime() == codec.encode(observation)
    stock, renewed = split_realtime(codec.decode(found.aged(SAID, age_ms)))
    assert codec.encode(stock) == codec.encode(observation)
    assert renewed is not None
    assert renewed.age_ms == age_ms
