# SPDX-License-Identifier: Apache-2.0
"""What is recorded of a request is what was sent, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pi05_websocket.recording.messages import as_sent, messages_of
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images

SCENE = (np.mgrid[:64, :80].sum(0)[..., None] * [1, 2, 3] % 256).astype(np.uint8)
OBSERVATION = {
    "observation/images/top": SCENE,
    "wrist": {"rgb": SCENE.transpose(2, 0, 1).copy()},
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick",
}


@pytest.mark.parametrize("quality", [None, 95, 75])
def test_a_request_is_kept_as_it_went_out(quality: int | None):
    """Raw, or with the JPEGs that were made of its images."""
    sent = OBSERVATION if quality is None else encode_images(OBSERVATION, quality)[0]

    assert as_sent(codec.encode(OBSERVATION), quality) == codec.encode(sent)


def test_a_request_shows_its_images_to_viewers():
    """Each under its key, nested ones too, whatever the order of their axes."""
    facts = {"seq": 7, "observation": codec.encode(OBSERVATION), "quality": None}

    found = messages_of("request", facts, at_ns=5, origin_ns=100)

    assert [message.topic for message in found] == [
        "/request", "/camera/observation/images/top", "/camera/wrist/rgb",
    ]  # fmt: skip
    assert {(message.time_ns, message.sequence) for message in found} == {(105, 7)}
    assert all(b"\xff\xd8\xff" in message.data for message in found[1:])


def test_a_reply_is_kept_and_one_that_is_no_message_left_out():
    """A map whose keys are numbers is no answer of a policy's."""
    (kept,) = messages_of("reply", {"seq": 1, "value": {"actions": np.ones((2, 3))}}, 0, 0)

    assert codec.decode(kept.data)["actions"].shape == (2, 3)
    assert messages_of("reply", {"seq": 1, "value": {3: 4}}, 0, 0) == []


def test_what_a_person_reads_is_a_sentence_too():
    """An outage is an event and a line of the log; a tick is a tick."""
    outage = messages_of("outage", {"cause": "gone", "error": "ConnectionLost"}, 2_000_000_000, 0)

    assert [message.topic for message in outage] == ["/event", "/log"]
    assert json.loads(outage[0].data)["time_s"] == 2.0
    assert [m.topic for m in messages_of("tick", {"seq": -1}, 0, 0)] == ["/tick"]
    assert [m.topic for m in messages_of("server", {"metadata": {}}, 0, 0)] == ["/server"]
