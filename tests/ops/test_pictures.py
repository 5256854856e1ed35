# SPDX-License-Identifier: Apache-2.0
"""Small pictures and plans from whatever robots send and policies answer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pi05_websocket.ops.pictures import image_names, plan_of, prompt_of, thumbnail

RED = np.zeros((480, 640, 3), np.uint8)
RED[..., 0] = 200


def pixels(observation: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
    """Return a thumbnail's pixels."""
    picture = thumbnail(observation, name)
    assert picture is not None
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (RED, (240, 320)),
        (RED[:40, :60], (40, 60)),
        (np.moveaxis(RED, 2, 0), (240, 320)),
        (RED.astype(np.float32) / 255, (240, 320)),
        (np.concatenate([RED] * 4), (320, 107)),
        (np.concatenate([RED] * 4, axis=1), (60, 320)),
    ],
)
def test_images_become_small(image: np.ndarray[Any, Any], size: tuple[int, int]) -> None:
    """At most 320 columns and rows, the same colours, whatever the axis order and range."""
    shown = pixels({"top": image}, "top")
    assert shown.shape[:2] == size
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), [200, 0, 0], atol=3)


def test_grey_images_and_models_ranges() -> None:
    """One channel is grey; from -1 to 1 is how OpenPI's models see; what is no number is black."""
    grey = np.full((10, 10, 1), 100, np.uint8)
    signed = np.full((10, 10, 3), -1.0, np.float32)
    signed[5:] = 1.0
    signed[0, 0] = np.nan
    assert abs(int(pixels({"g": grey}, "g").mean()) - 100) <= 2
    shown = pixels({"s": signed}, "s")
    assert shown[9, 9].min() > 250
    assert shown[2, 5].max() < 5


def test_names_of_nested_images() -> None:
    """Some policies nest their cameras; keys that are no text and maps too deep are left out."""
    observation = {
        "images": {"cam_high": RED, "more": {"left": RED, "deeper": {"x": RED}}},
        "observation/state": np.zeros(6, np.float32),
        "depth": np.zeros((480, 640), np.uint8),
        "flow": np.zeros((480, 640, 2), np.uint8),
        "labels": np.zeros((480, 640, 3), np.int64),
        7: RED,
        "x" * 101: RED,
        "prompt": "pick",
    }
    assert image_names(observation) == ["images/cam_high", "images/more/left"]
    assert thumbnail(observation, "images/more/left") is not None
    assert thumbnail(observation, "observation/state") is None
    assert image_names(None) == []
    assert len(image_names({str(number): RED for number in range(20)})) == 8


@pytest.mark.parametrize(
    ("observation", "prompt"),
    [
        ({"prompt": "pick"}, "pick"),
        ({"task": "pick"}, "pick"),
        ({"prompt": "p" * 999}, "p" * 300),
        ({"prompt": 3}, None),
        ({}, None),
        (None, None),
    ],
)
def test_prompts(observation: dict[str, Any] | None, prompt: str | None) -> None:
    """A text under either name, not too long."""
    assert prompt_of(observation) == prompt


@pytest.mark.parametrize(
    ("actions", "plan"),
    [
        (np.array([[1, 2], [3, np.nan]], np.float32), [[1.0, 3.0], [2.0, None]]),
        ([[1, 2]], [[1.0], [2.0]]),
        (np.zeros((0, 6)), None),
        (np.zeros(6), None),
        ("rows", None),
        ([[1], [2, 3]], None),
        (None, None),
    ],
)
def test_plans(actions: Any, plan: Any) -> None:
    """Each value over the rows; what is no table of numbers is no plan."""
    assert plan_of(actions) == plan


def test_a_tensor_that_is_elsewhere_is_no_plan() -> None:
    """One on a GPU does not become an array."""

    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    assert plan_of(Tensor()) is None


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.int16]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=12),
    )
)
def test_anything_may_come(value: np.ndarray[Any, Any]) -> None:
    """What has a name as an image is one that can be shown; a plan is small."""
    observation = {"x": value}
    assert (thumbnail(observation, "x") is not None) == (image_names(observation) == ["x"])
    plan = plan_of(value)
    assert plan is None or len(plan) == value.shape[1]
