# SPDX-License-Identifier: Apache-2.0
"""Recorded observations asked again: raw, as JPEG, smaller."""

from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.images import resize_with_pad
from pi05_websocket.recording.observations import (
    as_jpeg,
    fewer_pixels,
    has_jpeg,
    message_bytes,
    stock,
)
from pi05_websocket.wire.encoded_images import encode_images

SCENE = (np.mgrid[:64, :80].sum(0)[..., None] * [1, 2, 3] % 256).astype(np.uint8)
OBSERVATION = {
    "top": SCENE,
    "wrist": {"rgb": SCENE[:32, :32].transpose(2, 0, 1).copy()},
    "state": np.zeros(6, np.float32),
    "_rt": {"seq": 1},
}


def test_stock_is_what_the_policy_sees():
    """Arrays in the place of JPEGs, nothing of ours."""
    sent, count = encode_images(OBSERVATION, 90)

    seen = stock(sent)

    assert count == 2
    assert seen.keys() == {"top", "wrist", "state"}
    assert seen["wrist"]["rgb"].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("observation", "expected"),
    [(OBSERVATION, False), (encode_images(OBSERVATION, 90)[0], True),
     ({"deep": encode_images(OBSERVATION, 90)[0]}, True), ({}, False)],
)  # fmt: skip
def test_jpegs_are_noticed(observation: dict, expected: bool):
    """Then nobody knows any more what the camera saw."""
    assert has_jpeg(observation) is expected


def test_jpeg_changes_pixels_and_nothing_else():
    """Shape, layout and the state stay; the request is smaller."""
    plain = stock(OBSERVATION)

    seen, nbytes = as_jpeg(plain, 75)

    assert nbytes < message_bytes(plain)
    assert seen["top"].shape == SCENE.shape
    assert not np.array_equal(seen["top"], SCENE)
    np.testing.assert_array_equal(seen["state"], plain["state"])


def test_larger_images_are_fitted_and_smaller_ones_left():
    """As OpenPI pads them, whatever the order of their axes."""
    seen = fewer_pixels({**OBSERVATION, "chw": SCENE.transpose(2, 0, 1).copy()}, 40)

    np.testing.assert_array_equal(seen["top"], resize_with_pad(SCENE, 40, 40))
    np.testing.assert_array_equal(seen["chw"], seen["top"].transpose(2, 0, 1))
    assert seen["wrist"]["rgb"] is OBSERVATION["wrist"]["rgb"]
