# SPDX-License-Identifier: Apache-2.0
"""Our pixels and key maps against OpenPI's own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi05_websocket.errors import ObservationError
from pi05_websocket.images import resize_with_pad, to_uint8_hwc
from pi05_websocket.presets import PRESETS

pytestmark = pytest.mark.openpi
image_tools = pytest.importorskip("openpi_client.image_tools")
msgpack_numpy = pytest.importorskip("openpi_client.msgpack_numpy")


def pixels(*shape: int) -> Any:
    """Return noise."""
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(480, 640), (720, 1280), (1080, 1920), (240, 320), (224, 224), (224, 300), (300, 224),
     (481, 641), (100, 100), (64, 48), (1, 224), (223, 225), (480, 848), (600, 800)],
)  # fmt: skip
def test_padding_equals_openpi_at_camera_sizes(rows: int, columns: int) -> None:
    """The usual cameras' images come out with OpenPI's pixels at 224x224."""
    image = pixels(rows, columns)
    expected = image_tools.resize_with_pad(image, 224, 224)
    np.testing.assert_array_equal(resize_with_pad(image, 224, 224), expected)


sizes = st.integers(1, 90)


@settings(max_examples=300, deadline=None)
@given(rows=sizes, columns=sizes, height=sizes, width=sizes)
def test_padding_equals_openpi_at_any_size(
    rows: int, columns: int, height: int, width: int
) -> None:
    """Every size becomes every other with OpenPI's pixels; what it cannot resize we refuse."""
    image = pixels(rows, columns)
    try:
        expected = image_tools.resize_with_pad(image, height, width)
    except ValueError:
        with pytest.raises(ObservationError):
            resize_with_pad(image, height, width)
    else:
        np.testing.assert_array_equal(resize_with_pad(image, height, width), expected)


def test_padding_of_a_stack_equals_openpi() -> None:
    """Leading axes are handled alike."""
    stack = pixels(2, 3, 30, 40)
    expected = image_tools.resize_with_pad(stack, 16, 16)
    np.testing.assert_array_equal(resize_with_pad(stack, 16, 16), expected)


def test_float_conversion_equals_openpi_on_bytes() -> None:
    """Where OpenPI's truncation is exact, on k/255, so is ours."""
    floats = (pixels(16, 16).astype(np.float32)) / 255
    np.testing.assert_array_equal(to_uint8_hwc(floats), image_tools.convert_to_uint8(floats))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_openpi_codec(name: str) -> None:
    """Every preset's observation goes through OpenPI's packer and comes back the same."""
    key_map = PRESETS[name]
    frames = {n: pixels(c.height or 48, c.width or 64) for n, c in key_map.cameras.items()}
    sent = key_map.observation(frames, np.arange(key_map.state_dim or 6.0), "pick the cube")
    received = msgpack_numpy.unpackb(msgpack_numpy.packb(sent))
    nested = {key: value for key, value in sent.items() if isinstance(value, dict)}
    for parent, values in [(received, sent), *((received[k], v) for k, v in nested.items())]:
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                assert parent[key].dtype == value.dtype
                np.testing.assert_array_equal(parent[key], value)
    assert received["prompt"] == "pick the cube"
