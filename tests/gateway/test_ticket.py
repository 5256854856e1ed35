# SPDX-License-Identifier: Apache-2.0
"""What each upstream is sent, by what it reads."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pi05_websocket.gateway.skimming import normalised, skim
from pi05_websocket.gateway.ticket import Ticket
from pi05_websocket.server.requests import Asker, Request
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.limits import DEFAULT_LIMITS
from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import RealtimeRequest, split_realtime, with_realtime

SAID = RealtimeRequest(
    seq=1,
    leftover=np.zeros((0, 6), np.float32),
    delay=0,
    execution_horizon=1,
    control_hz=30.0,
    deadline_ms=200.0,
    age_ms=10.0,
)
OBSERVATION: dict[str, Any] = {"image": np.zeros((64, 48, 3), np.uint8), "prompt": "pick"}
JPEG, _ = encode_images(OBSERVATION, 90)


def ticket(observation: dict[str, Any], *, read: bool = True, images: bool = False) -> Ticket:
    """One that was read, if it is to be."""
    payload = bytearray(codec.encode(observation))
    request = Request(
        connection=cast("Asker", object()),
        number=1,
        protocol=ServerProtocol({}, deadlines=True),
        payload=payload,
        arrived=0.0,
        priority=1,
    )
    made = Ticket(request=request, images=images)
    if read:
        made.skimmed = skim(payload)
        assert made.skimmed is not None
        request.realtime = made.skimmed.realtime(DEFAULT_LIMITS)
    return made


def sent(made: Ticket, *, jpeg: bool = False, realtime: bool = False) -> Any:
    """What an upstream is sent that reads this, 40 ms after it came, over a way of 3 ms."""
    return made.message_for(reads_jpeg=jpeg, reads_realtime=realtime, waited_s=0.040, way_s=0.003)


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("realtime", [True, False])
def test_a_stock_message_goes_as_it_came(read: bool, realtime: bool) -> None:
    """The very bytes, no copy."""
    made = ticket(OBSERVATION, read=read)
    assert sent(made, realtime=realtime) is made.request.payload


def test_a_stock_server_is_not_sent_what_it_does_not_know() -> None:
    """`_rt` is taken out."""
    assert sent(ticket(with_realtime(OBSERVATION, SAID))) == codec.encode(OBSERVATION)


def test_the_wait_and_the_way_make_an_observation_older() -> None:
    """By half of the wait, because a server counts the age twice: there and back."""
    message = sent(ticket(with_realtime(OBSERVATION, SAID)), realtime=True)
    _, said = split_realtime(codec.decode(message))
    assert said is not None
    assert said.age_ms == pytest.approx(10.0 + 20.0 + 3.0)
    assert said.deadline_ms == 200.0


def test_who_reads_jpeg_is_sent_jpeg() -> None:
    """As it came."""
    made = ticket(JPEG, images=True)
    assert sent(made, jpeg=True) is made.request.payload


def test_who_does_not_is_sent_arrays_once_they_are_there() -> None:
    """Until then nothing can be sent to it."""
    made = ticket(with_realtime(JPEG, SAID), images=True)
    assert sent(made) is None
    assert isinstance(made.request.payload, bytearray)
    made.arrays = normalised(made.request.payload, DEFAULT_LIMITS, True)
    found = codec.decode(sent(made))
    assert list(found) == ["image", "prompt"]
    assert found["image"].shape == (64, 48, 3)
    assert "_rt" in codec.decode(sent(made, realtime=True))
